"""Tables and summaries on stdout: what a run, a check, a coverage or a quarantine looks like."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mongosplit.model import ChunkState
from producer.checks import Finding
from producer.console import counted, data, duration, say

_COLOURS = {"ok": "green", "warning": "yellow", "refusal": "red"}


def warn(finding: Finding) -> None:
    """A warning and its mend, as talk."""
    say(f"warning: {finding.sentence}", style="yellow")
    if finding.hint:
        say(f"         {finding.hint}", style="dim")


def findings(found: list[Finding]) -> None:
    """The result of `check`, a line each."""
    for finding in found:
        verdict = Text(f"{finding.verdict:8}", style=_COLOURS[finding.verdict])
        data.print(verdict, Text(f"{finding.check:8} {finding.sentence}"))
        if finding.hint:
            data.print(Text(f"{'':17} {finding.hint}", style="dim"))


def table(*headings: str) -> Table:
    """A table in the house's style; headings that end in `#` are numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        made.add_column(heading.rstrip("#"), justify="right" if heading.endswith("#") else "left")
    return made


def summary(facts: dict[str, Any]) -> None:
    """A run at a glance: what moved where, what was quarantined and why, how fast, what next."""
    documents, chunks = facts["documents"], facts["chunks"]
    data.print(Text(f"{facts['run']}: {facts['state'].replace('_', ' ')}", style="bold"))
    data.print(_sentence(facts))
    rows = table("target", "documents#")
    for name, count in facts["targets"].items():
        rows.add_row(name, f"{count:,}")
    data.print(rows)
    by_state = ", ".join(f"{count:,} {state}" for state, count in chunks.items() if count)
    data.print(f"chunks       {by_state}")
    data.print(f"verified     {_verification(facts)}")
    if documents["adopted"]:
        data.print(f"adopted      {documents['adopted']:,} subscribers the application had already")
    _quarantine(facts)
    for failure in facts["failures"]:
        data.print(
            Text(f"failed       chunk {failure['chunk']}: {failure['sentence']}", style="red")
        )
    data.print(f"\nnext         [bold]{facts['next']}[/bold]")


def _sentence(facts: dict[str, Any]) -> str:
    documents = facts["documents"]
    said = f"{documents['migrated']:,} of {documents['source']:,} documents of {facts['source']}"
    said += " are split"
    if facts["seconds"]:
        rate = documents["migrated"] / facts["seconds"]
        unit = facts["source"].partition(".")[2]
        said += f", in {duration(facts['seconds'])} ({rate:,.0f} {unit}/s with verification)"
    return said + "."


def _verification(facts: dict[str, Any]) -> str:
    if facts["mismatches"]:
        wrong = f"[red]{counted(facts['mismatches'], 'difference')}[/red]"
        return f"{wrong}: mongosplit verify {facts['migration']}"
    verified = facts["chunks"][ChunkState.VERIFIED.value]
    whole = sum(facts["chunks"].values())
    if verified == whole:
        share = f"{facts['independently_verified']:,} of them through the Python reference"
        return f"every byte of all {whole:,} chunks, no difference ({share})"
    return f"{verified:,} of {whole:,} chunks so far"


def _quarantine(facts: dict[str, Any]) -> None:
    count = facts["documents"]["quarantined"]
    if not count:
        data.print("quarantined  none")
        return
    data.print(f"quarantined  {count:,} documents that cannot be split; the source still has them")
    rows = table("reason", "field", "documents#")
    for row in facts["quarantine"]:
        rows.add_row(row["reason"], row["path"] or "-", f"{row['count']:,}")
    data.print(rows)
    data.print(f"             mongosplit quarantine list {facts['migration']}")


def quarantine_rows(run: str, rows: list[dict[str, Any]], whole: int) -> None:
    """Documents in quarantine by id, with field path and sentence."""
    if not rows:
        data.print(f"{run}: nothing is in quarantine")
        return
    listed = table("_id", "chunk#", "reason", "sentence")
    for row in rows:
        listed.add_row(_id(row["source_id"]), str(row["chunk"]), row["reason"], row["message"])
    data.print(listed)
    data.print(f"{len(rows):,} of {whole:,} documents in quarantine of {run}")


def mismatches(facts: dict[str, Any], limit: int = 20) -> None:
    """What a verification found, without values."""
    found = facts["mismatches"]
    if not facts["mismatches_total"]:
        data.print(f"{facts['run']}: {facts['checked']:,} documents compared, no difference")
        return
    listed = table("_id", "target", "field", "kind")
    for row in found[:limit]:
        listed.add_row(_id(row["id"]), row["target"], row["field"] or "-", row["kind"])
    data.print(listed)
    whole = facts["mismatches_total"]
    wrong = f"[red]{counted(whole, 'difference')}[/red]"
    data.print(f"{wrong} in {facts['checked']:,} documents of {facts['run']}")
    if whole > limit:
        data.print("all of them: mongosplit verify -o json")


def _id(value: Any) -> Text:
    return Text(str(value)[:60])


def coverage(facts: dict[str, Any], source: str) -> None:
    """Every field path, where it goes, and in how many documents it goes nowhere."""
    if facts["complete"]:
        data.print(f"{source}: all {facts['documents']:,} documents read")
    else:
        about = f"a random sample of {facts['documents']:,} of about {facts['of']:,} documents"
        data.print(f"{source}: {about}; a path that is rare may be missing here")
    rows = table("path", "documents#", "residual#", "mapped to")
    for path in facts["paths"]:
        to = ", ".join(path["mapped_to"]) or "-"
        style = "yellow" if path["residual"] else ""
        residual = f"{path['residual']:,}" if path["residual"] else "-"
        rows.add_row(Text(path["path"]), f"{path['documents']:,}", residual, to, style=style)
    data.print(rows)
    data.print("residual: documents in which no target takes the path; the source keeps it")
