"""The verb that tries a run out on a slice of it: drill."""

from __future__ import annotations

import click

from mongosplit import selection
from mongosplit.errors import Refused
from mongosplit.ledger import runs
from mongosplit.model import Run, RunState
from mongosplit.settings import Settings
from producer import checks, console, drilling, status, tables
from producer.connection import connected
from producer.driving import workers
from producer.options import (
    local_workers_flag,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.selecting import Asked, parse_share
from producer.steering import begin, make_plan, unfinished


@click.command("drill")
@name_argument("MIGRATION|RUN")
@click.option(
    "--canary",
    "share",
    default="1%",
    show_default=True,
    metavar="PERCENT",
    help="how much of the run to try it on, evenly spread",
)
@local_workers_flag
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def drill(
    context: click.Context,
    name: str | None,
    settings: Settings,
    share: str,
    local: int,
    yes: bool,
    output: str,
) -> None:
    """Migrate a slice, verify it, roll it back, compare hashes with before, migrate it again.

    The slice stays applied, and `resume` does the rest; what was measured is in `status`.
    """
    spec, asked = name or settings.migration, Asked(canary=parse_share(share))
    with connected(settings, context.obj) as at:
        run = unfinished(at, spec, asked)
        run = run or make_plan(at, spec, yes=yes, dry_run=False, which=checks.PLAN_AND_START).run
        assert run is not None  # a plan that is not a dry run has entered one
        _refuse_begun(run)
        opened = begin(at, run, asked, yes=yes)
        part = selection.canary(at.ledger, run.id, parse_share(share))
        at.tell("drill", run=run.id, part=asked.description)
        with workers(local, at.settings, "migrate", "verify", "rollback"):
            drilled = drilling.drill(opened, at.settings, part, console.say)
        facts = status.facts(at.ledger, runs.get(at.ledger, run.id))
    if output == "json":
        console.print_json(facts)
    else:
        tables.drilled(run.id, drilled.docs, drilled.forward_rate, drilled.rollback_rate)
        tables.next_line(facts["next"])


def _refuse_begun(run: Run) -> None:
    if run.state is not RunState.PLANNED:
        raise Refused(
            f"{run.id} is {run.state_words}: a drill is for a run that has not begun",
            hint=f"mongosplit status {run.id}",
        )
