"""Quarantine and kept in the ledger: documents that cannot be split, and pre-images saved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.errors import DocumentError
from mongosplit.ledger.book import Ledger, now
from mongosplit.mongo import Data, Session, raw_documents
from mongosplit.raw import Value


@dataclass(frozen=True, slots=True)
class Bad:
    """A source document out of the way: its id and why."""

    source_id: Value
    error: DocumentError


@dataclass(frozen=True, slots=True)
class Adoption:
    """A document of the application that becomes a user's part: where, its pre-image, whose."""

    collection: str
    owner: str
    document_id: Value
    before: bytes
    source_id: Value


def replace(
    ledger: Ledger, session: Session, run: str, chunk: int, bad: Sequence[Bad], attempts: int
) -> None:
    """Make these documents the chunk's quarantine, in the chunk's own transaction."""
    ledger["quarantine"].delete_many({"run": run, "chunk": chunk}, session=session)
    if bad:
        rows = [_quarantine_row(run, chunk, found, attempts) for found in bad]
        ledger["quarantine"].insert_many(rows, ordered=False, session=session)


def _quarantine_row(run: str, chunk: int, bad: Bad, attempts: int) -> Any:
    digest = hashlib.sha256(bytes((bad.source_id.kind,)) + bad.source_id.data).hexdigest()
    facts = {
        "run": run,
        "chunk": chunk,
        "reason": bad.error.reason,
        "target": bad.error.target,
        "path": bad.error.path,
        "message": str(bad.error),
        "attempts": attempts,
        "at": now(),
    }
    fields = [("_id", raw.encode(f"{run}:{digest[:40]}")), ("source_id", bad.source_id)]
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


def adopt(data: Data, session: Session, adoption: Adoption) -> None:
    """Make the application's document the user's part: its owner is set, its own values stand."""
    filter_ = raw.build([("_id", adoption.document_id)])
    owner = raw.build([(adoption.owner, adoption.source_id)])
    data[adoption.collection].update_one(
        RawBSONDocument(filter_), {"$set": RawBSONDocument(owner)}, session=session
    )


def listed(ledger: Ledger, run: str, *, limit: int) -> list[dict[str, Any]]:
    """The documents in quarantine: `source_id`, `chunk`, `reason`, `path`, `message`, `target`."""
    names = ("source_id", "chunk", "reason", "path", "message", "target", "attempts", "at")
    keep = {"_id": 0, **dict.fromkeys(names, 1)}
    found = ledger["quarantine"].find({"run": run}, keep).sort([("chunk", 1), ("_id", 1)])
    return list(found.limit(limit))


def keep_adopted(
    ledger: Ledger, session: Session, run: str, chunk: int, adoptions: Sequence[Adoption]
) -> None:
    """Save the pre-images of adopted documents, in the chunk's own transaction."""
    if adoptions:
        rows = [_kept_row(run, chunk, adoption) for adoption in adoptions]
        ledger["kept"].insert_many(rows, session=session)


def _kept_row(run: str, chunk: int, adoption: Adoption) -> Any:
    facts = {"run": run, "chunk": chunk, "collection": adoption.collection, "reason": "adopted"}
    fields = [(name, raw.encode(value)) for name, value in facts.items()]
    fields += [
        ("document_id", adoption.document_id),
        ("source_id", adoption.source_id),
        ("at", raw.encode(now())),
        ("document", Value(3, adoption.before)),
    ]
    return RawBSONDocument(raw.build([("_id", raw.encode(_kept_id(run, adoption))), *fields]))


def _kept_id(run: str, adoption: Adoption) -> str:
    where = adoption.document_id
    digest = hashlib.sha256(bytes((where.kind,)) + where.data).hexdigest()
    return f"{run}:{adoption.collection}:{digest[:40]}"


def adopted(
    ledger: Ledger, run: str, chunk: int, *, session: Session | None = None
) -> Iterator[tuple[str, Value, Value]]:
    """The chunk's adoptions: collection, id of the document, id of the user."""
    found = ledger["kept"].find_raw_batches(
        {"run": run, "chunk": chunk, "reason": "adopted"}, session=session
    )
    for row in raw_documents(found):
        fields = dict(raw.elements(row))
        yield fields["collection"].decode(), fields["document_id"], fields["source_id"]
