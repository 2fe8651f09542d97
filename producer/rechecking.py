"""Rechecking: while a run is followed, random applied chunks are compared again and again."""

from __future__ import annotations

from contextlib import suppress

from mongosplit import verify
from mongosplit.errors import IllegalTransition
from mongosplit.ledger import chunks, runs
from mongosplit.ledger.claims import Attempt
from mongosplit.model import HELD, RunState
from mongosplit.open_run import OpenRun
from worker import presence

STILL = HELD | {RunState.ROLLING_BACK, RunState.ROLLED_BACK}
"""In one of these states nothing is compared that nobody asked for."""


def recheck(at: OpenRun, worker: str, max_attempts: int) -> int | None:
    """Compare a random applied chunk; its mismatches, None where there is nothing to compare.

    A run that was verified is that no longer once a mismatch is found.

    Raises:
        TransientError: it could not be told this time. Failed: the chunk cannot be compared.
    """
    run = runs.get(at.ledger, at.run.id)
    n = None if run.state in STILL else chunks.any_verified(at.ledger, run.id)
    if n is None:
        return None
    attempt = Attempt(worker, most=max_attempts, is_dead=presence.is_dead)
    outcome = verify.verify_chunk(at, n, attempt, verification=run.verification, independent=False)
    if outcome.mismatches and run.state is RunState.VERIFIED:
        why = f"the background verification found a difference in chunk {n}"
        with suppress(IllegalTransition):
            runs.move(at.ledger, run.id, RunState.MIGRATED, actor="recheck", why=why)
    return outcome.mismatches
