"""The words of the ledger: states, the arrows between them, and what runs and chunks are."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from mongosplit.keyspace import Range


class RunState(StrEnum):
    """Where a run is. Asked and done are different states."""

    PLANNING = "planning"
    PLANNED = "planned"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    MIGRATED = "migrated"
    VERIFIED = "verified"
    CUT_OVER = "cut_over"
    FINALIZED = "finalized"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


FINISHED = frozenset({RunState.FINALIZED, RunState.ROLLED_BACK, RunState.CANCELLED})
"""A run in one of these states is over; every other state is unfinished."""


HELD = frozenset({RunState.PAUSING, RunState.PAUSED, RunState.CANCELLING, RunState.CANCELLED})
"""In one of these states a run begins nothing by itself."""


class ChunkState(StrEnum):
    """Where a chunk is."""

    PENDING = "pending"
    MIGRATED = "migrated"
    VERIFIED = "verified"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


APPLIED = frozenset({ChunkState.MIGRATED, ChunkState.VERIFIED})
"""The targets hold what the chunk's documents derive to."""

R, C = RunState, ChunkState

RUN_ARROWS: dict[tuple[RunState, RunState], str] = {
    (R.PLANNING, R.PLANNED): "every chunk is written",
    (R.PLANNING, R.CANCELLED): "planning was interrupted and given up",
    (R.PLANNED, R.PLANNING): "the source has grown since; it is planned again",
    (R.PLANNED, R.RUNNING): "the first wave may go",
    (R.PLANNED, R.CANCELLED): "given up before anything was written",
    (R.RUNNING, R.PAUSING): "pause is asked",
    (R.PAUSING, R.PAUSED): "no chunk is being worked on any more",
    (R.PAUSING, R.RUNNING): "resumed before the last chunk had ended",
    (R.PAUSED, R.RUNNING): "resumed",
    (R.RUNNING, R.PAUSED): "every chunk that was asked for is applied, and others are not",
    (R.MIGRATED, R.PAUSED): "a part of it was rolled back",
    (R.VERIFIED, R.PAUSED): "a part of it was rolled back",
    (R.RUNNING, R.MIGRATED): "every chunk is applied",
    (R.MIGRATED, R.VERIFIED): "every chunk is verified without a difference",
    (R.VERIFIED, R.MIGRATED): "a later verification found a difference",
    (R.MIGRATED, R.RUNNING): "chunks are to be migrated again",
    (R.VERIFIED, R.RUNNING): "chunks are to be migrated again",
    (R.VERIFIED, R.CUT_OVER): "the application uses the targets",
    (R.CUT_OVER, R.VERIFIED): "the application uses the source again",
    (R.CUT_OVER, R.FINALIZED): "the source is archived for good",
    (R.RUNNING, R.CANCELLING): "cancel is asked",
    (R.PAUSING, R.CANCELLING): "cancel is asked",
    (R.PAUSED, R.CANCELLING): "cancel is asked",
    (R.CANCELLING, R.CANCELLED): "no chunk is being worked on any more",
    **{
        (state, R.ROLLING_BACK): "rollback of the whole run is asked"
        for state in (R.RUNNING, R.PAUSING, R.PAUSED, R.MIGRATED, R.VERIFIED, R.CUT_OVER)
    },
    (R.CANCELLED, R.ROLLING_BACK): "what it had applied is to be taken out",
    (R.ROLLING_BACK, R.ROLLED_BACK): "no chunk is applied any more",
    (R.ROLLING_BACK, R.PAUSED): "a chunk refused, because its targets were changed",
}

CHUNK_ARROWS: dict[tuple[ChunkState, ChunkState], str] = {
    (C.PENDING, C.MIGRATED): "its documents are split, in one transaction",
    (C.PENDING, C.FAILED): "its tries ran out",
    (C.MIGRATED, C.VERIFIED): "every byte is what the source derives to",
    (C.VERIFIED, C.MIGRATED): "it is to be compared again, or was and has a difference",
    (C.MIGRATED, C.ROLLED_BACK): "its parts are taken out again",
    (C.VERIFIED, C.ROLLED_BACK): "its parts are taken out again",
    (C.PENDING, C.ROLLED_BACK): "the whole run is rolled back, and nothing of it was applied",
    (C.FAILED, C.ROLLED_BACK): "the whole run is rolled back, and nothing of it was applied",
    (C.FAILED, C.PENDING): "it is to be tried again",
    (C.ROLLED_BACK, C.PENDING): "it is to be migrated again",
}


def sources_of(to: RunState) -> list[RunState]:
    """The states a run may be in before it enters `to`."""
    return [before for before, after in RUN_ARROWS if after == to]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a migration, as the ledger has it.

    `selection` are the spans of chunk numbers to migrate (none: all); `asked` says who brought the
    run where it is, when and why; `resting`: it paused by itself, since all that was selected is
    applied; `on_change`: what rolling it back does with changed targets; `requested` is the
    verification somebody waits for, which goes on in a pause; `drill` is what the last measured.
    """

    id: str
    migration: str
    fingerprint: str
    source: str
    state: RunState
    options: dict[str, Any]
    actor: str
    counts: dict[str, int]
    created: datetime
    started: datetime | None = None
    migrated: datetime | None = None
    verified: datetime | None = None
    provisioned: list[dict[str, Any]] = field(default_factory=list)
    verification: int = 0
    requested: int = 0
    selection: list[list[int]] | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    resting: bool = False
    on_change: str = "keep"
    drill: dict[str, Any] | None = None
    pace: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] | None = None

    @property
    def state_words(self) -> str:
        """The state as a sentence has it."""
        return self.state.replace("_", " ")

    @property
    def finished(self) -> bool:
        """Whether the run is over."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of the source, the unit of work, as the ledger has it.

    `written` counts how often it was copied or rolled back; `digest` is the SHA-256 of the parts as
    they were inserted, target by target, where they still stand so as far as is known.
    `mend` asks to try its quarantined documents again, `undo` asks to roll it back.
    """

    run: str
    n: int
    ranges: tuple[Range, ...]
    state: ChunkState
    fence: int
    planned: int
    written: int = 0
    tail: bool = False
    docs: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    adopted: int = 0
    kept: int = 0
    digest: str | None = None
    mend: bool = False
    undo: dict[str, Any] | None = None
    error: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a chunk task returns: counts, duration, state. Never documents.

    `waited` are the milliseconds before it, for a permit of the pace.
    """

    run: str
    n: int
    did: str
    state: str
    docs: int = 0
    quarantined: int = 0
    mismatches: int = 0
    kept: int = 0
    milliseconds: int = 0
    waited: int = 0

    def to_message(self) -> dict[str, str | int]:
        """As JSON for Celery and Flower: short, and free of what is zero."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in facts.items() if value not in (0, "")}
