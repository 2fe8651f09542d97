"""Kicking off verification: closing a wave, and sending its chunks to the `verify` queue, once."""

from __future__ import annotations

from collections.abc import Iterable

from mongosplit.ledger import chunks, runs, waves
from mongosplit.ledger.book import Ledger
from mongosplit.model import APPLIED, ChunkState
from worker.app import app


def close_and_verify(ledger: Ledger, run: str, wave: int, *, by: str) -> str:
    """Close the wave if no chunk of it is pending; whoever closes it sends its verification.

    The chord's callback, its error callback and the driver all call this. Returns what happened.
    """
    found = waves.get(ledger, run, wave)
    if found is None:
        return "no such wave"
    if chunks.still(ledger, run, found.chunks, {"state": ChunkState.PENDING.value}):
        return "chunks are pending"
    if waves.close(ledger, run, wave, by) is None:
        return "closed already"
    applied = {"state": {"$in": [state.value for state in APPLIED]}}
    numbers = chunks.still(ledger, run, found.chunks, applied)
    send(run, sorted(numbers), runs.get(ledger, run).verification)
    return f"{len(numbers)} to verify"


def send(run: str, numbers: Iterable[int], verification: int) -> None:
    """Send chunks to be verified; a message sent twice is compared twice and harmless."""
    task = app.tasks["mongosplit.verify_chunk"]
    for n in numbers:
        task.apply_async(
            (run, n, verification),
            queue="verify",
            argsrepr=f"{run} #{n}",
            kwargsrepr=f"verification {verification}",
        )
