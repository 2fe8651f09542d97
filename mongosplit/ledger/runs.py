"""Runs in the ledger: begin, find, change state by compare-and-set; each change is told."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from mongosplit.errors import IllegalTransition, Refused, UsageError
from mongosplit.ledger import audit, leases, plans
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import FINISHED, Run, RunState, sources_of
from mongosplit.mongo import Session

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
        requested=row.get("requested", 0),
        selection=row.get("selection"),
        asked=row.get("asked", {}),
        resting=row.get("resting", False),
        on_change=row.get("on_change", "keep"),
        drill=row.get("drill"),
        pace=row.get("pace", {}),
        health=row.get("health"),
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
            ledger.together(functools.partial(_insert, ledger, row))
        except DuplicateKeyError:
            _refuse_second(ledger, facts["source"])
            continue  # the number was taken by a run of another source meanwhile
        leases.hold(ledger, row["_id"], holder)
        return _run(row)


def _insert(ledger: Ledger, row: dict[str, Any], session: Session) -> None:
    ledger["runs"].insert_one(row, session=session)
    told = {"to": row["state"], "migration": row["migration"], "source": row["source"]}
    audit.say(ledger, "run", actor=row["actor"], run=row["_id"], session=session, facts=told)


def _refuse_second(ledger: Ledger, source: str) -> None:
    row = ledger["runs"].find_one({"source": source, "unfinished": True})
    if row is not None:
        raise Refused(
            f"{source} has an unfinished run already: {row['_id']} is {row['state']}",
            hint=f"mongosplit status {row['_id']}",
        )


def _give_up_interrupted(ledger: Ledger, source: str) -> None:
    """Cancel a planning whose planner no longer holds its lease; its chunks are not a plan."""
    broken_off = {
        "source": source,
        "state": RunState.PLANNING.value,
        "$expr": {"$lt": [{"$ifNull": ["$lease.until", "$created"]}, "$$NOW"]},
        "created": {"$lt": now() - timedelta(seconds=1)},
    }
    asked = {"actor": "", "at": now(), "why": "its planning was broken off"}
    changes = {"state": RunState.CANCELLED.value, "unfinished": False, "asked": asked}
    row = ledger.together(lambda session: _change(ledger, session, broken_off, changes))
    if row is not None:
        plans.discard_plan(ledger, row["_id"])


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


def move(
    ledger: Ledger,
    run_id: str,
    to: RunState,
    *,
    actor: str = "",
    why: str = "",
    **facts: Any,
) -> Run:
    """Change the run's state by compare-and-set; moving to where it already is changes nothing.

    `actor` and `why` are kept with the state: who asked, or what brought it about.

    Raises:
        IllegalTransition: the run is in no state from which an arrow leads to `to`.
        Refused: the source has another unfinished run meanwhile.
    """
    before = get(ledger, run_id)
    asked = {"actor": actor or before.actor, "at": now(), "why": why}
    changes: dict[str, Any] = {"state": to.value, "unfinished": to not in FINISHED, "asked": asked}
    changes["resting"] = False
    stamp = _STAMPED.get(to)
    # The first time counts: a later verification does not make the run longer.
    if stamp is not None and getattr(before, stamp) is None:
        changes[stamp] = now()
    if to is RunState.RUNNING:
        changes = {**_UNSET, **changes}
    query = {"_id": run_id, "state": {"$in": [state.value for state in sources_of(to)]}}
    try:
        row = ledger.together(lambda session: _change(ledger, session, query, changes | facts))
    except DuplicateKeyError:
        _refuse_second(ledger, before.source)
        raise
    if row is not None:
        return _run(row)
    present = get(ledger, run_id)
    if present.state is to:
        return present
    raise IllegalTransition(
        f"run {run_id} is {present.state_words} and cannot become {to.replace('_', ' ')}",
        hint=f"mongosplit status {run_id}",
    )


def _change(
    ledger: Ledger, session: Session, query: dict[str, Any], changes: dict[str, Any]
) -> dict[str, Any] | None:
    """Change the run that the query finds and tell it; the row as it is now, None without one."""
    before = ledger["runs"].find_one_and_update(query, {"$set": changes}, session=session)
    if before is None:
        return None
    asked = changes["asked"]
    told = {"from": before["state"], "to": changes["state"], "why": asked["why"]}
    audit.say(ledger, "run", actor=asked["actor"], run=before["_id"], session=session, facts=told)
    return {**before, **changes}


def note(ledger: Ledger, run_id: str, **facts: Any) -> None:
    """Write facts that are not state: cached counts, what was provisioned."""
    ledger["runs"].update_one({"_id": run_id}, {"$set": facts})


def first_verification(ledger: Ledger, run_id: str) -> None:
    """Number the run's first verification; one that has a number keeps it."""
    none_yet = {"_id": run_id, "verification": {"$in": [None, 0]}}
    ledger["runs"].update_one(none_yet, {"$set": {"verification": 1}})


def next_verification(ledger: Ledger, run_id: str, *, requested: bool = False) -> int:
    """A new number for one verification of the whole run; `requested` ones go on in a pause."""
    raised = {"$add": [{"$ifNull": ["$verification", 0]}, 1]}
    change = {"verification": raised} | ({"requested": raised} if requested else {})
    row = ledger["runs"].find_one_and_update(
        {"_id": run_id}, [{"$set": change}], return_document=ReturnDocument.AFTER
    )
    return int(row["verification"]) if row else 0
