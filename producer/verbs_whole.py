"""The verbs that go over a whole run: plan, verify, serve."""

from __future__ import annotations

import time

import click

from mongosplit.errors import LeaseHeld, Refused
from mongosplit.ledger import audit, runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import open_run
from mongosplit.settings import Settings
from producer import conclusion, console, tables
from producer.connection import Connection, connected
from producer.options import (
    dry_run_flag,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.steering import DRIVEN, drive_here, make_plan, say_what_is_wrong

SERVE_SECONDS = 1.0


@click.command("plan")
@name_argument("MIGRATION")
@yes_flag
@dry_run_flag
@output_flag
@settings_flags
@click.pass_context
def plan(
    context: click.Context,
    name: str | None,
    settings: Settings,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Divide the source into chunks and enter a run in the ledger; the data is not touched."""
    with connected(settings, context.obj) as at:
        made = make_plan(at, name or settings.migration, yes=yes, dry_run=dry_run)
    facts = {"run": made.run.id if made.run else None, "chunks": made.chunks, "docs": made.docs}
    if output == "json":
        console.print_json(facts)
    elif made.run is None:
        console.data.print(
            f"would plan {made.docs:,} documents in {made.chunks:,} chunks; nothing was written"
        )
    else:
        console.data.print(f"{made.run.id}: {made.docs:,} documents in {made.chunks:,} chunks")
        console.data.print(f"next         [bold]mongosplit start {made.run.migration}[/bold]")


@click.command("verify")
@name_argument("MIGRATION|RUN")
@output_flag
@settings_flags
@click.pass_context
def verify(context: click.Context, name: str | None, settings: Settings, output: str) -> None:
    """Compare every target byte of the run with what the source derives to."""
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        if opened.run.state in (RunState.PLANNING, RunState.PLANNED):
            raise Refused(
                f"{opened.run.id} is {opened.run.state_words}: nothing is migrated yet",
                hint=f"mongosplit start {opened.run.migration}",
            )
        at.tell("verify", run=opened.run.id)
        with console.counting("verify", "chunks") as move:
            verdict = conclusion.reverify(opened, at.settings, move)
        found = conclusion.found(opened)
    facts = {
        "run": opened.run.id,
        "checked": verdict.checked,
        "mismatches": found,
        "mismatches_total": verdict.mismatches,
        "unchecked_chunks": verdict.unchecked,
        "independent_chunks": verdict.independent,
    }
    if output == "json":
        console.print_json(facts)
    else:
        tables.mismatches(facts)
    say_what_is_wrong(verdict, hint=f"mongosplit status {opened.run.id}")
    context.exit(verdict.exit_code)


@click.command("serve")
@settings_flags
@click.pass_context
def serve(context: click.Context, settings: Settings) -> None:
    """Drive every run that was left to it (--detach), for as long as it lives."""
    with connected(settings, context.obj) as at:
        at.tell("serve")
        audit.chain(at.ledger)
        console.say("serving: drives every running run; stop with Ctrl-C")
        said: dict[str, str] = {}
        while True:
            for state in DRIVEN:
                for run in runs.in_state(at.ledger, state):
                    sentence = _serve_one(at, run)
                    if said.get(run.id) != sentence:
                        said[run.id] = sentence
                        console.say(f"{run.id}: {sentence}")
            time.sleep(SERVE_SECONDS)


def _serve_one(at: Connection, run: Run) -> str:
    opened = open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
    try:
        drive_here(opened, at.settings)
    except LeaseHeld as held:
        return held.message
    verdict = conclusion.conclude(opened)
    state, failed = verdict.run.state_words, verdict.failed
    return f"{state}, {failed} chunks failed, {verdict.mismatches} mismatches"
