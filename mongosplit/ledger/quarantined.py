"""Single documents in quarantine: put in, taken out, handed over, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.keyspace import Range
from mongosplit.ledger import quarantine
from mongosplit.ledger.book import Ledger, document_key
from mongosplit.ledger.quarantine import Bad
from mongosplit.mongo import Session, raw_documents
from mongosplit.raw import Value


def settle(
    ledger: Ledger, session: Session, run: str, ids: Iterable[Value], bad: Sequence[tuple[int, Bad]]
) -> None:
    """Of these documents put the bad ones into quarantine, by chunk, and take the others out."""
    keys = [document_key(run, source_id) for source_id in ids]
    released = quarantine.releases(ledger, session, keys)
    ledger["quarantine"].delete_many({"_id": {"$in": keys}}, session=session)
    rows = []
    for chunk, found in bad:
        key = document_key(run, found.source_id)
        rows.append(quarantine.row_of(key, run, chunk, found, 1, released.get(key)))
    if rows:
        ledger["quarantine"].insert_many(rows, ordered=False, session=session)


def held_among(ledger: Ledger, session: Session, run: str, ids: Iterable[Value]) -> set[Value]:
    """Which of these documents are in quarantine."""
    keys = {document_key(run, source_id): source_id for source_id in ids}
    query = {"_id": {"$in": list(keys)}, "run": run}
    found = ledger["quarantine"].find(query, {"_id": 1}, session=session)
    return {keys[row["_id"]] for row in found}


def hand_over(ledger: Ledger, session: Session, run: str, chunk: int, to: int, part: Range) -> int:
    """Give the quarantined documents of a range to another chunk; how many."""
    query = {"$and": [{"run": run, "chunk": chunk}, part.query("source_id")]}
    changed = ledger["quarantine"].update_many(query, {"$set": {"chunk": to}}, session=session)
    return changed.modified_count


def waiting(
    ledger: Ledger, session: Session, run: str, freed: dict[str, Any] | RawBSONDocument
) -> list[tuple[Value, int]]:
    """Who is in quarantine for a unique key that users have whom the query on `held_by` finds.

    Their ids, and their chunks.
    """
    query: Any = {"$and": [{"run": run, "held_by": {"$exists": True}}, freed]}
    found = ledger["quarantine"].find_raw_batches(
        query, {"source_id": 1, "chunk": 1}, session=session
    )
    rows = [dict(raw.elements(row)) for row in raw_documents(found)]
    return [(fields["source_id"], fields["chunk"].decode()) for fields in rows]
