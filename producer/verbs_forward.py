"""The verbs that bring a run forward: start, resume, retry."""

from __future__ import annotations

import click

from mongosplit.errors import Refused
from mongosplit.ledger import runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import open_run
from mongosplit.settings import Settings
from producer import again, checks, console, planning, status
from producer.connection import Connection, connected, refuse_over
from producer.driving import drive_and_sum_up, drive_unless_driven
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
from producer.steering import begin, let_go, make_plan, said_by, say_plan, unfinished

_DETACH = click.option("--detach", is_flag=True, help="leave the driving to `mongosplit serve`")


@click.command("start")
@name_argument("MIGRATION|RUN")
@selection_flags(canary=True)
@local_workers_flag
@_DETACH
@yes_flag
@dry_run_flag
@output_flag
@settings_flags
@click.pass_context
def start(  # noqa: PLR0917 - one argument for each flag
    context: click.Context,
    name: str | None,
    settings: Settings,
    asked: Asked,
    local: int,
    detach: bool,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Drive the run to verified: plan if there is no plan, migrate, verify, sum up.

    With a part selected only that is applied, and the run rests; `resume` does the rest.
    """
    spec = name or settings.migration
    with connected(settings, context.obj) as at:
        run = unfinished(at, spec, asked)
        if dry_run:
            say_plan(at, spec, run, output)
            return
        run = run or make_plan(at, spec, yes=yes, dry_run=False, which=checks.PLAN_AND_START).run
        assert run is not None  # a plan that is not a dry run has entered one
        opened = begin(at, run, asked, yes=yes)
        if detach:
            _leave(at, run, output)
            return
        code = drive_and_sum_up(at, opened, local, output)
    context.exit(code)


def _leave(at: Connection, run: Run, output: str) -> None:
    let_go(at, run)
    console.say(f"{run.id} is left to `mongosplit serve`")
    if output == "json":
        console.print_json(status.facts(at.ledger, runs.get(at.ledger, run.id)))


@click.command("resume")
@name_argument("MIGRATION|RUN")
@local_workers_flag
@_DETACH
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def resume(
    context: click.Context,
    name: str | None,
    settings: Settings,
    local: int,
    detach: bool,
    yes: bool,
    output: str,
) -> None:
    """Go on with a paused run; one of which a part is applied does the rest."""
    with connected(settings, context.obj) as at:
        run = at.run(name or settings.migration)
        _refuse_to_resume(run)
        opened = open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
        rest = "the rest of " if run.resting else ""
        confirm(f"go on with {rest}{run.id} ({said_by(run)})?", yes=yes)
        at.tell("resume", run=run.id)
        opened = planning.resume(opened, at.settings)
        if detach:
            _leave(at, run, output)
            return
        code = drive_unless_driven(at, opened, local, output, done="resumed")
    context.exit(code)


def _refuse_to_resume(run: Run) -> None:
    if run.state in (RunState.PAUSED, RunState.PAUSING):
        return
    refuse_over(run)
    hint = f"mongosplit start {run.id}" if run.state is RunState.PLANNED else ""
    raise Refused(
        f"{run.id} is {run.state_words}, not paused", hint=hint or f"mongosplit status {run.id}"
    )


@click.command("retry")
@name_argument("MIGRATION|RUN")
@selection_flags()
@click.option("--quarantined", is_flag=True, help="documents in quarantine, after they were mended")
@local_workers_flag
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def retry(  # noqa: PLR0917 - one argument for each flag
    context: click.Context,
    name: str | None,
    settings: Settings,
    asked: Asked,
    quarantined: bool,
    local: int,
    yes: bool,
    output: str,
) -> None:
    """Try again what failed or could not be verified, and drive the run on.

    A selected part is also migrated again where it was rolled back, and its documents in quarantine
    are tried again.
    """
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        wanted = again.look(at, opened.run, asked, quarantined=quarantined)
        confirm(f"try again {wanted.sentence} of {opened.run.id}?", yes=yes)
        opened = again.ask(at, opened, wanted)
        code = drive_unless_driven(at, opened, local, output, done="asked for")
    context.exit(code)
