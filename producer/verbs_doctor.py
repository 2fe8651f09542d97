"""The verb that asks whether the installation is well: doctor."""

from __future__ import annotations

from dataclasses import asdict

import click

from mongosplit import definition, mongo
from mongosplit.ledger.book import Ledger
from mongosplit.settings import Settings
from producer import console, doctor, tables
from producer.findings import Finding, Subject
from producer.options import name_argument, output_flag, settings_flags
from worker import app as celery_app


@click.command("doctor")
@name_argument("MIGRATION")
@output_flag
@settings_flags
@click.pass_context
def doctor_(context: click.Context, name: str | None, settings: Settings, output: str) -> None:
    """Ask MongoDB, Redis, Celery and workers whether all is well; write nothing."""
    with context.obj(settings) as ready:
        found = _examined(ready, name or settings.migration)
    if output == "json":
        console.print_json([asdict(finding) for finding in found])
    else:
        tables.findings(found)
    context.exit(3 if any(finding.verdict == "refusal" for finding in found) else 0)


def _examined(settings: Settings, spec: str) -> list[Finding]:
    # Not `connected`: a MongoDB that is away is a finding here, and Redis is asked all the same.
    settings.data_database  # noqa: B018 - asked now, so that what is missing is said first
    migration = definition.load(spec)
    celery_app.connect(settings)
    with mongo.explained(settings.mongo_url):
        client = mongo.connect(settings.mongo_url, seconds=settings.server_seconds)
    try:
        ledger = Ledger.at(client, settings.ledger_database)
        return doctor.examine(Subject(client, ledger, settings, migration, spec))
    finally:
        client.close()
