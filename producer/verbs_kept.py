"""The verbs on documents that are kept, since the source cannot give them back: list, export."""

from __future__ import annotations

import click

from mongosplit.ledger import kept as saved
from mongosplit.settings import Settings
from producer import console, json_lines, tables_quarantine
from producer.connection import connected
from producer.options import name_argument, output_flag, settings_flags
from producer.pointing import words_argument


@click.group("kept")
def kept() -> None:
    """Documents saved because a rollback took them out changed, or because they were adopted."""


@kept.command("list")
@name_argument("MIGRATION|RUN")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="at most")
@output_flag
@settings_flags
@click.pass_context
def list_(
    context: click.Context, name: str | None, limit: int, settings: Settings, output: str
) -> None:
    """Their ids, where they stood and why they are kept; never a value.

    Reason changed: a rollback took it out of the target. Reason adopted: a document of the
    application as it was before it became part of a user.
    """
    with connected(settings, context.obj) as at:
        run = at.run(name or settings.migration)
        rows = saved.listed(at.ledger, run.id, reason=None, limit=limit)
        reasons = saved.by_reason(at.ledger, run.id)
    if output == "json":
        console.print_json({"run": run.id, "reasons": reasons, "documents": rows})
    else:
        tables_quarantine.kept(run.id, rows, sum(row["count"] for row in reasons))


@kept.command("export")
@words_argument("[MIGRATION|RUN] [FILE]")
@settings_flags
@click.pass_context
def export(context: click.Context, words: tuple[str, ...], settings: Settings) -> None:
    """JSON Lines with the whole documents, in extended JSON, on stdout or into a new FILE."""
    with connected(settings, context.obj) as at:
        name, file = json_lines.run_and_file(at, words)
        run = at.run(name)
        count = json_lines.write(file, saved.exported(at.ledger, run.id))
    tables_quarantine.exported(count, run.id, file)
