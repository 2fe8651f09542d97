"""The command line without servers: help on every verb, and what each kind of error ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click
import pytest

from mongosplit import errors
from mongosplit.errors import MongosplitError
from mongosplit.settings import PREFIX, SERVERS_FILE, Settings, flag
from ops import entry
from ops.dev import embedded_unless_given, forget_stale
from producer.cli import mongosplit, run

Servers = Callable[[Settings], AbstractContextManager[Settings]]

EXIT_CODES = {
    MongosplitError: 1,
    errors.DefinitionError: 2,
    errors.DefinitionChanged: 2,
    errors.UsageError: 2,
    errors.Refused: 3,
    errors.IllegalTransition: 3,
    errors.LeaseHeld: 3,
    errors.Failed: 1,
    errors.TransientError: 1,
    errors.Waiting: 1,
    errors.FenceBusy: 1,
    errors.Lagging: 1,
}
VERBS = ["check", "coverage", "plan", "drill", "start", "status", "pause", "resume", "cancel"]
VERBS += ["pace", "verify", "retry", "rollback", "quarantine", "kept", "history", "serve", "follow"]
VERBS += ["doctor", "dashboard", "compat"]
CHANGING = {"plan", "drill", "start", "pause", "resume", "cancel", "retry", "rollback"}
CHANGING |= {"pace", "follow", "quarantine retry", "quarantine release"}
CHANGING |= {"compat create", "compat drop"}
LINES = {"quarantine export", "kept export"}
"""They print JSON Lines, whatever is asked."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def raising(error: BaseException) -> Servers:
    @contextmanager
    def servers(settings: Settings) -> Iterator[Settings]:
        raise error
        yield settings

    return servers


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by what is typed, those of groups included."""
    for name, command in mongosplit.commands.items():
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())


TYPED = dict(commands())


def test_the_verbs_are_those_of_the_contract() -> None:
    assert {*VERBS, "dev"} == set(mongosplit.commands)
    assert mongosplit is entry.mongosplit


@pytest.mark.parametrize("line", TYPED)
@pytest.mark.parametrize("how", ["-h", "--help"])
def test_every_verb_explains_itself(
    line: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(AssertionError()), [*line.split(), how]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"Usage: mongosplit {line} ")
    assert said.err == ""
    explained = TYPED[line].help
    assert explained
    assert explained.splitlines()[0] in " ".join(said.out.split())
    for option in TYPED[line].params:
        if isinstance(option, click.Option):
            assert option.help, f"{line} {option.name}"


@pytest.mark.parametrize(
    "line", [line for line in TYPED if line not in {"dev", "quarantine", "kept", "compat"}]
)
def test_every_verb_that_needs_servers_takes_every_setting(line: str) -> None:
    options = {name for option in TYPED[line].params for name in option.opts}
    assert {flag(name) for name in Settings.model_fields} <= options
    assert ("--yes" in options) == (line in CHANGING)
    assert ("--output" in options) == (line not in LINES | {"serve", "follow", "dashboard"})


def test_help_and_version_tell_the_exit_codes_and_the_package(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(arguments=["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "Exit codes: 0 done, 1 failed, 2 usage, 3 refused as unsafe, 4 differences found." in said
    )
    assert run(arguments=["--version"]) == 0
    assert capsys.readouterr().out.startswith("mongosplit, version ")


def test_every_error_that_reaches_the_command_line_has_its_exit_code_here() -> None:
    found, level = set[type[MongosplitError]](), [MongosplitError]
    while level:
        found |= set(level)
        level = [inner for kind in level for inner in kind.__subclasses__()]
    ours = {kind for kind in found if kind.__module__ == "mongosplit.errors"}
    assert ours - {errors.DocumentError} == set(EXIT_CODES)


@pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items())
def test_an_error_ends_with_its_exit_code_a_sentence_and_what_to_type(
    kind: type[MongosplitError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("the shop [red]is[/red] closed", hint="mongosplit status")
    assert run(raising(error), ["check"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "mongosplit: the shop [red]is[/red] closed\n  mongosplit status\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_ends_with_a_sentence_and_code_1(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), ["check"]) == 1
    assert "the ledger knows where to go on" in capsys.readouterr().err


def test_a_bug_is_not_dressed_up_as_a_sentence() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()), ["check"])


def test_one_server_alone_starts_no_embedded_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PREFIX + "REDIS_URL", "redis://127.0.0.1:9/0")
    assert run(embedded_unless_given, ["check"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mongosplit: MONGOSPLIT_MONGO_URL is not set: ")
    assert not SERVERS_FILE.exists()


def test_the_servers_file_of_a_process_that_is_gone_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SERVERS_FILE.parent.mkdir()
    SERVERS_FILE.write_text("# written by process 4194305\nMONGOSPLIT_DATABASE=gone\n")
    forget_stale()
    assert not SERVERS_FILE.exists()
    SERVERS_FILE.write_text("# written by process 1\nMONGOSPLIT_DATABASE=there\n")
    forget_stale()
    assert SERVERS_FILE.exists()
