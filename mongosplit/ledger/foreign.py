"""Foreign in the ledger: documents of exclusive targets that somebody else wrote, by id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from mongosplit import raw
from mongosplit.ledger import audit
from mongosplit.ledger.book import Ledger, document_key
from mongosplit.raw import Value


@dataclass(frozen=True, slots=True)
class Foreign:
    """One write that was not ours: where, of what kind, to which document, when."""

    collection: str
    kind: str
    document_id: Value
    time: Timestamp


def note(ledger: Ledger, run: str, found: Iterable[Foreign]) -> None:
    """Enter these writes, one row for each document, and tell the audit by collection."""
    writes: list[UpdateOne] = []
    counts: dict[str, int] = {}
    for one in found:
        counts[one.collection] = counts.get(one.collection, 0) + 1
        key = f"{document_key(run, one.document_id)}:{one.collection}"
        at = datetime.fromtimestamp(one.time.time, UTC).replace(tzinfo=None)
        first = [("run", run), ("collection", one.collection), ("first", at)]
        fields = [(name, raw.encode(value)) for name, value in first]
        update = {
            "$setOnInsert": RawBSONDocument(raw.build([*fields, ("document_id", one.document_id)])),
            "$set": {"kind": one.kind, "last": at},
            "$inc": {"writes": 1},
        }
        writes.append(UpdateOne({"_id": key}, update, upsert=True))
    if not writes:
        return
    for collection, count in sorted(counts.items()):
        facts = {"collection": collection, "writes": count}
        audit.say(ledger, "foreign", actor="follower", run=run, facts=facts)
    ledger["foreign"].bulk_write(writes)


def by_collection(ledger: Ledger, run: str) -> list[dict[str, Any]]:
    """Of each collection: `collection`, `documents`, `writes`, `first`, `last`."""
    group = {
        "_id": "$collection",
        "documents": {"$sum": 1},
        "writes": {"$sum": "$writes"},
        "first": {"$min": "$first"},
        "last": {"$max": "$last"},
    }
    rows = ledger["foreign"].aggregate(
        [{"$match": {"run": run}}, {"$group": group}, {"$sort": {"_id": 1}}]
    )
    return [{"collection": row.pop("_id"), **row} for row in rows]


def listed(ledger: Ledger, run: str, *, limit: int) -> list[dict[str, Any]]:
    """The documents: `document_id`, `collection`, `kind`, `writes`, `first`, `last`."""
    names = ("document_id", "collection", "kind", "writes", "first", "last")
    keep = {"_id": 0, **dict.fromkeys(names, 1)}
    return list(ledger["foreign"].find({"run": run}, keep).sort("first", 1).limit(limit))
