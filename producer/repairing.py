"""Repairing a run: what a verification found different is derived again, and compared again."""

from __future__ import annotations

import time

from mongosplit import repair
from mongosplit.errors import TransientError
from mongosplit.ledger import chunks, dirty
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from worker import place, syncing

WAIT_SECONDS = 120.0
POLL_SECONDS = 0.2


def repair_run(at: OpenRun, settings: Settings) -> int:
    """Derive again what differs in chunks that have mismatches; how many users.

    Raises:
        TransientError: the syncs do not come to an end.
    """
    wrong = chunks.numbers(at.ledger, at.run.id, {"mismatches": {"$gt": 0}})
    marked = sum(repair.mark_differing(at, n) for n in wrong)
    deadline = time.monotonic() + WAIT_SECONDS
    while dirty.to_repair(at.ledger, at.run.id):
        done = syncing.carry_out(at, 0, 1, worker=place.name_here(settings.actor))
        if time.monotonic() > deadline:
            raise TransientError(
                f"users of {at.run.id} are still to be repaired after {WAIT_SECONDS:.0f} s",
                hint=f"mongosplit status {at.run.id}",
            )
        if done["did"] != "synced":
            time.sleep(POLL_SECONDS)
    return marked
