"""Quarantine in the ledger: documents that cannot be split, with the reason, by chunk.

A document that somebody has released stays in quarantine, and stays released for as long as it is
bad: while it is tried again, and while its chunk is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.errors import DocumentError
from mongosplit.keyspace import Bracket
from mongosplit.ledger.book import Ledger, document_key, now
from mongosplit.mongo import Session, raw_documents
from mongosplit.raw import Value

_NUMBERS = ("int", "long", "double", "decimal")


@dataclass(frozen=True, slots=True)
class Bad:
    """A source document out of the way: its id and why.

    `held_by` is the user whose part has a unique key that it needs, where it is one's.
    """

    source_id: Value
    error: DocumentError
    held_by: Value | None = None


@dataclass(frozen=True, slots=True)
class Which:
    """Which documents in quarantine are meant: those with these ids, of this reason, or all."""

    ids: tuple[Any, ...] | None = None
    reason: str | None = None

    def query(self, run: str) -> dict[str, Any]:
        """The filter for their rows."""
        found: dict[str, Any] = {"run": run}
        if self.reason is not None:
            found["reason"] = self.reason
        if self.ids is not None:
            # As literals: an _id may be a document that would read as an operator.
            found["$expr"] = {"$in": ["$source_id", {"$literal": list(self.ids)}]}
        return found


ALL = Which()


@dataclass(frozen=True, slots=True)
class Row:
    """A document in quarantine: its id as the source has it, and what is known about it."""

    source_id: Value
    facts: dict[str, Any]


def replace(
    ledger: Ledger, session: Session, run: str, chunk: int, bad: Sequence[Bad], attempts: int
) -> None:
    """Make these documents the chunk's quarantine, in the chunk's own transaction.

    Those that were released before stay so.
    """
    keys = [document_key(run, found.source_id) for found in bad]
    released = releases(ledger, session, keys)
    gone = {"$or": [{"run": run, "chunk": chunk}, {"_id": {"$in": keys}}]}
    ledger["quarantine"].delete_many(gone, session=session)
    if bad:
        rows = [
            row_of(key, run, chunk, found, attempts, released.get(key))
            for key, found in zip(keys, bad, strict=True)
        ]
        ledger["quarantine"].insert_many(rows, ordered=False, session=session)


def releases(ledger: Ledger, session: Session, keys: Sequence[str]) -> dict[str, Any]:
    """Who has released which of these documents, by the `_id` of their rows."""
    query = {"_id": {"$in": list(keys)}, "released": {"$exists": True}}
    found = ledger["quarantine"].find(query, {"released": 1}, session=session) if keys else ()
    return {row["_id"]: row["released"] for row in found}


def row_of(
    key: str, run: str, chunk: int, bad: Bad, attempts: int, released: dict[str, Any] | None
) -> Any:
    """The row of a document in quarantine."""
    facts = {
        "run": run,
        "chunk": chunk,
        "reason": bad.error.reason,
        "target": bad.error.target,
        "path": bad.error.path,
        "message": str(bad.error),
        "attempts": attempts,
        "at": now(),
        **({} if released is None else {"released": released}),
    }
    fields = [("_id", raw.encode(key)), ("source_id", bad.source_id)]
    if bad.held_by is not None:
        fields.append(("held_by", bad.held_by))
    fields += [(name, raw.encode(value)) for name, value in facts.items()]
    return RawBSONDocument(raw.build(fields))


def held(ledger: Ledger, run: str, chunk: int, *, session: Session | None = None) -> set[Value]:
    """The source ids of the chunk that are in quarantine."""
    found = ledger["quarantine"].find_raw_batches(
        {"run": run, "chunk": chunk}, {"source_id": 1}, session=session
    )
    ids = (raw.field(row, "source_id") for row in raw_documents(found))
    return {value for value in ids if value is not None}


def by_reason(ledger: Ledger, run: str) -> list[dict[str, Any]]:
    """Documents in quarantine by reason and path: `reason`, `path`, `count`, most first."""
    group = {"_id": {"reason": "$reason", "path": "$path"}, "count": {"$sum": 1}}
    rows = ledger["quarantine"].aggregate(
        [{"$match": {"run": run}}, {"$group": group}, {"$sort": {"count": -1, "_id": 1}}]
    )
    return [{**row["_id"], "count": row["count"]} for row in rows]


def listed(ledger: Ledger, run: str, *, which: Which = ALL, limit: int) -> list[dict[str, Any]]:
    """The documents in quarantine: `source_id`, `chunk`, `reason`, `path`, `message`, `target`,
    `attempts`, `at`, and `released` where somebody has released it.
    """
    names = ("source_id", "chunk", "reason", "path", "message", "target", "attempts", "at")
    keep = {"_id": 0, **dict.fromkeys((*names, "released"), 1)}
    found = ledger["quarantine"].find(which.query(run), keep).sort([("chunk", 1), ("_id", 1)])
    return list(found.limit(limit))


def rows(
    ledger: Ledger, run: str, which: Which = ALL, *, session: Session | None = None
) -> Iterator[Row]:
    """The documents in quarantine by chunk, one after the other; the facts are as in `listed`."""
    found = ledger["quarantine"].find_raw_batches(
        which.query(run), sort=[("chunk", 1)], session=session
    )
    options = ledger.database.codec_options
    for row in raw_documents(found):
        fields = dict(raw.elements(row))
        source_id = fields.pop("source_id")
        fields.pop("held_by", None)
        yield Row(source_id, bson.decode(raw.build(fields.items()), options))


def count(ledger: Ledger, run: str, which: Which = ALL) -> int:
    """How many documents are in quarantine."""
    return ledger["quarantine"].count_documents(which.query(run))


def chunks_of(ledger: Ledger, run: str, which: Which) -> list[int]:
    """The numbers of the chunks that hold them, in order."""
    found = ledger["quarantine"].distinct("chunk", which.query(run))
    return sorted(int(n) for n in found)


def types(ledger: Ledger, run: str) -> set[Bracket]:
    """The types of the ids in quarantine, those without ranges among them."""
    group = {"$group": {"_id": {"$type": "$source_id"}}}
    found = {
        row["_id"] for row in ledger["quarantine"].aggregate([{"$match": {"run": run}}, group])
    }
    plain = {Bracket(name) for name in found if name in set(Bracket)}
    return plain | ({Bracket.NUMBER, Bracket.NAN} if found & set(_NUMBERS) else set())


def release(ledger: Ledger, run: str, which: Which, *, actor: str, because: str) -> int:
    """Accept that these documents stay unsplit; returns how many were not released before."""
    told = {"actor": actor, "at": now(), "because": because}
    query = {**which.query(run), "released": {"$exists": False}}
    return ledger["quarantine"].update_many(query, {"$set": {"released": told}}).modified_count


def take_back(ledger: Ledger, run: str, which: Which) -> int:
    """Take the release of these documents back; returns how many were released."""
    query = {**which.query(run), "released": {"$exists": True}}
    return ledger["quarantine"].update_many(query, {"$unset": {"released": ""}}).modified_count


def clear(ledger: Ledger, session: Session, run: str, chunk: int) -> None:
    """Take the chunk's quarantine away: it is not applied, so nothing is in its way.

    What was released is set aside, for when the chunk is migrated again.
    """
    # A document that became good since the last rollback is no longer released.
    aside = {"run": None, "rolled_back": run, "chunk": chunk}
    ledger["quarantine"].delete_many(aside, session=session)
    there = {"run": run, "chunk": chunk}
    ledger["quarantine"].update_many(
        {**there, "released": {"$exists": True}},
        {"$rename": {"run": "rolled_back"}},
        session=session,
    )
    ledger["quarantine"].delete_many(there, session=session)


def released(ledger: Ledger, run: str, which: Which = ALL) -> int:
    """How many documents somebody has accepted to stay unsplit."""
    return ledger["quarantine"].count_documents({**which.query(run), "released": {"$exists": True}})
