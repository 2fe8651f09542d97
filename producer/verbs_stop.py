"""The verbs that stop a run: pause and cancel. What is begun ends by itself, nothing is killed."""

from __future__ import annotations

import click

from mongosplit.errors import Refused
from mongosplit.ledger import runs, tally
from mongosplit.ledger.chunks import IS_APPLIED
from mongosplit.model import Run, RunState
from mongosplit.settings import Settings
from producer import console, settling, status, tables
from producer.connection import Connection, connected
from producer.console import counted
from producer.options import (
    confirm,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.steering import said_by

_WHY = click.option("--why", default="", metavar="TEXT", help="a word for status and audit")


@click.command("pause")
@name_argument("MIGRATION|RUN")
@_WHY
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def pause(
    context: click.Context, name: str | None, settings: Settings, why: str, yes: bool, output: str
) -> None:
    """Start no chunk any more, and wait until those that are begun have ended."""
    with connected(settings, context.obj) as at:
        run = at.run(name or settings.migration)
        if run.state is RunState.PAUSED:
            console.say(f"{run.id} is paused already: {_at_rest(run)}")
        else:
            _refuse_to_pause(run)
            confirm(f"pause {run.id}?", yes=yes)
            run = _ask(at, run, RunState.PAUSING, "pause", why)
        _sum_up(at, run, output)


def _at_rest(run: Run) -> str:
    return str(run.asked.get("why")) if run.resting else said_by(run)


def _refuse_to_pause(run: Run) -> None:
    if run.state in (RunState.RUNNING, RunState.PAUSING):
        return
    if run.state is RunState.ROLLING_BACK:
        raise Refused(
            f"{run.id} is rolling back, which is not paused",
            hint="stop the workers of queue rollback to hold it; start them again to go on",
        )
    raise _not_running(run)


def _not_running(run: Run) -> Refused:
    word = "is over: it is" if run.finished else "is"
    return Refused(
        f"{run.id} {word} {run.state_words}, so there is nothing to stop",
        hint=f"mongosplit status {run.id}",
    )


@click.command("cancel")
@name_argument("MIGRATION|RUN")
@_WHY
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def cancel(
    context: click.Context, name: str | None, settings: Settings, why: str, yes: bool, output: str
) -> None:
    """End a run for good; what is applied stays until it is rolled back."""
    with connected(settings, context.obj) as at:
        run = at.run(name or settings.migration)
        to = _cancelling(run)
        applied = tally.totals(at.ledger, run.id)
        docs = sum(row["docs"] for row in applied.values())
        confirm(f"cancel {run.id}? {counted(docs, 'document')} stay split", yes=yes)
        _sum_up(at, _ask(at, run, to, "cancel", why), output)


def _cancelling(run: Run) -> RunState:
    """The state that cancelling begins with."""
    if run.state in (RunState.PLANNED, RunState.PLANNING):
        return RunState.CANCELLED
    if run.state in (RunState.MIGRATED, RunState.VERIFIED):
        raise Refused(
            f"{run.id} is {run.state_words}: there is nothing left to cancel",
            hint=f"to undo it: mongosplit rollback {run.id}",
        )
    if run.state in (
        RunState.RUNNING,
        RunState.PAUSING,
        RunState.PAUSED,
        RunState.CANCELLING,
    ):
        return RunState.CANCELLING
    raise _not_running(run)


def _ask(at: Connection, run: Run, to: RunState, verb: str, why: str) -> Run:
    at.tell(verb, run=run.id, why=why)
    if run.state is not to:
        run = runs.move(at.ledger, run.id, to, actor=at.settings.actor, why=why)
    said = -1

    def wait(busy: int) -> None:
        nonlocal said
        if busy and busy != said:
            said = busy
            console.say(f"{run.id}: {counted(busy, 'chunk')} still being worked on")

    return settling.wait_until_done(at.ledger, run, wait)


def _sum_up(at: Connection, run: Run, output: str) -> None:
    if output == "json":
        console.print_json(status.facts(at.ledger, run))
        return
    applied = tally.spans(at.ledger, run.id, IS_APPLIED | {"tail": None})
    count = sum(last - first + 1 for first, last in applied)
    said = "nothing of it is applied"
    if count:
        said = f"{counted(count, 'chunk')} applied ({tally.span_words(applied)})"
    console.data.print(f"{run.id}: [bold]{run.state_words}[/bold], {said}")
    tables.next_line(status.next_command(run, tally.totals(at.ledger, run.id)))
