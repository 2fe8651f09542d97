"""The breaker: stops a run in which too many documents or chunks fail, before many more do.

A wrong declaration sends every document to quarantine; whoever notices first, a worker or the
driver, asks for a pause with the sentence that says why.
"""

from __future__ import annotations

import time
from typing import Any

from mongosplit.errors import IllegalTransition
from mongosplit.ledger import quarantine, runs, tally
from mongosplit.ledger.book import Ledger
from mongosplit.model import APPLIED, ChunkState, Run, RunState

LEAST_DOCUMENTS = 1000
LEAST_CHUNKS = 20
"""Below so many, a share says nothing."""
LOOK_SECONDS = 1.0
ACTOR = "breaker"

_looked: dict[str, float] = {}

Totals = dict[str, dict[str, int]]


def look(ledger: Ledger, run_id: str) -> None:
    """Look at the run, at most once a second in this process, and stop it when too much fails."""
    moment = time.monotonic()
    if moment - _looked.get(run_id, -LOOK_SECONDS) >= LOOK_SECONDS:
        _looked[run_id] = moment
        trip(ledger, runs.get(ledger, run_id), tally.totals(ledger, run_id))


def trip(ledger: Ledger, run: Run, totals: Totals) -> str:
    """Ask for a pause when too much fails; returns the sentence, empty when all is well."""
    sentence = verdict(ledger, run, totals)
    if sentence and run.state is RunState.RUNNING:
        try:
            runs.move(ledger, run.id, RunState.PAUSING, actor=ACTOR, why=sentence)
        except IllegalTransition:
            # Somebody else has stopped it, or it came to its end.
            return ""
    return sentence


def verdict(ledger: Ledger, run: Run, totals: Totals) -> str:
    """What is over its limit, in a sentence; documents that were released do not count."""
    applied = [totals[state.value] for state in APPLIED if state.value in totals]
    docs = sum(row["docs"] for row in applied)
    bad = sum(row["quarantined"] for row in applied)
    most = run.options.get("breaker_documents", 1.0)
    if docs >= LEAST_DOCUMENTS and bad > most * docs:
        bad -= quarantine.released(ledger, run.id)
        if bad > most * docs:
            return _over(bad, docs, most, "documents are in quarantine")
    failed = totals.get(ChunkState.FAILED.value, {}).get("chunks", 0)
    tried = failed + sum(row["chunks"] for row in applied)
    most = run.options.get("breaker_chunks", 1.0)
    if tried >= LEAST_CHUNKS and failed > most * tried:
        return _over(failed, tried, most, "chunks have failed")
    return ""


def _over(part: int, whole: int, most: float, what: str) -> str:
    return f"{part:,} of {whole:,} {what}: {part / whole:.1%} ≥ {most:.1%}"


def limits(documents: float, chunks: float) -> dict[str, Any]:
    """The limits as a run's options keep them: shares between 0 and 1."""
    return {"breaker_documents": documents, "breaker_chunks": chunks}
