"""Repair: users of a chunk in whom something differs are derived again, under the fence."""

from __future__ import annotations

from mongosplit.chunk_map import ChunkMap
from mongosplit.ledger import dirty
from mongosplit.ledger.dirty import Mark
from mongosplit.model import APPLIED
from mongosplit.mongo import explained_chunk
from mongosplit.open_run import OpenRun
from mongosplit.verify import differing


def mark_differing(at: OpenRun, n: int) -> int:
    """Mark the users dirty in whom something differs now; how many. None of a chunk not applied.

    A mark is derived by the next sync. What stands there and is not derived is saved to `kept`.
    """
    with explained_chunk(at.run.id, n):
        seen = differing(at, n)
        if seen.chunk.state not in APPLIED:
            return 0
        chunk_map = ChunkMap(at)
        marks = [Mark(one, chunk_map.chunk_of(one), repair=True) for one in seen.ids]
        return dirty.mark(at.ledger, at.run.id, marks)
