"""The verb `history`: who did what, from the audit, and the proof that nobody has changed it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from rich.text import Text

from mongosplit.errors import Failed, UsageError
from mongosplit.ledger import audit
from mongosplit.ledger.audit import Checked
from mongosplit.ledger.book import Ledger
from mongosplit.settings import Settings
from producer import console, tables
from producer.connection import connected
from producer.options import name_argument, output_flag, report_error, settings_flags

NOTHING = "nothing has happened in this ledger yet"
CHAINED_AT_ONCE = 1000
FACT_LETTERS = 120
LONGEST_LINE = 1000


@click.command("history")
@name_argument("MIGRATION|RUN")
@click.option("--check", "prove", is_flag=True, help="prove that nobody has changed an entry")
@click.option(
    "--anchor", metavar="NUMBER:HASH", help="with --check: the end is still what was noted"
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="the newest so many"
)
@output_flag
@settings_flags
@click.pass_context
def history(
    context: click.Context,
    name: str | None,
    prove: bool,
    anchor: str | None,
    limit: int,
    settings: Settings,
    output: str,
) -> None:
    """Who did what and when; of all runs when none is named."""
    if anchor is not None and not prove:
        raise UsageError("--anchor is for --check", hint="mongosplit history --check --anchor …")
    if prove and name is not None:
        raise UsageError(
            "--check proves one chain over all runs and takes no name",
            hint="mongosplit history --check",
        )
    with connected(settings, context.obj) as at:
        run = None if name is None else at.run(name).id
        _chain(at.ledger)
        if prove:
            context.exit(_prove(at.ledger, anchor, output))
        rows = audit.entries(at.ledger, run=run, limit=limit, newest_first=True)[::-1]
    if output == "json":
        console.print_json({"run": run, "entries": rows})
    else:
        _print(rows, run)


def _chain(ledger: Ledger) -> None:
    """Chain what waits now; a run that goes on puts more into the outbox all the time."""
    for _ in range(audit.waiting(ledger) // CHAINED_AT_ONCE + 1):
        audit.chain(ledger, CHAINED_AT_ONCE)


def _prove(ledger: Ledger, anchor: str | None, output: str) -> int:
    """Check the chain, print the verdict; returns the exit code."""
    found = audit.check(ledger, anchor)
    if output == "json":
        console.print_json(_facts(found))
    elif found.broken:
        where = f"the last entry that holds: {found.anchor}" if found.count else "no entry holds"
        report_error(
            Failed(
                f"the audit is broken: {found.broken.sentence}",
                hint=f"{where}; compare with a backup of the ledger",
            )
        )
    elif not found.count:
        console.data.print(NOTHING)
    else:
        entries = f"{found.count:,} " + ("entry" if found.count == 1 else "entries")
        console.data.print(f"{entries}, the chain is unbroken; head {found.anchor}")
        again = f"mongosplit history --check --anchor {found.anchor}"
        console.say(f"noted elsewhere, the head proves this end later: {again}", style="dim")
    return 4 if found.broken else 0


def _facts(found: Checked) -> dict[str, Any]:
    broken = found.broken and {"number": found.broken.number, "sentence": found.broken.sentence}
    return {"count": found.count, "head": found.head, "anchor": found.anchor, "broken": broken}


def _print(rows: list[dict[str, Any]], run: str | None) -> None:
    if not rows:
        console.data.print(NOTHING if run is None else f"{run}: the audit has no entry of this run")
        return
    listed = tables.table("number#", "time (UTC)", "actor", "host", "action", "what")
    for row in rows:
        who = [_plain(row.get(name)) for name in ("actor", "host", "action")]
        listed.add_row(_plain(row["number"]), _plain(row.get("at")), *who, _what(row))
    if not console.data.is_terminal:
        # A line for each entry can be searched.
        unbounded = console.data.options.update(max_width=LONGEST_LINE)
        listed.width = console.data.measure(listed, options=unbounded).maximum
    console.data.print(listed)


def _what(row: dict[str, Any]) -> Text:
    """The run, the chunk and the facts in short."""
    said = str(_plain(row.get("run")))
    if "chunk" in row:
        said += f" chunk {_plain(str(row['chunk']))}"
    facts = row.get("facts")
    # A forged entry may hold anything, and must not hide the others.
    named = dict(facts) if isinstance(facts, dict) else {}
    change = _change(named)
    told = [f"{_plain(name)} {_plain(value)}" for name, value in named.items() if value]
    told = [change, *told] if change else told
    return Text(": ".join(part for part in (said.strip(), ", ".join(told)) if part))


def _change(facts: dict[str, Any]) -> str:
    """A change of state in short; what it says is taken out of the facts."""
    facts.pop("digest", None)
    before, after = facts.pop("from", None), facts.pop("to", None)
    if after is None or before == after:
        return ""
    return f"{_plain(before)} → {_plain(after)}" if before else f"→ {_plain(after)}"


def _plain(value: Any) -> Text:
    """A value in a line of a table: short, nothing that would steer the terminal."""
    if isinstance(value, datetime):
        text = f"{value:%Y-%m-%d %H:%M:%S}"
    elif isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "-"}[value]
    elif isinstance(value, float):
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, dict):
        text = " ".join(f"{name}={_plain(inner)}" for name, inner in value.items())
    elif isinstance(value, list):
        text = " ".join(str(_plain(inner)) for inner in value)
    else:
        text = str(value)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return Text(text if len(text) <= FACT_LETTERS else text[: FACT_LETTERS - 1] + "…")
