"""Plans in the ledger: the chunks of a run, entered once and taken out when it is planned again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mongosplit.ledger.book import Ledger, chunk_key
from mongosplit.model import Chunk, ChunkState
from mongosplit.mongo import Session
from mongosplit.plan import PlannedChunk

_ROWS_AT_ONCE = 1000


def write_plan(ledger: Ledger, run: str, planned: Iterable[PlannedChunk]) -> dict[str, int]:
    """Enter the chunks of a plan; returns how many chunks and documents there are.

    The tail chunk begins migrated and empty: everything in it is yet to be inserted.
    """
    chunks = docs = 0
    rows: list[dict[str, Any]] = []
    for chunk in planned:
        rows.append(_row(run, chunk))
        chunks, docs = chunks + 1, docs + chunk.docs
        if len(rows) == _ROWS_AT_ONCE:
            ledger["chunks"].insert_many(rows, ordered=False)
            rows = []
    if rows:
        ledger["chunks"].insert_many(rows, ordered=False)
    return {"chunks": chunks, "docs": docs}


def divide(
    ledger: Ledger,
    session: Session,
    chunk: Chunk,
    number: int,
    keeps: PlannedChunk,
    gets: PlannedChunk,
) -> None:
    """Let a chunk whose fence this transaction has taken keep a part; enter the rest."""
    ranges = [found.to_document() for found in keeps.ranges]
    # Whoever has compared the whole chunk must not record it for what is left of it.
    change = {"$set": {"ranges": ranges, "planned": keeps.docs}, "$inc": {"written": 1}}
    ledger["chunks"].update_one({"_id": chunk_key(chunk.run, chunk.n)}, change, session=session)
    row = _row(chunk.run, replace(gets, n=number))
    row |= {"state": chunk.state.value, "divided_from": chunk.n}
    ledger["chunks"].insert_one(row, session=session)


def set_planned(ledger: Ledger, session: Session, chunk: Chunk, docs: int) -> None:
    """Say how many documents a chunk is taken to have, where that is no longer what was planned."""
    key = {"_id": chunk_key(chunk.run, chunk.n)}
    ledger["chunks"].update_one(key, {"$set": {"planned": docs}}, session=session)


def discard_plan(ledger: Ledger, run: str) -> None:
    """Take the chunks of a run in planning out again."""
    ledger["chunks"].delete_many({"run": run})


def _row(run: str, chunk: PlannedChunk) -> dict[str, Any]:
    state = ChunkState.MIGRATED if chunk.tail else ChunkState.PENDING
    row: dict[str, Any] = {
        "_id": chunk_key(run, chunk.n),
        "run": run,
        "n": chunk.n,
        "ranges": [found.to_document() for found in chunk.ranges],
        "state": state.value,
        "fence": 0,
        "written": 0,
        "planned": chunk.docs,
    }
    return {**row, "tail": True} if chunk.tail else row
