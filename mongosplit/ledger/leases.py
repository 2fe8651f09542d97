"""Leases in the ledger: one driver, or one planner, for each run."""

from __future__ import annotations

import time
from datetime import datetime

from mongosplit.errors import LeaseHeld
from mongosplit.ledger.book import Ledger

LEASE_SECONDS = 15
"""How long a driver or a planner that died keeps others out."""


def hold(ledger: Ledger, run_id: str, holder: str, *, seconds: int = LEASE_SECONDS) -> None:
    """Take or prolong the lease on a run, by the server's clock.

    Raises:
        LeaseHeld: somebody else holds it.
    """
    until = {"$dateAdd": {"startDate": "$$NOW", "unit": "second", "amount": seconds}}
    free = {"$or": [{"$eq": ["$lease.holder", holder]}, {"$lt": ["$lease.until", "$$NOW"]}]}
    row = ledger["runs"].find_one_and_update(
        {"_id": run_id, "$or": [{"lease": None}, {"$expr": free}]},
        [{"$set": {"lease": {"holder": holder, "until": until}}}],
    )
    if row is None:
        held = (ledger["runs"].find_one({"_id": run_id}) or {}).get("lease") or {}
        raise LeaseHeld(
            f"run {run_id} is being driven by {held.get('holder', 'somebody else')}",
            hint=f"watch it: mongosplit status {run_id} --watch",
        )


def hold_when_free(ledger: Ledger, run_id: str, holder: str) -> None:
    """Take the lease; if a holder that no longer renews it has it, wait until it runs out.

    Raises:
        LeaseHeld: the holder lives: it renewed the lease while we looked.
    """
    seen = _lease_end(ledger, run_id)
    deadline = time.monotonic() + LEASE_SECONDS + 5
    while True:
        try:
            hold(ledger, run_id, holder)
        except LeaseHeld:
            if _lease_end(ledger, run_id) != seen or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _lease_end(ledger: Ledger, run_id: str) -> datetime | None:
    row = ledger["runs"].find_one({"_id": run_id}, {"lease": 1}) or {}
    end: datetime | None = (row.get("lease") or {}).get("until")
    return end


def let_go(ledger: Ledger, run_id: str, holder: str) -> None:
    """Give the lease back; if it is no longer ours nothing happens."""
    ledger["runs"].update_one({"_id": run_id, "lease.holder": holder}, {"$set": {"lease": None}})
