"""The follower: reads the change stream of a run's source and marks the ids dirty; nothing else.

Whole batches at a time: first the rows are durable, then the position moves. It can be killed
between any two instructions: what it forgot comes again, and marking twice is harmless. It never
reads what an event says of a document, and never writes a target.
"""

from __future__ import annotations

import logging
import time

from pymongo.errors import PyMongoError

from mongosplit.change_stream import Batch, ChangeStream, open_stream
from mongosplit.chunk_map import ChunkMap
from mongosplit.ledger import dirty, followers
from mongosplit.ledger.dirty import Mark
from mongosplit.mongo import is_transient
from mongosplit.open_run import OpenRun

SAVE_SECONDS = 0.5
"""How often the position is saved while nothing happens; saving it also moves time on."""

log = logging.getLogger(__name__)


class Follower:
    """Follows the source of one run, for as long as it is the run's follower."""

    def __init__(self, at: OpenRun, holder: str) -> None:
        self._at, self._holder = at, holder
        self._stream: ChangeStream | None = None
        self._map: ChunkMap | None = None
        self._saved = 0.0

    def step(self, milliseconds: int) -> int | None:
        """Wait so long for the next batch and mark it; the ids marked, None while another follows.

        Raises:
            HistoryLost: the oplog no longer reaches back. SourceGone: the source is another.
            PyMongoError: the server is away; the next step opens the stream again.
        """
        try:
            if self._stream is None and not self._open():
                return None
            assert self._stream is not None  # _open has made it
            assert self._map is not None
            self._map.refresh()
            batch = self._stream.read(milliseconds)
            return self._mark(batch, self._map)
        except BaseException:
            self.close()
            raise

    def _open(self) -> bool:
        at = self._at
        if not followers.take(at.ledger, at.run.id, self._holder):
            return False
        position = followers.get(at.ledger, at.run.id)
        assert position is not None  # it was taken just now
        self._map = self._map or ChunkMap(at)
        self._stream = open_stream(at.client, at.source, token=position.token, start=position.start)
        return True

    def _mark(self, batch: Batch, chunk_map: ChunkMap) -> int | None:
        at = self._at
        marks = [
            Mark(one.source_id, chunk_map.chunk_of(one.source_id), one.time) for one in batch.events
        ]
        marked = dirty.mark(at.ledger, at.run.id, marks)
        if marked or time.monotonic() - self._saved > SAVE_SECONDS:
            self._saved = time.monotonic()
            if not followers.reach(
                at.ledger,
                at.run.id,
                self._holder,
                token=batch.token,
                time=batch.time,
                events=len(batch.events),
            ):
                self.close()
                return None
        return marked

    def close(self) -> None:
        """Close the stream; the next step opens it where the ledger says."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def let_go(self) -> None:
        """Close the stream and make room for another follower."""
        self.close()
        try:
            followers.let_go(self._at.ledger, self._at.run.id, self._holder)
        except PyMongoError as error:
            if not is_transient(error):
                raise
            log.info("the lease on following %s runs out by itself", self._at.run.id)
