"""Tables and summaries on stdout: what a run, a check or a coverage looks like."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mongosplit.model import ChunkState
from producer import following_facts, listening_facts, pacing_facts
from producer.console import counted, data, duration, say
from producer.findings import Finding

SPANS_SHOWN = 5
KEPT_SHOWN = 10
_PLAIN = ("planning", "planned", "running", "migrated", "verified")
_OVER = ("rolled_back", "cancelled", "finalized")
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
    if said := _asked(facts):
        data.print(Text(said))
    data.print(_sentence(facts))
    rows = table("target", "documents#")
    for name, count in facts["targets"].items():
        rows.add_row(name, f"{count:,}")
    data.print(rows)
    by_state = ", ".join(f"{count:,} {state}" for state, count in chunks.items() if count)
    data.print(f"chunks       {by_state}")
    _applied(facts)
    data.print(f"verified     {_verification(facts)}")
    if facts["state"] in ("running", "pausing", "paused"):
        data.print(Text(f"pace         {pacing_facts.sentence(facts['pace'])}"))
    for sentence in listening_facts.sentences(facts["listening"]):
        data.print(Text(f"workers      {sentence}", style="yellow"))
    _follower(facts)
    if documents["adopted"]:
        data.print(f"adopted      {documents['adopted']:,} subscribers the application had already")
    _quarantine(facts)
    for failure in facts["failures"]:
        data.print(
            Text(f"failed       chunk {failure['chunk']}: {failure['sentence']}", style="red")
        )
    if facts["kept"]:
        kept = counted(facts["kept"], "changed document")
        data.print(f"kept         {kept} that a rollback or a repair took out")
    if facts["rollback_seconds"] is not None:
        about = duration(facts["rollback_seconds"])
        data.print(f"rollback     rolling back now would take about {about}, as the drill measured")
    next_line(facts["next"])


def next_line(command: str) -> None:
    """What to type next."""
    data.print(f"\nnext         [bold]{command}[/bold]")


def _asked(facts: dict[str, Any]) -> str:
    """Who brought a run where it is and why, where that is not plain."""
    if facts["state"] in _PLAIN:
        return ""
    asked = facts["asked"]
    if facts["resting"]:
        return str(asked.get("why", ""))
    why = f": {asked['why']}" if asked.get("why") else ""
    return f"asked by {asked['actor']}{why}" if asked.get("actor") else ""


def _applied(facts: dict[str, Any]) -> None:
    """Which ranges are applied, where that is a part of the run."""
    spans = facts["applied"]
    whole = sum(facts["chunks"].values())
    applied = facts["chunks"][ChunkState.MIGRATED] + facts["chunks"][ChunkState.VERIFIED]
    if not spans or applied == whole:
        return
    for position, span in enumerate(spans[:SPANS_SHOWN]):
        label = "applied" if not position else ""
        data.print(Text(f"{label:12} chunks {span['chunks']}: ids {span['ids']}"))
    if len(spans) > SPANS_SHOWN:
        data.print(f"{'':12} and {len(spans) - SPANS_SHOWN:,} more spans (-o json)")


def _follower(facts: dict[str, Any]) -> None:
    """How the application's writes are followed, and who else writes the targets."""
    found = facts["follower"]
    if found is None or facts["state"] in _OVER:
        return
    unwell = found["obstacle"] or not found["alive"]
    said = following_facts.sentence(found, facts["run"])
    data.print(Text(f"live writes  {said}", style="yellow" if unwell else ""))
    for sentence in following_facts.foreign_sentences(found):
        data.print(Text(f"foreign      {sentence}", style="yellow"))


def drilled(run: str, docs: int, forward: float, back: float) -> None:
    """What a drill measured."""
    data.print(f"[bold]{run}: there, back and there again[/bold], {docs:,} documents")
    data.print("every target was as before when they were rolled back")
    data.print(f"forward      {forward:,.0f} documents/s, by all workers together")
    data.print(f"rollback     {back:,.0f} documents/s")


def rolled_back(run: str, state: str, facts: dict[str, Any]) -> None:
    """What a rollback came to."""
    documents, chunks = counted(facts["documents"], "document"), counted(facts["chunks"], "chunk")
    data.print(f"{documents} in {chunks} of {run} rolled back; the run is [bold]{state}[/bold]")
    if facts["why"]:
        data.print(Text(facts["why"]))
    if facts["left_behind"]:
        left = counted(facts["left_behind"], "chunk")
        data.print(f"[red]{left} left something in the targets[/red]: mongosplit verify {run}")
    if not facts["kept"]:
        return
    data.print(f"kept: {counted(facts['kept'], 'document')} that had been changed since")
    listed = table("_id", "target", "chunk#")
    for row in facts["kept_documents"][:KEPT_SHOWN]:
        listed.add_row(_id(row["document_id"]), row["collection"], str(row["chunk"]))
    data.print(listed)
    if facts["kept"] > KEPT_SHOWN:
        data.print(f"all of them: mongosplit kept list {run}")


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


def mismatches(facts: dict[str, Any], limit: int = 20) -> None:
    """What a verification found, without values."""
    found = facts["mismatches"]
    if facts["repaired"]:
        data.print(f"{facts['run']}: {counted(facts['repaired'], 'document')} derived again")
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
