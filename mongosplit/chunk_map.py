"""Which chunk an id is in, as the ledger has it now; chunks may be divided while a run lives."""

from __future__ import annotations

import time

import bson

from mongosplit import raw
from mongosplit.keyspace import EXACT_IDS
from mongosplit.ledger import chunks
from mongosplit.open_run import OpenRun
from mongosplit.plan import KeyMap
from mongosplit.raw import Value

LOOK_SECONDS = 2.0
"""How often it is looked whether chunks were divided."""


class ChunkMap:
    """Which chunk an id is in, as the ledger has it now."""

    def __init__(self, at: OpenRun) -> None:
        self._at = at
        self._count = 0
        self._looked = 0.0
        self._load()

    def _load(self) -> None:
        rows = chunks.ranges(self._at.ledger, self._at.run.id)
        self._count, self._map = len(rows), KeyMap(rows)
        self._looked = time.monotonic()

    def refresh(self) -> None:
        """Read it again if chunks were divided since; a sync puts right what is stale meanwhile."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        if chunks.count(self._at.ledger, self._at.run.id) != self._count:
            self._load()

    def chunk_of(self, source_id: Value) -> int:
        """The number of the chunk that an id is in."""
        return self._map.chunk_of(decoded(source_id))


def decoded(source_id: Value) -> object:
    """An `_id` as the ranges of chunks compare it."""
    return bson.decode(raw.build([("", source_id)]), EXACT_IDS)[""]
