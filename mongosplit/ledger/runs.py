"""Runs in the ledger: begin, find, change state by compare-and-set, hold the driver's lease."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from mongosplit.errors import IllegalTransition, LeaseHeld, Refused, UsageError
from mongosplit.ledger import chunks
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import FINISHED, Run, RunState, sources_of

LEASE_SECONDS = 15
"""How long a driver or a planner that died keeps others out."""

_STAMPED = {
    RunState.RUNNING: "started",
    RunState.MIGRATED: "migrated",
    RunState.VERIFIED: "verified",
}
_UNSET: dict[str, Any] = {"migrated": None, "verified": None}


def _run(row: dict[str, Any]) -> Run:
    return Run(
        id=row["_id"],
        migration=row["migration"],
        fingerprint=row["fingerprint"],
        source=row["source"],
        state=RunState(row["state"]),
        options=row["options"],
        actor=row["actor"],
        counts=row.get("counts", {}),
        created=row["created"],
        started=row.get("started"),
        migrated=row.get("migrated"),
        verified=row.get("verified"),
        provisioned=row.get("provisioned", []),
        verification=row.get("verification", 0),
    )


def begin(ledger: Ledger, *, name: str, facts: dict[str, Any], holder: str) -> Run:
    """Enter a new run in state `planning`, under a lease of the planner.

    `facts` are migration, fingerprint, source (`database.collection`), options and actor. A
    planning that was interrupted is given up first.

    Raises:
        Refused: the source has an unfinished run already.
    """
    _give_up_interrupted(ledger, facts["source"])
    while True:
        last = ledger["runs"].find_one({"name": name}, sort=[("number", DESCENDING)])
        number = 1 if last is None else last["number"] + 1
        row = {
            "_id": f"{name}-{number}",
            "name": name,
            "number": number,
            "state": RunState.PLANNING.value,
            "unfinished": True,
            "created": now(),
            **facts,
        }
        try:
            ledger["runs"].insert_one(row)
        except DuplicateKeyError:
            _refuse_second(ledger, facts["source"])
            continue  # the number was taken by a run of another source meanwhile
        hold(ledger, row["_id"], holder)
        return _run(row)


def _refuse_second(ledger: Ledger, source: str) -> None:
    row = ledger["runs"].find_one({"source": source, "unfinished": True})
    if row is not None:
        raise Refused(
            f"{source} has an unfinished run already: {row['_id']} is {row['state']}",
            hint=f"mongosplit status {row['_id']}",
        )


def _give_up_interrupted(ledger: Ledger, source: str) -> None:
    """Cancel a planning whose planner no longer holds its lease; its chunks are not a plan."""
    row = ledger["runs"].find_one_and_update(
        {
            "source": source,
            "state": RunState.PLANNING.value,
            "$expr": {"$lt": [{"$ifNull": ["$lease.until", "$created"]}, "$$NOW"]},
            "created": {"$lt": now() - timedelta(seconds=1)},
        },
        {"$set": {"state": RunState.CANCELLED.value, "unfinished": False}},
    )
    if row is not None:
        chunks.discard_plan(ledger, row["_id"])


def get(ledger: Ledger, run_id: str) -> Run:
    """The run of that id.

    Raises:
        UsageError: there is none.
    """
    run = by_id(ledger, run_id)
    if run is None:
        raise UsageError(f'there is no run "{run_id}"', hint=_known(ledger))
    return run


def by_id(ledger: Ledger, run_id: str) -> Run | None:
    """The run of that id, if there is one."""
    row = ledger["runs"].find_one({"_id": run_id})
    return None if row is None else _run(row)


def find(ledger: Ledger, name: str) -> Run:
    """The run called `name`, or the newest run of the migration called `name`.

    Raises:
        UsageError: there is neither.
    """
    row = ledger["runs"].find_one({"_id": name})
    if row is None:
        newest = [("number", DESCENDING)]
        row = ledger["runs"].find_one({"$or": [{"name": name}, {"migration": name}]}, sort=newest)
    if row is None:
        raise UsageError(f'there is no run of "{name}" in this ledger', hint=_known(ledger))
    return _run(row)


def unfinished(ledger: Ledger, source: str) -> Run | None:
    """The unfinished run of a source collection, if there is one."""
    row = ledger["runs"].find_one({"source": source, "unfinished": True})
    return None if row is None else _run(row)


def in_state(ledger: Ledger, state: RunState) -> list[Run]:
    """All runs in a state, oldest first."""
    return [_run(row) for row in ledger["runs"].find({"state": state.value}).sort("created", 1)]


def _known(ledger: Ledger) -> str:
    ids = [
        row["_id"]
        for row in ledger["runs"].find({}, {"_id": 1}).sort("created", DESCENDING).limit(5)
    ]
    return f"there are: {', '.join(ids)}" if ids else "make one: mongosplit plan users"


def move(ledger: Ledger, run_id: str, to: RunState, **facts: Any) -> Run:
    """Change the run's state by compare-and-set; moving to where it already is changes nothing.

    Raises:
        IllegalTransition: the run is in no state from which an arrow leads to `to`.
    """
    changes: dict[str, Any] = {"state": to.value, "unfinished": to not in FINISHED, **facts}
    stamp = _STAMPED.get(to)
    # The first time counts: a later verification does not make the run longer.
    if stamp is not None and getattr(get(ledger, run_id), stamp) is None:
        changes[stamp] = now()
    if to is RunState.RUNNING:
        changes = {**_UNSET, **changes}
    row = ledger["runs"].find_one_and_update(
        {"_id": run_id, "state": {"$in": [state.value for state in sources_of(to)]}},
        {"$set": changes},
        return_document=ReturnDocument.AFTER,
    )
    if row is not None:
        return _run(row)
    present = get(ledger, run_id)
    if present.state is to:
        return present
    raise IllegalTransition(
        f"run {run_id} is {present.state} and cannot become {to}",
        hint=f"mongosplit status {run_id}",
    )


def note(ledger: Ledger, run_id: str, **facts: Any) -> None:
    """Write facts that are not state: cached counts, what was provisioned."""
    ledger["runs"].update_one({"_id": run_id}, {"$set": facts})


def next_verification(ledger: Ledger, run_id: str) -> int:
    """A new number for one verification of the whole run."""
    row = ledger["runs"].find_one_and_update(
        {"_id": run_id}, {"$inc": {"verification": 1}}, return_document=ReturnDocument.AFTER
    )
    return int(row["verification"]) if row else 0


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
