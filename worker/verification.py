"""Kicking off verification: closing a wave, and sending its chunks to the `verify` queue, once."""

from __future__ import annotations

from collections.abc import Iterable

from mongosplit import rollback
from mongosplit.ledger import chunks, runs, waves
from mongosplit.ledger.book import Ledger
from mongosplit.ledger.claims import Attempt
from mongosplit.model import ChunkState, Outcome
from mongosplit.open_run import OpenRun
from worker.app import app


def close_and_verify(ledger: Ledger, run: str, wave: int, *, by: str) -> str:
    """Close the wave if no chunk of it is pending; whoever closes it sends its verification.

    The chord's callback, its error callback and the driver all call this. Returns what happened.
    """
    found = waves.get(ledger, run, wave)
    if found is None:
        return "no such wave"
    if chunks.still(ledger, run, found.chunks, chunks.WANTED):
        return "chunks are pending"
    if waves.close(ledger, run, wave, by) is None:
        return "closed already"
    numbers = chunks.still(ledger, run, found.chunks, chunks.IS_APPLIED)
    send(run, sorted(numbers), runs.get(ledger, run).verification)
    return f"{len(numbers)} to verify"


def roll_back_and_verify(at: OpenRun, n: int, attempt: Attempt) -> Outcome:
    """Roll the chunk back, and have it compared: nothing of it may be left in the targets."""
    outcome = rollback.rollback_chunk(at, n, attempt)
    if outcome.state == ChunkState.ROLLED_BACK:
        send(at.run.id, [n], runs.get(at.ledger, at.run.id).verification)
    return outcome


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
