"""The verbs on documents in quarantine: list, show, retry, release, export."""

from __future__ import annotations

from dataclasses import replace

import click

from mongosplit.errors import LeaseHeld, Refused, UsageError
from mongosplit.ledger import quarantine as held
from mongosplit.ledger.quarantine import Which
from mongosplit.selection import Selection
from mongosplit.settings import Settings
from producer import again, console, json_lines, pointing, quarantine_facts, tables_quarantine
from producer.connection import Connection, connected
from producer.driving import drive_and_sum_up
from producer.options import (
    confirm,
    local_workers_flag,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.pointing import Pointed, point, reason_flag, words_argument
from producer.selecting import EVERYTHING, Asked

LONGEST_BECAUSE = 1000


@click.group("quarantine")
def quarantine() -> None:
    """Documents that cannot be split, out of the way until someone decides."""


@quarantine.command("list")
@name_argument("MIGRATION|RUN")
@reason_flag
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="at most")
@output_flag
@settings_flags
@click.pass_context
def list_(
    context: click.Context,
    name: str | None,
    reason: str | None,
    limit: int,
    settings: Settings,
    output: str,
) -> None:
    """Their ids, with field path and sentence; never a value."""
    with connected(settings, context.obj) as at:
        run = at.run(name or settings.migration)
        reasons = held.by_reason(at.ledger, run.id)
        if reason is not None:
            pointing.check_reason(run, reason, reasons)
            reasons = [row for row in reasons if row["reason"] == reason]
        rows = held.listed(at.ledger, run.id, which=Which(reason=reason), limit=limit)
        known = pointing.types(at, run)
    documents = [{**row, "released": row.get("released")} for row in rows]
    facts = {"run": run.id, "reasons": reasons, "documents": documents}
    if output == "json":
        console.print_json(facts)
    else:
        whole = sum(row["count"] for row in reasons)
        tables_quarantine.documents(facts, known, whole, reason)


@quarantine.command("show")
@words_argument("[MIGRATION|RUN] ID")
@click.option("--values", is_flag=True, help="also the document and its parts, with their values")
@output_flag
@settings_flags
@click.pass_context
def show(
    context: click.Context, words: tuple[str, ...], values: bool, settings: Settings, output: str
) -> None:
    """One document: why it is here, and everything that keeps it from being split.

    ID is an _id as plain text of the collection's own type, or as extended JSON. A negative number
    goes behind --.
    """
    if not 1 <= len(words) <= 2:
        raise UsageError("show takes one _id, and the run before it", hint="give [RUN] ID")
    with connected(settings, context.obj) as at:
        opened = at.open(words[0] if len(words) > 1 else settings.migration)
        known = pointing.types(at, opened.run)
        pointed = pointing.point_at_ids(at, opened.run, words[-1:])
        facts = quarantine_facts.one(opened, pointed.which, values=values)
    if facts is None:
        hint = f"mongosplit quarantine list {opened.run.id}"
        raise Refused("the document has just left quarantine", hint=hint)
    if output == "json":
        console.print_json(facts)
    else:
        tables_quarantine.one(facts, pointing.id_text(facts["source_id"], known))
        tables_quarantine.values(facts)


@quarantine.command("retry")
@words_argument("[MIGRATION|RUN] [ID]...")
@reason_flag
@click.option("--all", "everything", is_flag=True, help="all documents in quarantine")
@local_workers_flag
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def retry(  # noqa: PLR0917 - one argument for each flag
    context: click.Context,
    words: tuple[str, ...],
    reason: str | None,
    everything: bool,
    settings: Settings,
    local: int,
    yes: bool,
    output: str,
) -> None:
    """Try documents again after they were mended, and drive the run on.

    All documents in quarantine of their chunks are tried with them.
    """
    with connected(settings, context.obj) as at:
        pointed = point(at, words, reason, everything=everything)
        opened = at.open(pointed.run.id)
        wanted = again.look(at, opened.run, _chunks_of(at, pointed), quarantined=True)
        wanted = replace(wanted, part=pointed.words)
        confirm(f"try {pointed.words} of {opened.run.id} again ({wanted.sentence})?", yes=yes)
        opened = again.ask(at, opened, wanted)
        try:
            code = drive_and_sum_up(at, opened, local, output)
            _say_who_is_left(at, pointed)
        except LeaseHeld as busy:
            console.say(f"asked for: {busy.message}")
            code = 0
    context.exit(code)


