"""The chunk map of the dashboard: a letter for each chunk, in short, and what changes in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from mongosplit.ledger.book import Ledger
from mongosplit.model import ChunkState, Run
from producer.status import RATE_SECONDS

LETTERS: dict[ChunkState, str] = {
    ChunkState.PENDING: "p",
    ChunkState.MIGRATED: "m",
    ChunkState.VERIFIED: "v",
    ChunkState.FAILED: "f",
    ChunkState.ROLLED_BACK: "r",
}
CLAIMED = "c"
MISMATCHES = "x"
NONE = "-"
"""There is no chunk of that number."""
WORKS = ("migrate", "verify", "rollback")
SUMS = ("planned", "docs", "quarantined", "adopted", "mismatches")
ERRORS = ("error", "check_error", "undo_error")

MOST_CHANGES = 5000
"""Above so many spans that have changed, the whole map is as short."""
_BLOCK = 512


@dataclass(frozen=True)
class Chunks:
    """All chunks of a run at one moment.

    `totals` are the sums by state, each with its number of `chunks`; `marked` is how many chunks
    are claimed, hold documents in quarantine or have mismatches. `cells` has a letter for each
    chunk by number, upper case for one with documents in quarantine. `recent` is how many
    documents were migrated in the last `RATE_SECONDS`, `unwell` how many chunks have an error.
    """

    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    marked: dict[str, int] = field(default_factory=dict)
    cells: str = ""
    recent: int = 0
    unwell: int = 0


def letter(state: str, *, quarantined: bool, mismatches: bool) -> str:
    """The letter of a chunk that nobody has claimed."""
    found = MISMATCHES if mismatches else LETTERS[ChunkState(state)]
    return found.upper() if quarantined else found


def read(ledger: Ledger, run: Run, moment: datetime) -> Chunks:
    """All chunks of the run, by one pass over their rows, and the claims on them."""
    rows = [*ledger["chunks"].aggregate(_pipeline(run.id, moment))]
    totals: dict[str, dict[str, int]] = {}
    numbered: list[tuple[str, list[int]]] = []
    for row in rows:
        kind = row["_id"]
        sums = totals.setdefault(kind["state"], dict.fromkeys(("chunks", "independent", *SUMS), 0))
        for name in sums:
            sums[name] += row[name]
        numbered.append((letter(**kind), row["numbers"]))
    claimed = _claimed(ledger, run)
    marked = {
        "claimed": len(claimed),
        "quarantined": sum(row["chunks"] for row in rows if row["_id"]["quarantined"]),
        "mismatches": sum(row["chunks"] for row in rows if row["_id"]["mismatches"]),
    }
    cells = draw([*numbered, (CLAIMED, claimed)])
    recent, unwell = (sum(row[name] for row in rows) for name in ("recent", "unwell"))
    return Chunks(totals, marked, cells, recent, unwell)


def _pipeline(run: str, moment: datetime) -> list[dict[str, Any]]:
    since = moment - timedelta(seconds=RATE_SECONDS)
    kind = {name: {"$gt": [f"${name}", 0]} for name in ("quarantined", "mismatches")}
    unwell = {"$or": [{"$gt": [f"${name}", None]} for name in ERRORS]}
    group: dict[str, Any] = {
        "_id": {"state": "$state", **kind},
        "chunks": {"$sum": 1},
        "numbers": {"$push": "$n"},
        "recent": {"$sum": {"$cond": [{"$gte": ["$finished", since]}, "$docs", 0]}},
        **{name: {"$sum": f"${name}"} for name in SUMS},
        "independent": {"$sum": {"$cond": ["$independent", 1, 0]}},
        "unwell": {"$sum": {"$cond": [unwell, 1, 0]}},
    }
    return [{"$match": {"run": run}}, {"$group": group}]


def _claimed(ledger: Ledger, run: Run) -> list[int]:
    if run.finished or run.started is None:
        return []
    held = {"run": run.id, "work": {"$in": [*WORKS]}, "holders.0": {"$exists": True}}
    return sorted({row["_id"]["n"] for row in ledger["claims"].find(held, {"_id": 1})})


def draw(numbered: Iterable[tuple[str, Iterable[int]]]) -> str:
    """The map: the letter of chunk 1, of chunk 2, and so on; of several letters the last."""
    given = [(letter_, [*numbers]) for letter_, numbers in numbered]
    cells = bytearray(NONE.encode() * max((n for _, numbers in given for n in numbers), default=0))
    for letter_, numbers in given:
        code = ord(letter_)
        for n in numbers:
            cells[n - 1] = code
    return cells.decode()


@lru_cache(maxsize=8)
def run_length(cells: str) -> str:
    """The map in short: `12pm3v` are twelve pending chunks, a migrated and three verified ones."""
    return re.sub(r"(.)\1+", lambda same: f"{len(same[0])}{same[1]}", cells)


@lru_cache(maxsize=8)
def changes(before: str, after: str) -> tuple[tuple[int, str, int], ...] | None:
    """What has changed, as spans: number of the first chunk, letter, how many.

    None where the whole map is to be sent: chunks came or went, or too many have changed.
    """
    if len(before) != len(after):
        return None
    found: list[tuple[int, str, int]] = []
    for start in range(0, len(after), _BLOCK):
        was, is_ = before[start : start + _BLOCK], after[start : start + _BLOCK]
        if was != is_:
            for n, (old, new) in enumerate(zip(was, is_, strict=True), start + 1):
                if old != new:
                    _add(found, n, new)
    return tuple(found) if len(found) <= MOST_CHANGES else None


def _add(found: list[tuple[int, str, int]], n: int, letter_: str) -> None:
    if found:
        first, last_letter, count = found[-1]
        if last_letter == letter_ and first + count == n:
            found[-1] = (first, letter_, count + 1)
            return
    found.append((n, letter_, 1))


def one(ledger: Ledger, run: str, n: int) -> dict[str, Any] | None:
    """What is known of one chunk, none of it from its documents; None where there is none."""
    keep = dict.fromkeys(("state", "attempts", "docs", "planned", "quarantined", "mismatches"), 1)
    keep |= dict.fromkeys(("tail", "milliseconds", "finished", "error", "undo_error"), 1)
    row = ledger["chunks"].find_one({"run": run, "n": n}, {**keep, "check_error": 1, "_id": 0})
    if row is None:
        return None
    works = {"_id": {"$in": [{"work": work, "run": run, "n": n} for work in WORKS]}}
    claims = [*ledger["claims"].find(works, {"attempts": 1, "holders.worker": 1})]
    error = row.get("error") or row.get("undo_error") or row.get("check_error") or {}
    finished = row.get("finished")
    return {
        "n": n,
        "state": row["state"],
        "tail": row.get("tail", False),
        "planned": row["planned"],
        "documents": row.get("docs", 0),
        "quarantined": row.get("quarantined", 0),
        "mismatches": row.get("mismatches", 0),
        "attempts": max([row.get("attempts", 0), *(claim["attempts"] for claim in claims)]),
        "milliseconds": row.get("milliseconds"),
        "finished": f"{finished:%Y-%m-%dT%H:%M:%SZ}" if finished else None,
        "claimed_by": [held["worker"] for claim in claims for held in claim.get("holders", ())],
        "error": error.get("sentence"),
    }
