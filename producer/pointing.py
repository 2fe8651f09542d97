"""Pointing at documents in quarantine: `[RUN] ID…`, `--reason R` or `--all`, and what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click

from mongosplit import selection
from mongosplit.errors import Refused, UsageError
from mongosplit.id_text import from_text, to_text
from mongosplit.keyspace import Bracket, sort_key
from mongosplit.ledger import quarantine
from mongosplit.ledger.quarantine import Which
from mongosplit.model import Run
from producer.connection import Connection
from producer.console import counted
from producer.options import Command

NAMED = 3
"""How many ids a sentence names at most."""
LONGEST_ID = 200
TOLD = 100
"""How many ids the audit is told at most."""

Types = tuple[Bracket, ...]


@dataclass(frozen=True, slots=True)
class Pointed:
    """Documents in quarantine of a run, how many they are, and that in words without ids."""

    run: Run
    which: Which
    count: int
    words: str


def reason_flag(command: Command) -> Command:
    """`--reason R`: only the documents that are in quarantine for this reason."""
    return click.option("--reason", metavar="R", help="only those of this reason")(command)


def words_argument(metavar: str) -> Callable[[Command], Command]:
    """The words after a verb; the verb says which of them is the run."""
    return click.argument("words", metavar=metavar, nargs=-1)


def is_run(at: Connection, name: str) -> bool:
    """Whether the ledger knows a run of this name, or a run of a migration of this name."""
    try:
        at.run(name)
    except UsageError:
        return False
    return True


def types(at: Connection, run: Run) -> Types:
    """The types of `_id` that a plain text may be: those planned with, those in quarantine."""
    known = {*selection.brackets(at.ledger, run.id), *quarantine.types(at.ledger, run.id)}
    return tuple(bracket for bracket in Bracket if bracket in known)


def id_text(value: Any, known: Types) -> str:
    """An `_id` in a line of text, shortened where it is very long."""
    text = to_text(value, known)
    return text if len(text) <= LONGEST_ID else text[: LONGEST_ID - 1] + "…"


def point(
    at: Connection, words: tuple[str, ...], reason: str | None, *, everything: bool = False
) -> Pointed:
    """What the words and flags of a verb point at.

    Of several words the first may be the run; with `reason` or `everything` the only word is.

    Raises:
        UsageError: nothing or too much is given, or a text is no _id.
        Refused: an id is not in quarantine, or nothing is for this reason.
    """
    if reason is not None and everything:
        raise UsageError("--reason and --all cannot be given together", hint="give one of them")
    if reason is not None or everything:
        return _of_reason(at, words, reason)
    if not words:
        hint = "give ids, or --reason R: mongosplit quarantine list"
        raise UsageError("nothing says which documents are meant", hint=hint)
    name, ids = at.settings.migration, words
    if len(words) > 1 and is_run(at, words[0]):
        name, ids = words[0], words[1:]
    return point_at_ids(at, at.run(name), ids)


def _of_reason(at: Connection, words: tuple[str, ...], reason: str | None) -> Pointed:
    if len(words) > 1:
        flag = "--all" if reason is None else "--reason"
        raise UsageError(f"ids and {flag} cannot be given together", hint="give one of them")
    run = at.run(words[0] if words else at.settings.migration)
    rows = quarantine.by_reason(at.ledger, run.id)
    check_reason(run, reason, rows)
    count = sum(row["count"] for row in rows if reason in (None, row["reason"]))
    said = f"all {counted(count, 'document')} in quarantine"
    if reason is not None:
        said = f"{counted(count, 'document')} in quarantine for reason {reason}"
    return Pointed(run, Which(reason=reason), count, said)


def check_reason(run: Run, reason: str | None, rows: Iterable[dict[str, Any]]) -> None:
    """`rows` are the reasons that there are; none given is any of them.

    Raises:
        Refused: nothing is in quarantine at all, or not for this reason.
    """
    reasons = sorted({row["reason"] for row in rows})
    if not reasons:
        hint = f"mongosplit status {run.id}"
        raise Refused(f"nothing of {run.id} is in quarantine", hint=hint)
    if reason is not None and reason not in reasons:
        raise Refused(
            f"nothing of {run.id} is in quarantine for that reason",
            hint=f"there are: {', '.join(reasons)}",
        )


def point_at_ids(at: Connection, run: Run, texts: tuple[str, ...]) -> Pointed:
    """The documents with these ids, given as text.

    Raises:
        UsageError: a text is no _id. Refused: an id is not in quarantine.
    """
    known = types(at, run)
    ids = {sort_key(value): value for value in (_read(text, run, known) for text in texts)}
    which = Which(ids=tuple(ids.values()))
    found = {sort_key(row.source_id.decode()) for row in quarantine.rows(at.ledger, run.id, which)}
    if missing := [value for key, value in ids.items() if key not in found]:
        raise _not_there(run, [id_text(value, known) for value in missing])
    said = f"{counted(len(ids), 'document')} in quarantine"
    return Pointed(run, which, len(ids), said)


def _read(text: str, run: Run, known: Types) -> object:
    if known:
        return from_text(text, known)
    raise Refused(f"nothing of {run.id} is in quarantine", hint=f"mongosplit status {run.id}")


def _not_there(run: Run, missing: list[str]) -> Refused:
    named = ", ".join(missing[:NAMED])
    if len(missing) > NAMED:
        named += f" and {len(missing) - NAMED:,} more"
    are = "is" if len(missing) == 1 else "are"
    return Refused(
        f"{named} {are} not in quarantine of {run.id}",
        hint=f"mongosplit quarantine list {run.id}",
    )


def told_ids(at: Connection, pointed: Pointed) -> list[str]:
    """Ids as text for the audit; only the first of many."""
    known = types(at, pointed.run)
    rows = quarantine.listed(at.ledger, pointed.run.id, which=pointed.which, limit=TOLD)
    return [id_text(row["source_id"], known) for row in rows]
