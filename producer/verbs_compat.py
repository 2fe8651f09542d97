"""The verbs on the compat view: create, drop, explain."""

from __future__ import annotations

import click
from rich.table import Table

from mongosplit import compat, compat_explain, raw
from mongosplit.compat_explain import Read
from mongosplit.errors import Refused, UsageError
from mongosplit.id_text import from_text
from mongosplit.keyspace import Bracket
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value
from mongosplit.settings import Settings
from producer import console, pointing
from producer.connection import Connection, connected
from producer.options import (
    Command,
    confirm,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.pointing import words_argument


def view_flag(command: Command) -> Command:
    """`--name`: what the view is called."""
    text = "what the view is called; else the source's name and _compat (users_compat)"
    return click.option("--name", "view", metavar="NAME", help=text)(command)


@click.group("compat")
def compat_() -> None:
    """A read-only view that serves the old documents from the new collections."""


@compat_.command("create")
@name_argument("MIGRATION|RUN")
@view_flag
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def create(
    context: click.Context,
    name: str | None,
    view: str | None,
    settings: Settings,
    yes: bool,
    output: str,
) -> None:
    """Make the view beside the source; ours, if it stands already, is brought up to date.

    A rollback of the whole run drops it again.
    """
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        called = _called(opened, view)
        compat.refuse(opened, called)
        there = compat.look(opened, called)
        made = there is None or not there.current
        if made:
            confirm(f"make the view {opened.data.name}.{called}?", yes=yes)
            at.tell("compat create", run=opened.run.id, view=called)
            made = compat.create(opened, called)
    done = "made" if made else "stands already"
    _say(output, opened, called, made, f"view {opened.data.name}.{called} {done}")


@compat_.command("drop")
@name_argument("MIGRATION|RUN")
@view_flag
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def drop(
    context: click.Context,
    name: str | None,
    view: str | None,
    settings: Settings,
    yes: bool,
    output: str,
) -> None:
    """Drop the view again; nothing but a view that `compat create` made is dropped."""
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        called = _called(opened, view)
        dropped = compat.ours(opened, called) is not None
        if dropped:
            confirm(f"drop the view {opened.data.name}.{called}?", yes=yes)
            at.tell("compat drop", run=opened.run.id, view=called)
            dropped = compat.drop(opened, called)
    done = "dropped" if dropped else "is not there"
    _say(output, opened, called, dropped, f"view {opened.data.name}.{called} {done}")


def _say(output: str, opened: OpenRun, view: str, changed: bool, sentence: str) -> None:
    if output == "json":
        console.print_json({"run": opened.run.id, "view": view, "changed": changed})
    else:
        console.data.print(sentence, markup=False)


@compat_.command("explain")
@words_argument("[MIGRATION|RUN] [FIELD=VALUE]...")
@view_flag
@output_flag
@settings_flags
@click.pass_context
def explain(
    context: click.Context,
    words: tuple[str, ...],
    view: str | None,
    settings: Settings,
    output: str,
) -> None:
    """How point reads are answered: by which index, how many documents examined, how fast.

    Without FIELD=VALUE by _id and by each field that the first target is indexed by, with a value
    of a document. VALUE is plain text, or extended JSON.
    """
    with connected(settings, context.obj) as at:
        named = bool(words) and "=" not in words[0]
        opened = at.open(words[0] if named else settings.migration)
        called = _called(opened, view)
        if compat.ours(opened, called) is None:
            hint = f"make it: mongosplit compat create {opened.run.id}"
            raise Refused(f"there is no view {opened.data.name}.{called}", hint=hint)
        pairs = _pairs(at, opened, words[int(named) :])
        reads = [
            compat_explain.explain(opened, called, field, value)
            for field, value in pairs
            if value is not None
        ]
    without = [field for field, value in pairs if value is None]
    if output == "json":
        facts = [read.to_document() for read in reads]
        console.print_json({"view": called, "reads": facts, "without_example": without})
        return
    _print(reads)
    for field in without:
        console.say(f"no document of {opened.run.source} has {field}: nothing to read by")


def _print(reads: list[Read]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("field", "index"):
        table.add_column(column, overflow="fold")
    for column in ("examined", "view", "plain", "ratio"):
        table.add_column(column, justify="right")
    for read in reads:
        used = ", ".join(read.indexes)
        if read.scans:
            used = f"{used}; a collection is scanned" if used else "a collection is scanned"
        times = (f"{read.view:.2f} ms", f"{read.plain:.2f} ms", f"{read.ratio:.1f}x")
        table.add_row(read.field, used, f"{read.examined:,}", *times)
    console.data.print(table)


def _pairs(
    at: Connection, opened: OpenRun, words: tuple[str, ...]
) -> list[tuple[str, Value | None]]:
    if words:
        return [_pair(at, opened, word) for word in words]
    by = compat_explain.fields(opened)
    return [(field, compat_explain.example(opened, field)) for field in by]


def _pair(at: Connection, opened: OpenRun, word: str) -> tuple[str, Value | None]:
    field, equals, text = word.partition("=")
    if not equals or not field or field.startswith("$"):
        raise UsageError("what is read by is FIELD=VALUE", hint="give for example username=anna")
    types = pointing.types(at, opened.run) if field == "_id" else (Bracket.STRING,)
    return field, raw.encode(from_text(text, types))


def _called(opened: OpenRun, view: str | None) -> str:
    called = compat.default_name(opened.migration) if view is None else view
    wrong = not called or "$" in called or "\0" in called or called.startswith(("system.", "."))
    if wrong or called.endswith("."):
        raise UsageError("that is no name for a view", hint="give --name users_compat")
    return called
