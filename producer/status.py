"""What `status` and the summary say: the facts of a run, read off the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from mongosplit import definition
from mongosplit.keyspace import Bracket
from mongosplit.ledger import chunks, kept, quarantine, tally, waves
from mongosplit.ledger.book import Ledger, now
from mongosplit.ledger.chunks import IS_APPLIED
from mongosplit.model import APPLIED, ChunkState, Run, RunState
from mongosplit.range_text import range_text
from mongosplit.selection import Selection, brackets
from producer import following_facts, listening_facts, pacing_facts

RATE_SECONDS = 10.0

STATUS = "mongosplit status {run}"
NEXT: dict[RunState, str] = {
    RunState.PLANNING: "wait for the plan, or type it again: mongosplit plan {migration}",
    RunState.PLANNED: "mongosplit start {migration}",
    RunState.RUNNING: "mongosplit start {migration}   (goes on where the ledger stands)",
    RunState.PAUSED: "mongosplit resume {run}",
    RunState.CANCELLED: "mongosplit rollback {run}   (takes out what is applied)",
    RunState.ROLLING_BACK: "mongosplit rollback {run}   (goes on where the ledger stands)",
    RunState.ROLLED_BACK: "mongosplit plan {migration}",
    RunState.MIGRATED: "mongosplit verify {migration}",
    RunState.VERIFIED: "mongosplit coverage {migration}   (what stays only in the source)",
}
SPANS = 1000
"""How many spans of applied chunks are listed at most."""


def facts(ledger: Ledger, run: Run) -> dict[str, Any]:
    """One object with everything `status` shows; counts only."""
    totals = tally.totals(ledger, run.id)
    applied = [totals[state.value] for state in APPLIED if state.value in totals]
    rate = tally.recent_docs(ledger, run.id, timedelta(seconds=RATE_SECONDS)) / RATE_SECONDS
    left = totals.get(ChunkState.PENDING.value, {}).get("planned", 0)
    quarantined = sum(row["quarantined"] for row in applied)
    docs = sum(row["docs"] for row in applied)
    follower = following_facts.facts(ledger, run)
    return {
        "run": run.id,
        "migration": run.migration,
        "source": run.source,
        "state": run.state.value,
        "asked": {name: value for name, value in run.asked.items() if value},
        "resting": run.resting,
        "selected": str(Selection.from_document(run.selection)) if run.selection else None,
        "chunks": {
            state.value: totals.get(state.value, {}).get("chunks", 0) for state in ChunkState
        },
        "documents": {
            "source": sum(row["planned"] for row in totals.values()),
            "migrated": docs - quarantined,
            "quarantined": quarantined,
            "adopted": sum(row["adopted"] for row in applied),
        },
        "targets": _targets(ledger, run),
        "pace": pacing_facts.facts(run, now()),
        "rate": round(rate, 1),
        "eta_seconds": _eta(run, left, rate),
        "seconds": _seconds(run),
        "waves": waves.count(ledger, run.id),
        "applied": _applied(ledger, run),
        "listening": listening_facts.facts(ledger, run),
        "follower": follower,
        "kept": kept.count(ledger, run.id),
        "released": quarantine.released(ledger, run.id) if quarantined else 0,
        "rollback_seconds": rollback_seconds(run, docs),
        "drill": run.drill,
        "mismatches": sum(row["mismatches"] for row in totals.values()),
        "independently_verified": sum(row["independent"] for row in totals.values()),
        "quarantine": quarantine.by_reason(ledger, run.id),
        "failures": [
            {"chunk": chunk.n, **(chunk.error or {})} for chunk in tally.failures(ledger, run.id)
        ],
        "next": next_command(run, totals, followed=bool(follower and follower["alive"])),
    }


def _applied(ledger: Ledger, run: Run) -> list[dict[str, Any]]:
    """Which ranges are applied: spans of chunks, and of ids as `--range` takes them.

    The tail is left out: it is applied from the start, and holds nothing.
    """
    known = brackets(ledger, run.id)
    applied = {**IS_APPLIED, "tail": None}
    if chunks.numbers(ledger, run.id, {"divided_from": {"$exists": True}}, limit=1):
        # The halves of a divided chunk are neighbours by their ranges, not by their numbers.
        return [
            {"chunks": str(Selection.of(numbers)), "ids": range_text(joined, known)}
            for numbers, joined in tally.joined(ledger, run.id, applied, limit=SPANS)
        ]
    spans = tally.spans(ledger, run.id, applied)
    return [
        {"chunks": tally.span_words([span]), "ids": _ids(ledger, run, span, known)}
        for span in spans[:SPANS]
    ]


def _ids(ledger: Ledger, run: Run, span: tuple[int, int], known: tuple[Bracket, ...]) -> str:
    first, last = (chunks.get(ledger, run.id, n).ranges[0] for n in span)
    if first.bracket is not last.bracket:
        return f"{range_text(first, known)} to {range_text(last, known)}"
    return range_text(replace(first, hi=last.hi, upto=last.upto), known)


def rollback_seconds(run: Run, docs: int) -> int | None:
    """About how long rolling back what is applied would take, at the speed that was measured."""
    if run.drill is None or not docs:
        return None
    return max(1, round(docs / float(run.drill["rollback_rate"])))


def _targets(ledger: Ledger, run: Run) -> dict[str, int]:
    written = tally.parts_written(ledger, run.id)
    names = [target.collection for target in definition.load(run.migration).targets]
    return {name: written.get(name, 0) for name in names}


def _eta(run: Run, left: int, rate: float) -> int | None:
    if not left:
        return 0
    if run.state is not RunState.RUNNING or rate <= 0:
        return None
    return round(left / rate)


def _seconds(run: Run) -> float | None:
    """From the first wave to the end of verification, or until now."""
    if run.started is None:
        return None
    if run.state is not RunState.RUNNING and run.migrated is None:
        return None
    ended = run.verified or run.migrated or now()
    return round((ended - run.started).total_seconds(), 1)


def next_command(run: Run, totals: dict[str, dict[str, int]], *, followed: bool = True) -> str:
    """What to type next."""
    if run.state is RunState.VERIFIED and not followed:
        return f"mongosplit follow {run.migration}   (while the application writes)"
    if ChunkState.FAILED.value in totals and run.state is RunState.RUNNING:
        return f"mongosplit retry {run.migration}"
    if run.resting and ChunkState.PENDING.value not in totals:
        return f"mongosplit retry {run.id} --chunks …   (migrates what was rolled back)"
    if run.state is RunState.CANCELLED and not any(row["docs"] for row in totals.values()):
        return f"mongosplit plan {run.migration}"
    return NEXT.get(run.state, STATUS).format(migration=run.migration, run=run.id)
