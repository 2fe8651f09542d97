"""Sub-batches: how many parts go into one insert, by bytes and by how long the last ones took.

A chunk is one transaction however many inserts it takes. Shorter ones let others in between, and
keep within what one message should carry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

MOST_BYTES = 8_000_000
FEWEST = 50
"""Below so many documents the round trip costs more than what is gained by cutting."""


@dataclass
class SubBatches:
    """What one process has learned of one target: documents a second, the last ones counting most.

    `target` is the time in seconds that one insert is to take at most.
    """

    target: float
    clock: Callable[[], float] = time.monotonic
    _speed: float | None = field(default=None, init=False)

    def insert(self, documents: Sequence[bytes], insert: Callable[[Sequence[bytes]], None]) -> int:
        """Insert the documents in sub-batches, in order; how many there were."""
        count = 0
        for batch in self._cut(documents):
            began = self.clock()
            insert(batch)
            self._learn(len(batch), self.clock() - began)
            count += 1
        return count

    def _cut(self, documents: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        start = 0
        while start < len(documents):
            stop = self._stop(documents, start)
            yield documents[start:stop]
            start = stop

    def _stop(self, documents: Sequence[bytes], start: int) -> int:
        """Where the sub-batch ends that begins at `start`: at least one document behind it."""
        most = len(documents) if self._speed is None else int(self._speed * self.target)
        last = min(len(documents), start + max(FEWEST, most))
        size = 0
        for position in range(start, last):
            size += len(documents[position])
            if size > MOST_BYTES and position > start:
                return position
        return last

    def _learn(self, count: int, seconds: float) -> None:
        if seconds <= 0:
            return
        speed = count / seconds
        self._speed = speed if self._speed is None else (self._speed + speed) / 2
