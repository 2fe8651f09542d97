"""Waves in the ledger: which chunks were sent as one chord, and closing a wave exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import DESCENDING

from mongosplit.ledger.book import Ledger, now


@dataclass(frozen=True, slots=True)
class Wave:
    """The chunks sent to Celery as one chord."""

    run: str
    n: int
    chunks: tuple[int, ...]
    sent: datetime


def open_next(ledger: Ledger, run: str, chunks: Sequence[int]) -> Wave:
    """Enter the next wave before it is sent; only the driver that holds the lease calls this."""
    newest = ledger["waves"].find_one({"run": run}, sort=[("_id.n", DESCENDING)])
    n = 1 if newest is None else newest["_id"]["n"] + 1
    row: dict[str, Any] = {
        "_id": {"run": run, "n": n},
        "run": run,
        "chunks": list(chunks),
        "sent": now(),
        "state": "open",
    }
    ledger["waves"].insert_one(row)
    return _wave(row)


def close(ledger: Ledger, run: str, n: int, by: str) -> Wave | None:
    """Close the wave; the wave for whoever came first, None for everybody after."""
    row = ledger["waves"].find_one_and_update(
        {"_id": {"run": run, "n": n}, "state": "open"},
        {"$set": {"state": "closed", "closed": now(), "closed_by": by}},
    )
    return None if row is None else _wave(row)


def close_all(ledger: Ledger, run: str, by: str) -> None:
    """Close every open wave: what is pending in them goes out again in others."""
    closed = {"state": "closed", "closed": now(), "closed_by": by}
    ledger["waves"].update_many({"run": run, "state": "open"}, {"$set": closed})


def get(ledger: Ledger, run: str, n: int) -> Wave | None:
    """The wave of that number."""
    row = ledger["waves"].find_one({"_id": {"run": run, "n": n}})
    return None if row is None else _wave(row)


def open_waves(ledger: Ledger, run: str) -> list[Wave]:
    """The waves that are not closed yet, oldest first."""
    rows = ledger["waves"].find({"run": run, "state": "open"}).sort("_id.n", 1)
    return [_wave(row) for row in rows]


def count(ledger: Ledger, run: str) -> int:
    """How many waves the run has sent."""
    return ledger["waves"].count_documents({"run": run})


def _wave(row: dict[str, Any]) -> Wave:
    return Wave(row["run"], row["_id"]["n"], tuple(row["chunks"]), row["sent"])
