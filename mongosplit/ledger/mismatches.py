"""Mismatches in the ledger: what a verification found, by id, field and kind, without values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne

from mongosplit import raw
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
    rows = [
        RawBSONDocument(
            raw.build(
                [
                    ("_id", raw.encode(f"{run}:{chunk}:{position}")),
                    ("run", raw.encode(run)),
                    ("chunk", raw.encode(chunk)),
                    ("id", mismatch.source_id),
                    ("target", raw.encode(mismatch.target)),
                    ("field", raw.encode(mismatch.field)),
                    ("kind", raw.encode(mismatch.kind)),
                    ("at", raw.encode(now())),
                ]
            )
        )
        for position, mismatch in enumerate(found[:KEPT])
    ]
    if rows:
        # Replaced by position, since two verifications of one chunk may end at once.
        whole: list[Any] = [ReplaceOne({"_id": row["_id"]}, row, upsert=True) for row in rows]
        ledger["mismatches"].bulk_write(whole, ordered=False)


def listed(ledger: Ledger, run: str, *, limit: int = 0) -> list[dict[str, Any]]:
    """The mismatches the ledger lists, as `id`, `target`, `field`, `kind`, `chunk`."""
    keep = {"_id": 0, "id": 1, "target": 1, "field": 1, "kind": 1, "chunk": 1}
    return list(ledger["mismatches"].find({"run": run}, keep).sort("_id", 1).limit(limit))
