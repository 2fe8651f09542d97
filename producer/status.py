"""What `status` and the summary say: the facts of a run, read off the ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mongosplit import definition
from mongosplit.ledger import chunks, quarantine, waves
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import APPLIED, ChunkState, Run, RunState

RATE_SECONDS = 10.0

NEXT: dict[RunState, str] = {
    RunState.PLANNING: "wait for the plan, or type it again: mongosplit plan {migration}",
    RunState.PLANNED: "mongosplit start {migration}",
    RunState.RUNNING: "mongosplit start {migration}   (goes on where the ledger stands)",
    RunState.MIGRATED: "mongosplit verify {migration}",
    RunState.VERIFIED: "mongosplit coverage {migration}   (what stays only in the source)",
}


def facts(ledger: Ledger, run: Run) -> dict[str, Any]:
    """One object with everything `status` shows; counts only."""
    totals = chunks.totals(ledger, run.id)
    applied = [totals[state.value] for state in APPLIED if state.value in totals]
    rate = chunks.recent_docs(ledger, run.id, timedelta(seconds=RATE_SECONDS)) / RATE_SECONDS
    left = totals.get(ChunkState.PENDING.value, {}).get("planned", 0)
    quarantined = sum(row["quarantined"] for row in applied)
    docs = sum(row["docs"] for row in applied)
    return {
        "run": run.id,
        "migration": run.migration,
        "source": run.source,
        "state": run.state.value,
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
        "pace": {"rate_limit": None, "reason": "no limit is set"},
        "rate": round(rate, 1),
        "eta_seconds": _eta(run, left, rate),
        "seconds": _seconds(run),
        "waves": waves.count(ledger, run.id),
        "mismatches": sum(row["mismatches"] for row in totals.values()),
        "independently_verified": sum(row["independent"] for row in totals.values()),
        "quarantine": quarantine.by_reason(ledger, run.id),
        "failures": [
            {"chunk": chunk.n, **(chunk.error or {})} for chunk in chunks.failures(ledger, run.id)
        ],
        "next": next_command(run, totals),
    }


def _targets(ledger: Ledger, run: Run) -> dict[str, int]:
    written = chunks.parts_written(ledger, run.id)
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
    ended = run.verified or run.migrated or now()
    return round((ended - run.started).total_seconds(), 1)


def next_command(run: Run, totals: dict[str, dict[str, int]]) -> str:
    """What to type next."""
    if ChunkState.FAILED.value in totals and run.state is RunState.RUNNING:
        return f"mongosplit retry {run.migration}"
    return NEXT.get(run.state, "mongosplit status {migration}").format(migration=run.migration)
