"""Chunks in the ledger: write the plan, take the fence, change state, count.

The fence: a transaction that writes targets of a chunk increments the chunk's fence first, in the
same transaction. Of two that did, one has seen the other's commit (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

from mongosplit.errors import FenceBusy, MongosplitError
from mongosplit.keyspace import Range
from mongosplit.ledger.book import Ledger, chunk_key, now
from mongosplit.model import CHUNK_ARROWS, Chunk, ChunkState
from mongosplit.mongo import WRITE_CONFLICT, Session
from mongosplit.plan import PlannedChunk

_ROWS_AT_ONCE = 1000
_UNWELL = [{"state": ChunkState.FAILED.value}, {"check_error": {"$ne": None}}]


def _chunk(row: dict[str, Any]) -> Chunk:
    return Chunk(
        run=row["run"],
        n=row["n"],
        ranges=tuple(Range.from_document(found) for found in row["ranges"]),
        state=ChunkState(row["state"]),
        fence=row["fence"],
        planned=row["planned"],
        tail=row.get("tail", False),
        docs=row.get("docs", 0),
        parts=row.get("parts", {}),
        quarantined=row.get("quarantined", 0),
        adopted=row.get("adopted", 0),
        error=row.get("error") or row.get("check_error"),
    )


def write_plan(ledger: Ledger, run: str, planned: Iterable[PlannedChunk]) -> dict[str, int]:
    """Enter the chunks of a plan; returns how many chunks and documents there are.

    The tail chunk begins migrated and empty: everything in it is yet to be inserted.
    """
    chunks = docs = 0
    rows: list[dict[str, Any]] = []
    for chunk in planned:
        rows.append(_row(run, chunk))
        chunks, docs = chunks + 1, docs + chunk.docs
        if len(rows) == _ROWS_AT_ONCE:
            ledger["chunks"].insert_many(rows, ordered=False)
            rows = []
    if rows:
        ledger["chunks"].insert_many(rows, ordered=False)
    return {"chunks": chunks, "docs": docs}


def discard_plan(ledger: Ledger, run: str) -> None:
    """Take the chunks of a run in planning out again."""
    ledger["chunks"].delete_many({"run": run})


def _row(run: str, chunk: PlannedChunk) -> dict[str, Any]:
    state = ChunkState.MIGRATED if chunk.tail else ChunkState.PENDING
    row: dict[str, Any] = {
        "_id": chunk_key(run, chunk.n),
        "run": run,
        "n": chunk.n,
        "ranges": [found.to_document() for found in chunk.ranges],
        "state": state.value,
        "fence": 0,
        "planned": chunk.docs,
    }
    return {**row, "tail": True} if chunk.tail else row


def get(ledger: Ledger, run: str, n: int, *, session: Session | None = None) -> Chunk:
    """The chunk, as it is in the session's snapshot."""
    row = ledger["chunks"].find_one({"_id": chunk_key(run, n)}, session=session)
    if row is None:
        raise MongosplitError(f"run {run} has no chunk {n}", hint=f"mongosplit status {run}")
    return _chunk(row)


def take_fence(ledger: Ledger, session: Session, run: str, n: int) -> Chunk:
    """Increment the chunk's fence as the first write of the transaction, and read its state.

    Raises:
        FenceBusy: another transaction holds the fence.
    """
    try:
        row = ledger["chunks"].find_one_and_update(
            {"_id": chunk_key(run, n)},
            {"$inc": {"fence": 1}},
            session=session,
            return_document=ReturnDocument.AFTER,
        )
    except OperationFailure as error:
        if error.code == WRITE_CONFLICT:
            raise FenceBusy(f"chunk {n} of {run} is held by another transaction") from error
        raise
    if row is None:
        raise MongosplitError(f"run {run} has no chunk {n}", hint=f"mongosplit status {run}")
    return _chunk(row)


def record(
    ledger: Ledger, session: Session, chunk: Chunk, to: ChunkState, facts: dict[str, Any]
) -> None:
    """Change the state of a chunk whose fence this transaction has taken.

    Raises:
        MongosplitError: the tables hold no arrow to that state.
    """
    if (chunk.state, to) not in CHUNK_ARROWS:
        raise MongosplitError(f"chunk {chunk.n} of {chunk.run} is {chunk.state}, not to be {to}")
    ledger["chunks"].update_one(
        {"_id": chunk_key(chunk.run, chunk.n)},
        {"$set": {"state": to.value, "error": None, **facts}},
        session=session,
    )


def fail(ledger: Ledger, run: str, n: int, error: dict[str, str]) -> bool:
    """Mark a pending chunk failed, with the class and the sentence of its error."""
    changed = ledger["chunks"].update_one(
        {"_id": chunk_key(run, n), "state": ChunkState.PENDING.value},
        {
            "$set": {"state": ChunkState.FAILED.value, "error": error, "finished": now()},
            "$inc": {"fence": 1},
        },
    )
    return changed.modified_count == 1


