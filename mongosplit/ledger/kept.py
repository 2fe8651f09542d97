"""Kept in the ledger: documents saved before something takes them that the source cannot give back.

Reason `adopted`: the pre-image of a document of the application that became a user's part. Reason
`changed`: what stood in a target, was not what the source derives to, and was rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.keyspace import Range
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import Chunk
from mongosplit.mongo import Data, Session, among, by_id, raw_documents
from mongosplit.raw import Value


@dataclass(frozen=True, slots=True)
class Adoption:
    """A document of the application that becomes a user's part: where, its pre-image, whose."""

    collection: str
    owner: str
    document_id: Value
    before: bytes
    source_id: Value

    def after(self) -> bytes:
        """The document as adopting it left it: `$set` overwrites in place, or adds at the end."""
        fields = dict(raw.elements(self.before))
        return raw.build({**fields, self.owner: self.source_id}.items())

    def release(self) -> dict[str, Any]:
        """The update that makes the owner what it was before."""
        before = raw.field(self.before, self.owner)
        if before is None:
            return {"$unset": {self.owner: ""}}
        return {"$set": RawBSONDocument(raw.build([(self.owner, before)]))}


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that is saved: where it stood, its id, and all of it."""

    collection: str
    document_id: Value
    document: bytes


def adopt(data: Data, session: Session, adoption: Adoption) -> None:
    """Make the application's document the user's part: its owner is set, its own values stand."""
    owner = raw.build([(adoption.owner, adoption.source_id)])
    data[adoption.collection].update_one(
        by_id(adoption.document_id), {"$set": RawBSONDocument(owner)}, session=session
    )


def keep_adopted(
    ledger: Ledger, session: Session, run: str, chunk: int, adoptions: Sequence[Adoption]
) -> None:
    """Save the pre-images of adopted documents, in the chunk's own transaction."""
    rows = [
        _row(
            _adoption_key(run, adoption),
            {
                "run": run,
                "chunk": chunk,
                "collection": adoption.collection,
                "reason": "adopted",
                "owner": adoption.owner,
            },
            adoption.document_id,
            adoption.before,
            source_id=adoption.source_id,
        )
        for adoption in adoptions
    ]
    if rows:
        ledger["kept"].insert_many(rows, session=session)


def adoptions(
    ledger: Ledger, run: str, chunk: int, *, session: Session | None = None
) -> Iterator[Adoption]:
    """The documents that the chunk has adopted, with their pre-images."""
    yield from _adoptions(ledger, {"run": run, "chunk": chunk, "reason": "adopted"}, session)


def adoptions_of(
    ledger: Ledger, run: str, chunks: Sequence[int], ids: Iterable[Value], session: Session
) -> list[Adoption]:
    """The documents that were adopted for these users, who are in these chunks."""
    of_chunks = {"run": run, "chunk": {"$in": list(chunks)}, "reason": "adopted"}
    return list(_adoptions(ledger, {"$and": [of_chunks, among("source_id", ids)]}, session))


def _adoptions(
    ledger: Ledger, query: dict[str, Any], session: Session | None
) -> Iterator[Adoption]:
    found = ledger["kept"].find_raw_batches(query, session=session)
    for row in raw_documents(found):
        fields = dict(raw.elements(row))
        yield Adoption(
            fields["collection"].decode(),
            fields["owner"].decode(),
            fields["document_id"],
            fields["document"].data,
            fields["source_id"],
        )


def forget_adoptions(ledger: Ledger, session: Session, run: str, chunk: int) -> None:
    """Take the pre-images away once the documents have them back."""
    query = {"run": run, "chunk": chunk, "reason": "adopted"}
    ledger["kept"].delete_many(query, session=session)


def hand_over(ledger: Ledger, session: Session, run: str, chunk: int, to: int, part: Range) -> int:
    """Give the adoptions of users in a range to another chunk; how many."""
    adopted = {"run": run, "chunk": chunk, "reason": "adopted"}
    query = {"$and": [adopted, part.query("source_id")]}
    changed = ledger["kept"].update_many(query, {"$set": {"chunk": to}}, session=session)
    return changed.modified_count


def forget_adoption(ledger: Ledger, session: Session, run: str, adoption: Adoption) -> None:
    """Take one pre-image away: its document has it back."""
    ledger["kept"].delete_one({"_id": _adoption_key(run, adoption)}, session=session)


def _adoption_key(run: str, adoption: Adoption) -> str:
    return f"{run}:{adoption.collection}:{adoption.document_id.digest}"


def save(ledger: Ledger, session: Session, chunk: Chunk, found: Sequence[Kept]) -> None:
    """Save documents that a rollback takes out, in the chunk's own transaction."""
    facts = {"run": chunk.run, "chunk": chunk.n, "reason": "changed"}
    # One document may be kept at each of several rollbacks, and each takes the fence once.
    rows = [
        _row(
            f"{chunk.run}:{kept.collection}:{kept.document_id.digest}:{chunk.fence}",
            {**facts, "collection": kept.collection},
            kept.document_id,
            kept.document,
        )
        for kept in found
    ]
    if rows:
        ledger["kept"].insert_many(rows, ordered=False, session=session)


def listed(
    ledger: Ledger, run: str, *, reason: str | None = "changed", limit: int
) -> list[dict[str, Any]]:
    """The documents kept, without their values: `document_id`, `collection`, `chunk`, `at`.

    Of every reason when `reason` is None.
    """
    names = ("document_id", "collection", "chunk", "reason", "at")
    keep = {"_id": 0, **dict.fromkeys(names, 1)}
    query = {"run": run} if reason is None else {"run": run, "reason": reason}
    found = ledger["kept"].find(query, keep)
    return list(found.sort([("chunk", 1), ("_id", 1)]).limit(limit))


def by_reason(ledger: Ledger, run: str) -> list[dict[str, Any]]:
    """The documents kept by reason: `reason`, `count`."""
    group = {"$group": {"_id": "$reason", "count": {"$sum": 1}}}
    rows = ledger["kept"].aggregate([{"$match": {"run": run}}, group, {"$sort": {"_id": 1}}])
    return [{"reason": row["_id"], "count": row["count"]} for row in rows]


def exported(ledger: Ledger, run: str) -> Iterator[dict[str, Value]]:
    """The documents kept, whole and as they are stored, by chunk, one after the other."""
    found = ledger["kept"].find_raw_batches({"run": run}, {"_id": 0}, sort=[("chunk", 1)])
    for row in raw_documents(found):
        yield dict(raw.elements(row))


def count(ledger: Ledger, run: str, *, reason: str = "changed") -> int:
    """How many documents are kept."""
    return ledger["kept"].count_documents({"run": run, "reason": reason})


def _row(
    key: str,
    facts: dict[str, Any],
    document_id: Value,
    document: bytes,
    *,
    source_id: Value | None = None,
) -> Any:
    fields = [("_id", raw.encode(key))]
    fields += [(name, raw.encode(value)) for name, value in facts.items()]
    fields.append(("document_id", document_id))
    if source_id is not None:
        fields.append(("source_id", source_id))
    fields += [("at", raw.encode(now())), ("document", Value(3, document))]
    return RawBSONDocument(raw.build(fields))
