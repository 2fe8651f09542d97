"""Dirty in the ledger: ids with a change that no sync has derived yet, one row for each.

A row is durable before the follower forgets the event. It goes only after a derive has committed,
and only with the stamp that was read before that derive began; stamps are unique, never counted
(docs/architecture.md, I5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from mongosplit import raw
from mongosplit.ledger.book import Ledger, document_key
from mongosplit.mongo import Session, raw_documents
from mongosplit.raw import Value

COUNTED = 100_000
"""A backlog is counted up to here; more is only more."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An id to be derived again: its chunk, when it was written, and whether it is to be repaired.

    What a repair finds other than derived is saved to `kept` before it goes.
    """

    source_id: Value
    chunk: int
    time: Timestamp | None = None
    repair: bool = False


@dataclass(frozen=True, slots=True)
class Dirty:
    """A dirty row as it was read: whose, and with which stamp."""

    key: str
    source_id: Value
    chunk: int
    stamp: ObjectId
    time: Timestamp | None
    repair: bool


def mark(ledger: Ledger, run: str, marks: Iterable[Mark], *, session: Session | None = None) -> int:
    """Mark ids dirty, each with a fresh stamp; returns how many.

    A row that is there already keeps its place, and stays to be repaired.
    """
    updates = {document_key(run, one.source_id): _update(run, one) for one in marks}
    if updates:
        writes = [UpdateOne({"_id": key}, update, upsert=True) for key, update in updates.items()]
        ledger["dirty"].bulk_write(writes, ordered=False, session=session)
    return len(updates)


def _update(run: str, one: Mark) -> dict[str, Any]:
    fields = [
        ("run", raw.encode(run)),
        ("chunk", raw.encode(one.chunk)),
        ("source_id", one.source_id),
        ("stamp", raw.encode(ObjectId())),
    ]
    if one.time is not None:
        fields.append(("time", raw.encode(one.time)))
    if one.repair:
        fields.append(("repair", raw.encode(True)))
    return {"$set": RawBSONDocument(raw.build(fields))}


def read(
    ledger: Ledger,
    run: str,
    *,
    limit: int,
    part: int = 0,
    parts: int = 1,
    without: Iterable[int] = (),
) -> list[Dirty]:
    """Up to `limit` rows of the chunks whose number modulo `parts` is `part`, chunk by chunk."""
    query: dict[str, Any] = {"run": run}
    if parts > 1:
        query["chunk"] = {"$mod": [parts, part]}
    if busy := list(without):
        query = {"$and": [query, {"chunk": {"$nin": busy}}]}
    found = ledger["dirty"].find_raw_batches(query, sort=[("run", 1), ("chunk", 1)], limit=limit)
    return [_dirty(row) for row in raw_documents(found)]


def _dirty(row: bytes) -> Dirty:
    fields = dict(raw.elements(row))
    time = fields.get("time")
    return Dirty(
        key=fields["_id"].decode(),
        source_id=fields["source_id"],
        chunk=fields["chunk"].decode(),
        stamp=fields["stamp"].decode(),
        time=None if time is None else time.decode(),
        repair="repair" in fields,
    )


def forget(ledger: Ledger, rows: Sequence[Dirty]) -> None:
    """Take the rows away that still have the stamps they were read with."""
    if rows:
        keys, stamps = [row.key for row in rows], [row.stamp for row in rows]
        # A stamp is only ever given once, so any of them under any of the keys is the pair read.
        ledger["dirty"].delete_many({"_id": {"$in": keys}, "stamp": {"$in": stamps}})


def move(ledger: Ledger, rows: Iterable[tuple[Dirty, int]]) -> None:
    """Put rows to the chunks that hold their ids by now; one that was marked again is left."""
    writes = [
        UpdateOne({"_id": row.key, "stamp": row.stamp}, {"$set": {"chunk": chunk}})
        for row, chunk in rows
    ]
    if writes:
        ledger["dirty"].bulk_write(writes, ordered=False)


def among(
    ledger: Ledger, run: str, ids: Iterable[Value], *, session: Session | None = None
) -> set[Value]:
    """Which of these ids are dirty."""
    keys = {document_key(run, source_id): source_id for source_id in ids}
    found = ledger["dirty"].find({"_id": {"$in": list(keys)}}, {"_id": 1}, session=session)
    return {keys[row["_id"]] for row in found}


def backlog(ledger: Ledger, run: str) -> int:
    """How many ids are dirty, counted up to `COUNTED`."""
    return ledger["dirty"].count_documents({"run": run}, limit=COUNTED)


def to_repair(ledger: Ledger, run: str) -> int:
    """How many ids are dirty because somebody asked for their repair."""
    return ledger["dirty"].count_documents({"run": run, "repair": True})


def parts_waiting(ledger: Ledger, run: str, parts: int) -> Iterator[int]:
    """The parts, of so many, in which ids are dirty."""
    for part in range(parts):
        query = {"run": run, "chunk": {"$mod": [parts, part]}}
        if ledger["dirty"].find_one(query, {"_id": 1}) is not None:
            yield part


def forget_run(ledger: Ledger, run: str) -> None:
    """Take all rows of a run away: it is over."""
    ledger["dirty"].delete_many({"run": run})
