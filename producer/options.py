"""Flags that several verbs share: a flag for every setting, `-o json`, `--yes`, `--dry-run`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from mongosplit.errors import MongosplitError, UsageError
from mongosplit.settings import PREFIX, Settings, flag, read_settings
from producer import console

Command = Callable[..., Any]


def settings_flags(command: Command) -> Command:
    """Give a verb a flag for each setting, and pass the settings as `settings`."""

    @functools.wraps(command)
    def with_settings(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in Settings.model_fields}
        return command(settings=read_settings(**given), **arguments)

    wrapped: Command = with_settings
    for name, info in reversed(Settings.model_fields.items()):
        text = f"{info.description} [env {PREFIX}{name.upper()}]"
        wrapped = click.option(flag(name), name, default=None, metavar="…", help=text)(wrapped)
    return wrapped


def output_flag(command: Command) -> Command:
    """`-o json` on everything that reads."""
    choice = click.Choice(["text", "json"])
    return click.option("-o", "--output", type=choice, default="text", help="how to print")(command)


def yes_flag(command: Command) -> Command:
    """`--yes` on everything that changes."""
    return click.option("--yes", is_flag=True, help="do not ask")(command)


def dry_run_flag(command: Command) -> Command:
    """`--dry-run`: say what would be done, write nothing."""
    text = "say what would be done and write nothing at all"
    return click.option("--dry-run", is_flag=True, help=text)(command)


def local_workers_flag(command: Command) -> Command:
    """`--local-workers N`: workers that live as long as the command."""
    option = click.option(
        "--local-workers",
        "local",
        type=click.IntRange(0, 64),
        default=0,
        metavar="N",
        help="run N workers here meanwhile",
    )
    return option(command)


def name_argument(word: str) -> Callable[[Command], Command]:
    """The migration or run a verb is about; the setting MIGRATION when none is named."""
    return click.argument("name", metavar=f"[{word}]", required=False, default=None)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal.

    Raises:
        UsageError: nobody is there to ask and `--yes` was not given.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} - nobody is there to answer", hint="give --yes")
    if not click.confirm(question, err=True):
        raise UsageError("nothing was done")


def report_error(error: MongosplitError) -> int:
    """Print an error and what to type next on stderr; returns the exit code."""
    console.say(f"mongosplit: {error.message}", style="red")
    if error.hint:
        console.say(f"  {error.hint}")
    return error.exit_code
