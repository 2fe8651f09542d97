"""The verbs that only read: check, coverage, status."""

from __future__ import annotations

from dataclasses import asdict

import click

from mongosplit import coverage as survey
from mongosplit.errors import UsageError
from mongosplit.mongo import exact, explained
from mongosplit.settings import Settings
from producer import checks, console, planning, status, tables
from producer.connection import connected
from producer.ending import until_told
from producer.options import name_argument, output_flag, settings_flags

WATCH_SECONDS = 1.0
SURVEYED_WHOLE = 200_000
"""Up to so many documents `coverage` reads them all; above, a sample of so many."""


@click.command("check")
@name_argument("MIGRATION")
@output_flag
@settings_flags
@click.pass_context
def check(context: click.Context, name: str | None, settings: Settings, output: str) -> None:
    """Look at servers, source, targets and workers; write nothing."""
    with connected(settings, context.obj) as at:
        found = checks.run_checks(planning.subject(at, name or settings.migration), checks.ALL)
    if output == "json":
        console.print_json([asdict(finding) for finding in found])
    else:
        tables.findings(found)
    context.exit(3 if any(finding.verdict == "refusal" for finding in found) else 0)


@click.command("coverage")
@name_argument("MIGRATION")
@click.option("--sample", type=click.IntRange(1), help="read a random sample of so many documents")
@click.option("--all", "whole", is_flag=True, help="read every document, however many there are")
@output_flag
@settings_flags
@click.pass_context
def coverage(
    context: click.Context,
    name: str | None,
    sample: int | None,
    whole: bool,
    settings: Settings,
    output: str,
) -> None:
    """For every field path that occurs in the source: mapped to what, or residual."""
    with connected(settings, context.obj) as at, explained(at.settings.mongo_url):
        migration = at.migration(name or settings.migration)
        source = exact(at.client[at.settings.data_database])[migration.source]
        count = source.estimated_document_count()
        if not count:
            raise UsageError(
                f"{source.full_name} is missing or empty: there is nothing to look at",
                hint="check MONGOSPLIT_DATABASE (--database)",
            )
        if sample is None and not whole and count > SURVEYED_WHOLE:
            sample = SURVEYED_WHOLE
        with console.counting("coverage", "documents", sample or count) as move:
            found = survey.survey(source, migration, sample=sample, on_progress=move)
    if output == "json":
        console.print_json(found.to_json())
    else:
        tables.coverage(found.to_json(), f"{at.settings.data_database}.{migration.source}")


@click.command("status")
@name_argument("MIGRATION|RUN")
@click.option("--watch", is_flag=True, help="show it again every second, until Ctrl-C")
@output_flag
@settings_flags
@click.pass_context
def status_(
    context: click.Context, name: str | None, watch: bool, settings: Settings, output: str
) -> None:
    """Where a run stands, and what to type next."""
    with connected(settings, context.obj) as at:

        def show() -> None:
            facts = status.facts(at.ledger, at.run(name or settings.migration))
            if output == "json":
                console.print_json(facts)
                return
            if watch:
                console.data.clear()
            tables.summary(facts)

        if not watch:
            show()
            return
        # Ctrl-C is how watching ends, and stops nothing.
        with until_told("") as told:
            while not told.is_set():
                show()
                told.wait(WATCH_SECONDS)
