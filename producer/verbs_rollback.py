"""The verb that takes parts out of the targets again: rollback, of chunks or of a whole run."""

from __future__ import annotations

import time

import click

from mongosplit import rollback as rolling
from mongosplit.errors import LeaseHeld
from mongosplit.ledger import runs
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import conclusion, console, status, tables, undoing
from producer.connection import Connection, connected
from producer.driving import drive_here, workers
from producer.options import (
    confirm,
    dry_run_flag,
    local_workers_flag,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.selecting import Asked, selection_flags
from producer.undoing import Part

POLL_SECONDS = 0.5


@click.command("rollback")
@name_argument("MIGRATION|RUN")
@selection_flags()
@click.option(
    "--on-change",
    type=click.Choice(rolling.ON_CHANGE),
    default="keep",
    show_default=True,
    help="targets that were changed since: keep saves them first, fail leaves their chunk",
)
@local_workers_flag
@yes_flag
@dry_run_flag
@output_flag
@settings_flags
@click.pass_context
def rollback(  # noqa: PLR0917 - one argument for each flag
    context: click.Context,
    name: str | None,
    settings: Settings,
    asked: Asked,
    on_change: str,
    local: int,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Take out of the targets what a run, or a part of it, has put there; the source is untouched.

    Of a whole run also the collections, indexes and validators that it made.
    """
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        part = undoing.look(at, opened.run, asked)
        if dry_run:
            console.data.print(f"would roll back {part.sentence}; nothing was written")
            return
        confirm(f"roll back {part.sentence}?", yes=yes)
        if on_change == "fail":
            undoing.refuse_changed(opened, part)
        undoing.ask(at, opened, part, on_change)
        with workers(local, at.settings, "rollback", "verify", needed=False):
            _drive_or_wait(opened, at.settings, part)
        code = _sum_up(at, opened, part, output)
    context.exit(code)


def _drive_or_wait(opened: OpenRun, settings: Settings, part: Part) -> None:
    """Roll back here, unless another driver has the run: then that one does it."""
    said = False
    while not undoing.is_done(opened.ledger, opened.run.id, part):
        try:
            drive_here(opened, settings, undo_only=True)
            return
        except LeaseHeld as held:
            if not said:
                console.say(f"asked for: {held.message}, which does it")
            said = True
            time.sleep(POLL_SECONDS)


def _sum_up(at: Connection, opened: OpenRun, part: Part, output: str) -> int:
    conclusion.conclude(opened)
    run = runs.get(at.ledger, opened.run.id)
    facts = undoing.facts(at.ledger, run, part)
    if output == "json":
        console.print_json({**status.facts(at.ledger, run), "rollback": facts})
    else:
        tables.rolled_back(run.id, run.state_words, facts)
        tables.next_line(status.next_command(run, at.totals(run)))
    if facts["refused"]:
        console.say(f"mongosplit: {facts['refused'][0]['sentence']}", style="red")
        console.say(f"  {facts['refused'][0]['hint'] or status.STATUS.format(run=run.id)}")
        return 1
    return 4 if facts["left_behind"] else 0
