"""What the driver sees and remembers: a look at the ledger, rates, chunks in nobody's hands."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from mongosplit.model import ChunkState, Run

LOST_SECONDS = 3.0
"""How long a chunk must be in nobody's hands before its message counts as lost."""
SENT_AGAIN_AT_ONCE = 500
"""Bounded, or a false alarm would double a long queue."""
RATE_SECONDS = 10.0


@dataclass(frozen=True)
class Tick:
    """What one look at the ledger showed."""

    run: Run
    totals: dict[str, dict[str, int]]
    rate: float
    queued: int
    to_undo: int = 0
    obstacle: str = ""
    selected: dict[str, dict[str, int]] | None = None
    pace: str = "no limit"

    @property
    def shown(self) -> dict[str, dict[str, int]]:
        """The sums of what was selected; of all chunks where no part was."""
        return self.totals if self.selected is None else self.selected

    @property
    def unit(self) -> str:
        """What the source calls its documents: the name of the collection."""
        return self.run.source.partition(".")[2]

    def chunks(self, *states: ChunkState) -> int:
        """How many of the chunks shown are in one of these states."""
        return sum(self.shown.get(state.value, {}).get("chunks", 0) for state in states)

    def sum(self, fact: str) -> int:
        """A fact summed over the chunks shown."""
        return sum(row[fact] for row in self.shown.values())

    @property
    def total(self) -> int:
        """How many chunks are shown."""
        return sum(row["chunks"] for row in self.shown.values())

    @property
    def eta_seconds(self) -> float | None:
        """When the rest will be migrated at the present rate; None while there is none."""
        left = self.shown.get(ChunkState.PENDING.value, {}).get("planned", 0)
        if not left:
            return 0.0
        return left / self.rate if self.rate > 0 else None


@dataclass
class LossWatch:
    """Notices outstanding chunks that are in nobody's hands for a while."""

    since: float | None = None

    def lost(self, outstanding: set[int], carried: set[int], queued: int) -> list[int]:
        """The chunks to send again; the queue may hold any of those that nobody carries."""
        loose = outstanding - carried
        if len(loose) <= queued:
            self.since = None
            return []
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since < LOST_SECONDS:
            return []
        self.since = None
        return sorted(loose)[:SENT_AGAIN_AT_ONCE]


@dataclass
class Eyes:
    """What the driver remembers from tick to tick; losing it costs seconds, never truth."""

    migrate: LossWatch = field(default_factory=LossWatch)
    verify: LossWatch = field(default_factory=LossWatch)
    rollback: LossWatch = field(default_factory=LossWatch)
    finished: dict[int, float] = field(default_factory=dict)
    tail_sent: bool = False
    told_rate: set[str] = field(default_factory=set)
    to_undo_sent: set[int] = field(default_factory=set)
    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def rate(self, docs: int) -> float:
        """Documents per second over the last seconds; negative while they become fewer."""
        moment = time.monotonic()
        self.seen.append((moment, docs))
        while moment - self.seen[0][0] > RATE_SECONDS:
            self.seen.popleft()
        first, before = self.seen[0]
        return (docs - before) / (moment - first) if moment > first else 0.0