def _chunks_of(at: Connection, pointed: Pointed) -> Asked:
    if pointed.which == held.ALL:
        return EVERYTHING
    numbers = held.chunks_of(at.ledger, pointed.run.id, pointed.which)
    if not numbers:
        hint = f"mongosplit quarantine list {pointed.run.id}"
        raise Refused("the documents have just left quarantine", hint=hint)
    return Asked(chunks=Selection.of(numbers))


def _say_who_is_left(at: Connection, pointed: Pointed) -> None:
    left = held.count(at.ledger, pointed.run.id, pointed.which)
    console.say(f"tried again: {pointed.words}; {left:,} of {pointed.count:,} left")


@quarantine.command("release")
@words_argument("[MIGRATION|RUN] [ID]...")
@reason_flag
@click.option("--because", metavar="TEXT", help="why they may stay unsplit; needed")
@click.option("--undo", is_flag=True, help="take the release back")
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def release(  # noqa: PLR0917 - one argument for each flag
    context: click.Context,
    words: tuple[str, ...],
    reason: str | None,
    because: str | None,
    undo: bool,
    settings: Settings,
    yes: bool,
    output: str,
) -> None:
    """Accept that documents stay unsplit; they stay in quarantine, with your name and reason."""
    why = _because(because, undo=undo)
    with connected(settings, context.obj) as at:
        pointed = point(at, words, reason)
        run, which = pointed.run, pointed.which
        confirm(_question(pointed, undo=undo), yes=yes)
        at.tell(
            "quarantine release",
            run=run.id,
            undo=undo,
            documents=pointed.count,
            reason=reason,
            ids=pointing.told_ids(at, pointed),
            because=why,
        )
        if undo:
            changed = held.take_back(at.ledger, run.id, which)
        else:
            changed = held.release(at.ledger, run.id, which, actor=settings.actor, because=why)
        released = held.released(at.ledger, run.id)
    facts = {"run": run.id, "documents": pointed.count, "changed": changed, "released": released}
    if output == "json":
        console.print_json(facts)
    else:
        tables_quarantine.released(facts, undo=undo)


def _because(because: str | None, *, undo: bool) -> str:
    text = (because or "").strip()
    if not text and not undo:
        raise UsageError("a release says why", hint='give --because "…"')
    if len(text) > LONGEST_BECAUSE:
        raise UsageError(
            f"the reason has more than {LONGEST_BECAUSE:,} characters", hint="say it in fewer"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError("the reason is not text in UTF-8", hint="write it in UTF-8")
    return text


def _question(pointed: Pointed, *, undo: bool) -> str:
    documents = f"{pointed.words} of {pointed.run.id}"
    if undo:
        return f"take the release of {documents} back?"
    return f"release {documents}, so that they stay unsplit?"


@quarantine.command("export")
@words_argument("[MIGRATION|RUN] [FILE]")
@reason_flag
@click.option("--values", is_flag=True, help="also the source documents, with their values")
@settings_flags
@click.pass_context
def export(
    context: click.Context,
    words: tuple[str, ...],
    reason: str | None,
    values: bool,
    settings: Settings,
) -> None:
    """JSON Lines of extended JSON, one document each, on stdout or into a new FILE."""
    with connected(settings, context.obj) as at:
        name, file = json_lines.run_and_file(at, words)
        run = at.run(name)
        if reason is not None:
            pointing.check_reason(run, reason, held.by_reason(at.ledger, run.id))
        found = quarantine_facts.lines(at, run, Which(reason=reason), values=values)
        count = json_lines.write(file, found)
    tables_quarantine.exported(count, run.id, file)