def unwell(ledger: Ledger, run: str) -> list[int]:
    """The numbers of the chunks that failed or could not be verified."""
    return numbers(ledger, run, {"$or": _UNWELL})


def reopen_failed(ledger: Ledger, run: str) -> int:
    """Make failed chunks pending again, and what could not be verified unchecked.

    Returns how many had failed.
    """
    ledger["chunks"].update_many(
        {"run": run, "check_error": {"$ne": None}},
        {"$unset": {"checked": ""}, "$set": {"check_error": None}},
    )
    changed = ledger["chunks"].update_many(
        {"run": run, "state": ChunkState.FAILED.value},
        {"$set": {"state": ChunkState.PENDING.value, "error": None}, "$inc": {"fence": 1}},
    )
    return changed.modified_count


def checked(
    ledger: Ledger, seen: Chunk, *, verification: int, mismatches: int, independent: bool
) -> bool:
    """Record a verification, unless the chunk was touched since it was seen; True if recorded."""
    applied = seen.state in (ChunkState.MIGRATED, ChunkState.VERIFIED)
    facts: dict[str, Any] = {
        "checked": verification,
        "mismatches": mismatches,
        "independent": independent,
        "check_error": None,
    }
    if applied:
        good = ChunkState.VERIFIED if mismatches == 0 else ChunkState.MIGRATED
        facts["state"] = good.value
    changed = ledger["chunks"].update_one(
        {"_id": chunk_key(seen.run, seen.n), "fence": seen.fence, "state": seen.state.value},
        {"$set": facts},
    )
    return changed.matched_count == 1


def not_checked(ledger: Ledger, run: str, n: int, verification: int, error: dict[str, str]) -> None:
    """Record that a verification could not be done, with the class and sentence of the error."""
    ledger["chunks"].update_one(
        {"_id": chunk_key(run, n)}, {"$set": {"checked": verification, "check_error": error}}
    )


def numbers(ledger: Ledger, run: str, query: dict[str, Any], *, limit: int = 0) -> list[int]:
    """The numbers of the run's chunks that a query on their rows finds, in order."""
    found = ledger["chunks"].find({"run": run, **query}, {"n": 1}).sort("n", 1).limit(limit)
    return [row["n"] for row in found]


def unchecked(verification: int) -> dict[str, Any]:
    """The query for chunks that this verification has yet to look at."""
    return {"checked": {"$ne": verification}}


def still(ledger: Ledger, run: str, numbers_: Sequence[int], query: dict[str, Any]) -> set[int]:
    """Which of these chunks a query on their rows still finds."""
    ids = [chunk_key(run, n) for n in numbers_]
    return {row["n"] for row in ledger["chunks"].find({"_id": {"$in": ids}, **query}, {"n": 1})}


def totals(ledger: Ledger, run: str) -> dict[str, dict[str, int]]:
    """By state: chunks, documents planned, migrated, quarantined, adopted, mismatches.

    `independent` is how many chunks were last verified through the Python reference.
    """
    sums = ("planned", "docs", "quarantined", "adopted", "mismatches")
    group: dict[str, Any] = {"_id": "$state", "chunks": {"$sum": 1}}
    group |= {name: {"$sum": f"${name}"} for name in sums}
    group["independent"] = {"$sum": {"$cond": ["$independent", 1, 0]}}
    rows = ledger["chunks"].aggregate([{"$match": {"run": run}}, {"$group": group}])
    return {row.pop("_id"): row for row in rows}


def parts_written(ledger: Ledger, run: str) -> dict[str, int]:
    """How many documents each target has got from the run's applied chunks."""
    rows = ledger["chunks"].aggregate(
        [
            {"$match": {"run": run, "state": {"$in": ["migrated", "verified"]}}},
            {"$project": {"parts": {"$objectToArray": "$parts"}}},
            {"$unwind": "$parts"},
            {"$group": {"_id": "$parts.k", "count": {"$sum": "$parts.v"}}},
        ]
    )
    return {row["_id"]: row["count"] for row in rows}


def recent_docs(ledger: Ledger, run: str, within: timedelta) -> int:
    """Documents of the chunks that were migrated within the last while."""
    since = {"run": run, "finished": {"$gte": now() - within}}
    rows = ledger["chunks"].aggregate(
        [{"$match": since}, {"$group": {"_id": None, "docs": {"$sum": "$docs"}}}]
    )
    return sum(row["docs"] for row in rows)


def failures(ledger: Ledger, run: str, *, limit: int = 5) -> list[Chunk]:
    """The first chunks that failed or could not be verified, with their errors."""
    found = ledger["chunks"].find({"run": run, "$or": _UNWELL})
    return [_chunk(row) for row in found.sort("n", 1).limit(limit)]
