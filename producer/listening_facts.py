"""What `status` says of queues on which chunks wait while no worker listens there."""

from __future__ import annotations

from typing import Any

from mongosplit.ledger import asks, tally
from mongosplit.ledger.book import Ledger
from mongosplit.model import FINISHED, Run, RunState
from producer import dispatch, migrating, verifying
from producer.console import counted
from producer.dispatch import BrokerAway
from producer.doctor_workers import LISTEN
from worker.app import app

_DONE = {"migrate": "migrated", "verify": "verified", "rollback": "rolled back"}
_IN_NO_WAVE = {"tail": None}


def facts(ledger: Ledger, run: Run) -> dict[str, Any]:
    """On which queues chunks of the run wait unheard, and what keeps us from knowing.

    Redis is asked only where chunks wait, and for a moment only.
    """
    found = _waiting(ledger, run)
    if not found or not app.conf.broker_url:
        return {"unheard": [], "obstacle": ""}
    try:
        unheard = dispatch.unheard(found)
    except BrokerAway as error:
        return {"unheard": [], "obstacle": error.message}
    rows = [{"queue": queue, "chunks": found[queue], "start": LISTEN[queue]} for queue in unheard]
    return {"unheard": rows, "obstacle": ""}


def _waiting(ledger: Ledger, run: Run) -> dict[str, int]:
    """How many chunks the workers of a queue have something to do for, where there are any."""
    queries = {"rollback": asks.TO_UNDO}
    if run.state is RunState.RUNNING:
        queries["migrate"] = migrating.wanted(run)
    if run.state not in FINISHED:
        # The tail is verified from the start of a run or at its end, and holds nothing.
        queries["verify"] = {"$and": [verifying.query(run), _IN_NO_WAVE]}
    found = {
        queue: sum(row["chunks"] for row in tally.totals(ledger, run.id, query).values())
        for queue, query in queries.items()
    }
    return {queue: count for queue, count in found.items() if count}


def sentences(found: dict[str, Any]) -> list[str]:
    """The same as sentences, each with what to type."""
    if found["obstacle"]:
        return [f"{found['obstacle']}: whether workers listen is not known"]
    said = []
    for row in found["unheard"]:
        count, one = counted(row["chunks"], "chunk"), row["chunks"] == 1
        wait = f"{count} {'waits' if one else 'wait'} to be {_DONE[row['queue']]}"
        said.append(f"no worker listens on queue {row['queue']}: {wait}; {row['start']}")
    return said
