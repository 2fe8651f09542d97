"""The verbs that go over a whole run: plan, verify."""

from __future__ import annotations

import click

from mongosplit.errors import Refused
from mongosplit.model import RunState
from mongosplit.settings import Settings
from producer import conclusion, console, repairing, tables
from producer.connection import connected
from producer.driving import say_what_is_wrong
from producer.following import following
from producer.options import (
    dry_run_flag,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)
from producer.steering import make_plan


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
@click.option("--repair", is_flag=True, help="derive again what differs, and compare once more")
@output_flag
@settings_flags
@click.pass_context
def verify(
    context: click.Context, name: str | None, settings: Settings, repair: bool, output: str
) -> None:
    """Compare every target byte of the run with what the source derives to.

    With --repair users in whom something differs are derived again; what stood there before is
    saved to `kept`.
    """
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        if opened.run.state in (RunState.PLANNING, RunState.PLANNED):
            raise Refused(
                f"{opened.run.id} is {opened.run.state_words}: nothing is migrated yet",
                hint=f"mongosplit start {opened.run.migration}",
            )
        at.tell("verify", run=opened.run.id, repair=repair)
        with following(opened, settings):
            with console.counting("verify", "chunks") as move:
                verdict = conclusion.reverify(opened, at.settings, move)
            repaired = 0
            if repair and verdict.mismatches:
                repaired = repairing.repair_run(opened, settings)
                with console.counting("verify", "chunks") as move:
                    verdict = conclusion.reverify(opened, at.settings, move)
        found = conclusion.found(opened)
    facts = {
        "run": opened.run.id,
        "checked": verdict.checked,
        "mismatches": found,
        "mismatches_total": verdict.mismatches,
        "repaired": repaired,
        "unchecked_chunks": verdict.unchecked,
        "independent_chunks": verdict.independent,
    }
    if output == "json":
        console.print_json(facts)
    else:
        tables.mismatches(facts)
    say_what_is_wrong(verdict, hint=f"mongosplit status {opened.run.id}")
    context.exit(verdict.exit_code)
