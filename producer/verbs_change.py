"""The verbs that change something: plan, start, retry, verify, serve."""

from __future__ import annotations

import time

import click

from mongosplit.errors import LeaseHeld, Refused
from mongosplit.ledger import chunks, claims, runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import open_run
from mongosplit.settings import Settings
from producer import checks, conclusion, console, status, tables
from producer.connection import Connection, connected
from producer.options import (
    confirm,
    dry_run_flag,
    local_workers_flag,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.steering import (
    DRIVEN,
    begin,
    drive_here,
    let_go,
    make_plan,
    say_plan,
    say_what_is_wrong,
    sum_up,
    unfinished,
    workers,
)

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


@click.command("start")
@name_argument("MIGRATION|RUN")
@local_workers_flag
@click.option("--detach", is_flag=True, help="leave the driving to `mongosplit serve`")
@yes_flag
@dry_run_flag
@output_flag
@settings_flags
@click.pass_context
def start(  # noqa: PLR0917 - one argument for each flag
    context: click.Context,
    name: str | None,
    settings: Settings,
    local: int,
    detach: bool,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Drive the run to verified: plan if there is no plan, migrate, verify, sum up."""
    spec = name or settings.migration
    with connected(settings, context.obj) as at:
        run = unfinished(at, spec)
        if dry_run:
            say_plan(at, spec, run, output)
            return
        run = run or make_plan(at, spec, yes=yes, dry_run=False, which=checks.PLAN_AND_START).run
        assert run is not None  # a plan that is not a dry run has entered one
        opened = begin(at, run, yes=yes)
        if detach:
            let_go(at, run)
            console.say(f"{run.id} is left to `mongosplit serve`")
            if output == "json":
                console.print_json(status.facts(at.ledger, opened.run))
            return
        with workers(local, at.settings):
            drive_here(opened, at.settings)
        verdict = conclusion.conclude(opened)
        sum_up(at, verdict, output)
    context.exit(verdict.exit_code)


@click.command("retry")
@name_argument("MIGRATION|RUN")
@local_workers_flag
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def retry(
    context: click.Context, name: str | None, settings: Settings, local: int, yes: bool, output: str
) -> None:
    """Try again what failed or could not be verified, and drive the run on."""
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        failed = chunks.unwell(at.ledger, opened.run.id)
        if not failed:
            raise Refused(
                f"no chunk of {opened.run.id} has failed",
                hint=f"mongosplit status {opened.run.id}",
            )
        confirm(f"try {len(failed):,} failed chunks of {opened.run.id} again?", yes=yes)
        for work in ("migrate", "verify"):
            claims.forget_attempts(at.ledger, opened.run.id, failed, work=work)
        chunks.reopen_failed(at.ledger, opened.run.id)
        with workers(local, at.settings):
            drive_here(opened, at.settings)
        verdict = conclusion.conclude(opened)
        sum_up(at, verdict, output)
    context.exit(verdict.exit_code)


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
                f"{opened.run.id} is {opened.run.state}: nothing is migrated yet",
                hint=f"mongosplit start {opened.run.migration}",
            )
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
    """Drive every run that was started with --detach, for as long as it lives."""
    with connected(settings, context.obj) as at:
        at.ledger.prepare()
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
    return f"{verdict.run.state}, {verdict.failed} chunks failed, {verdict.mismatches} mismatches"
