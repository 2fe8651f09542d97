"""Mismatches in the ledger: what a verification found, by id, field and kind, without values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne

from mongosplit import raw
from mongosplit.keyspace import EXACT_IDS
from mongosplit.ledger.book import Ledger, now
from mongosplit.raw import Value

KEPT = 1000
"""Of one chunk, how many mismatches are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One difference: whose, where, and whether it is missing, different or a ghost."""

    source_id: Value
    target: str
    field: str
    kind: str


def replace(ledger: Ledger, run: str, chunk: int, found: Sequence[Mismatch]) -> None:
    """Replace what the ledger lists for the chunk."""
    ledger["mismatches"].delete_many({"run": run, "chunk": chunk})
    # Replaced by position, since two verifications of one chunk may end at once.
    rows: list[Any] = []
    for position, mismatch in enumerate(found[:KEPT]):
        key = f"{run}:{chunk}:{position}"
        row = _row(key, run, chunk, mismatch)
        rows.append(ReplaceOne({"_id": key}, row, upsert=True))
    if rows:
        ledger["mismatches"].bulk_write(rows, ordered=False)


def _row(key: str, run: str, chunk: int, mismatch: Mismatch) -> RawBSONDocument:
    fields = [
        ("_id", raw.encode(key)),
        ("run", raw.encode(run)),
        ("chunk", raw.encode(chunk)),
        ("id", mismatch.source_id),
        ("target", raw.encode(mismatch.target)),
        ("field", raw.encode(mismatch.field)),
        ("kind", raw.encode(mismatch.kind)),
        ("at", raw.encode(now())),
    ]
    # The driver looks into a replacement, which may hold an _id that is not plain.
    return RawBSONDocument(raw.build(fields), EXACT_IDS)


def listed(ledger: Ledger, run: str, *, limit: int = 0) -> list[dict[str, Any]]:
    """The mismatches the ledger lists, as `id`, `target`, `field`, `kind`, `chunk`."""
    keep = {"_id": 0, "id": 1, "target": 1, "field": 1, "kind": 1, "chunk": 1}
    found = ledger["mismatches"].find({"run": run}, keep).sort([("chunk", 1), ("_id", 1)])
    return list(found.limit(limit))
