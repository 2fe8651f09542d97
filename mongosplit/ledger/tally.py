"""Tallies of a run's chunks, read off the ledger: sums by state, spans, failures."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from mongosplit.keyspace import Range
from mongosplit.ledger.book import Ledger, now
from mongosplit.ledger.chunks import IS_APPLIED, from_row
from mongosplit.model import Chunk, ChunkState

RECENT = 100
"""Of how many chunks at most the median is taken."""

UNWELL: dict[str, Any] = {
    "$or": [
        {"state": ChunkState.FAILED.value},
        *({name: {"$ne": None}} for name in ("error", "check_error", "undo_error")),
    ]
}
"""The query for chunks with which something was tried and did not work."""


def totals(
    ledger: Ledger, run: str, query: dict[str, Any] | None = None
) -> dict[str, dict[str, int]]:
    """Of all chunks, or of those a query finds, the sums by state.

    Chunks, documents planned, migrated, quarantined, adopted, mismatches;
    `independent` is how many chunks were last verified through the Python reference.
    """
    sums = ("planned", "docs", "quarantined", "adopted", "mismatches")
    group: dict[str, Any] = {"_id": "$state", "chunks": {"$sum": 1}}
    group |= {name: {"$sum": f"${name}"} for name in sums}
    group["independent"] = {"$sum": {"$cond": ["$independent", 1, 0]}}
    matched = {"$match": {"$and": [{"run": run}, query or {}]}}
    rows = ledger["chunks"].aggregate([matched, {"$group": group}])
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


def docs(ledger: Ledger, run: str, query: dict[str, Any]) -> int:
    """How many source documents the chunks hold that a query finds."""
    matched = {"$match": {"$and": [{"run": run}, query]}}
    rows = ledger["chunks"].aggregate(
        [matched, {"$group": {"_id": None, "docs": {"$sum": "$docs"}}}]
    )
    return sum(row["docs"] for row in rows)


def recent_milliseconds(ledger: Ledger, run: str, within: timedelta) -> int | None:
    """The median of what chunks took that were migrated within the last while, None without any."""
    since = {"run": run, "finished": {"$gte": now() - within}, **IS_APPLIED}
    rows = ledger["chunks"].find(since, {"milliseconds": 1}).sort("finished", -1).limit(RECENT)
    took = sorted(row["milliseconds"] for row in rows)
    return took[len(took) // 2] if took else None


def failures(
    ledger: Ledger, run: str, query: dict[str, Any] = UNWELL, *, limit: int = 5
) -> list[Chunk]:
    """The first chunks with which something did not work, with their errors."""
    found = ledger["chunks"].find({"$and": [{"run": run}, query]})
    return [from_row(row) for row in found.sort("n", 1).limit(limit)]


def spans(ledger: Ledger, run: str, query: dict[str, Any]) -> list[tuple[int, int]]:
    """The chunks that a query finds, as spans of neighbouring numbers (first, last)."""
    rows = ledger["chunks"].aggregate(
        [
            {"$match": {"$and": [{"run": run}, query]}},
            {"$setWindowFields": {"sortBy": {"n": 1}, "output": {"i": {"$documentNumber": {}}}}},
            {
                "$group": {
                    "_id": {"$subtract": ["$n", "$i"]},
                    "first": {"$min": "$n"},
                    "last": {"$max": "$n"},
                }
            },
            {"$sort": {"first": 1}},
        ],
        allowDiskUse=True,
    )
    return [(row["first"], row["last"]) for row in rows]


def span_words(spans: list[tuple[int, int]], *, most: int = 20) -> str:
    """Spans as an operator types them: `1-20,37`; the rest is counted when there are too many."""
    said = [f"{first}-{last}" if last > first else str(first) for first, last in spans[:most]]
    more = len(spans) - most
    return ",".join(said) + (f" and {more:,} more" if more > 0 else "")


def joined(
    ledger: Ledger, run: str, query: dict[str, Any], *, limit: int
) -> list[tuple[list[int], Range]]:
    """The chunks that a query finds, joined where their ranges meet: numbers, whole range."""
    rows = ledger["chunks"].find({"$and": [{"run": run}, query]}, {"n": 1, "ranges": 1})
    parts = sorted(
        ((Range.from_document(part), row["n"]) for row in rows for part in row["ranges"]),
        key=lambda found: found[0].start,
    )
    found: list[tuple[list[int], Range]] = []
    for part, n in parts:
        last = found[-1][1] if found else None
        if last is not None and last.bracket is part.bracket and last.end == part.start:
            found[-1] = ([*found[-1][0], n], replace(last, hi=part.hi, upto=part.upto))
        else:
            found.append(([n], part))
    return found[:limit]
