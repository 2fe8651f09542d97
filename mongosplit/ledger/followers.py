"""Followers in the ledger: from where a run's source is followed, how far, by whom.

One row for each run. The start is taken before the plan that counts is looked at for the last time,
so every write is either seen by a copy or comes as an event (docs/architecture.md, I4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import Timestamp

from mongosplit.ledger.book import Ledger, now
from mongosplit.mongo import present

LEASE_SECONDS = 10
"""How long a follower that died keeps another from taking over; two at once would be harmless."""
ABSENT_SECONDS = 5
"""After so long without a sign of life nobody follows."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the source of a run is followed, and what stands in the way.

    `reached` is the time up to which every write is marked, `seen` when somebody who follows last
    gave a sign of life, `moment` the present, both by the server's clock. `looked` is the time up
    to which foreign writes are noted, None where that is not allowed.
    """

    start: Timestamp
    token: str | None
    reached: Timestamp
    looked: Timestamp | None
    holder: str
    seen: datetime | None
    moment: datetime
    events: int
    obstacle: dict[str, str] | None

    @property
    def alive(self) -> bool:
        """Whether somebody follows."""
        return self.seen is not None and (self.moment - self.seen).total_seconds() < ABSENT_SECONDS

    @property
    def lag_seconds(self) -> float:
        """How far behind the present the writes are marked: when last looked at, or by now."""
        reached = datetime.fromtimestamp(self.reached.time, UTC).replace(tzinfo=None)
        until = self.seen if self.alive and self.seen else self.moment
        return max(0.0, (until - reached).total_seconds())


def begin(ledger: Ledger, run: str, *, restart: bool = False) -> Position:
    """Take the start for a run that has none, or a new one with `restart`.

    The time is read first. Once a majority has the row, it has every write before that time, too,
    so no later snapshot lacks one that is not followed.
    """
    start = present(ledger.database.client)
    first: dict[str, Any] = {"start": start, "token": None, "reached": start, "looked": start}
    first |= {"events": 0, "begun": now(), "obstacle": None}
    operator = "$set" if restart else "$setOnInsert"
    ledger["followers"].update_one({"_id": run}, {operator: first}, upsert=True)
    found = get(ledger, run)
    assert found is not None  # it was there, or was entered just now
    return found


def get(ledger: Ledger, run: str) -> Position | None:
    """Where the follower of a run stands; None where the source was never followed."""
    names = ("start", "token", "reached", "looked", "lease", "events", "obstacle")
    keep: dict[str, Any] = {**dict.fromkeys(names, 1), "moment": "$$NOW"}
    row = ledger["followers"].find_one({"_id": run}, keep)
    return None if row is None else _position(row)


def of_unfinished(ledger: Ledger) -> list[str]:
    """The runs that have begun and are not over."""
    begun = [row["_id"] for row in ledger["followers"].find({}, {"_id": 1})]
    return ledger["runs"].distinct("_id", {"_id": {"$in": begun}, "unfinished": True})


def _position(row: Mapping[str, Any]) -> Position:
    lease = row.get("lease") or {}
    return Position(
        start=row["start"],
        token=row["token"],
        reached=row["reached"],
        looked=row["looked"],
        holder=lease.get("holder", ""),
        seen=lease.get("seen"),
        moment=row["moment"],
        events=row["events"],
        obstacle=row.get("obstacle"),
    )


def take(ledger: Ledger, run: str, holder: str) -> bool:
    """Become the follower of a run if nobody is; True when it is this one."""
    until = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": LEASE_SECONDS}}
    gone = {"$lt": [{"$ifNull": ["$lease.seen", "$begun"]}, until]}
    mine_or_free = {"$or": [{"$eq": [{"$ifNull": ["$lease.holder", holder]}, holder]}, gone]}
    taken = ledger["followers"].update_one(
        {"_id": run, "$expr": mine_or_free},
        [{"$set": {"lease": {"holder": holder, "seen": "$$NOW"}}}],
    )
    return taken.matched_count == 1


def reach(
    ledger: Ledger, run: str, holder: str, *, token: str, time: Timestamp, events: int
) -> bool:
    """Save how far it is followed, after what came is marked; False when another has taken over."""
    saved = {"token": token, "reached": time}
    lease = {"holder": holder, "seen": "$$NOW"}
    written = ledger["followers"].update_one(
        {"_id": run, "lease.holder": holder},
        [{"$set": {**saved, "lease": lease, "events": {"$add": ["$events", events]}}}],
    )
    return written.matched_count == 1


def looked(ledger: Ledger, run: str, until: Timestamp | None) -> None:
    """Note up to when foreign writes are noted; None where the oplog may not be read."""
    ledger["followers"].update_one({"_id": run}, {"$set": {"looked": until}})


def let_go(ledger: Ledger, run: str, holder: str) -> None:
    """Make room for another follower."""
    ledger["followers"].update_one({"_id": run, "lease.holder": holder}, {"$set": {"lease": None}})


def obstructed(ledger: Ledger, run: str, error: dict[str, str] | None) -> None:
    """Note what keeps writes from being followed or synced; None when nothing does any more."""
    other = {"_id": run, "obstacle": {"$ne": error}}
    ledger["followers"].update_one(other, {"$set": {"obstacle": error}})


def forget_run(ledger: Ledger, run: str) -> None:
    """Take the row of a run away: it is over."""
    ledger["followers"].delete_one({"_id": run})
