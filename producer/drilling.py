"""Drilling: a slice of a run there, back and there again, with hashes compared, speeds measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from mongosplit import digest
from mongosplit.errors import Failed
from mongosplit.ledger import asks, chunks, leases, runs
from mongosplit.ledger.book import now
from mongosplit.model import APPLIED, ChunkState
from mongosplit.open_run import OpenRun
from mongosplit.selection import Selection
from mongosplit.settings import Settings
from producer import conclusion, planning
from producer.driving import drive_here


@dataclass(frozen=True)
class Drilled:
    """What a drill measured: documents per second of all workers together, forward and back."""

    chunks: str
    docs: int
    forward_rate: float
    rollback_rate: float


Say = Callable[[str], None]


def drill(at: OpenRun, settings: Settings, part: Selection, say: Say) -> Drilled:
    """Migrate the slice, verify it, roll it back, compare with before, and migrate it again.

    Raises:
        Failed: a step did not work; the run rests where it is.
    """
    numbers = list(part.numbers())
    before = _digests(at, settings, numbers)
    say(f"1/4 migrate and verify chunks {part}")
    _forward(at, settings, part)
    docs, forward = _speed(at, numbers)
    say("2/4 roll them back")
    _back(at, settings, part)
    _, back = _speed(at, numbers, docs)
    say("3/4 compare the targets with before")
    _compare(at, before)
    say("4/4 migrate and verify them again")
    actor = settings.actor
    leases.hold_when_free(at.ledger, at.run.id, planning.holder_of(settings))
    planning.run_on(at, part.to_document(), actor=actor, why="drill")
    asks.reopen(at.ledger, at.run.id, ChunkState.ROLLED_BACK, part.query(), actor=actor)
    _forward(at, settings, part)
    drilled = Drilled(str(part), docs, forward, back)
    runs.note(at.ledger, at.run.id, drill={**asdict(drilled), "at": now()})
    return drilled


def _digests(at: OpenRun, settings: Settings, numbers: list[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for n in numbers:
        # Nobody else may drive the run meanwhile.
        leases.hold(at.ledger, at.run.id, planning.holder_of(settings))
        found[n] = digest.of_chunk(at, n)
    return found


def _forward(at: OpenRun, settings: Settings, part: Selection) -> None:
    drive_here(at, settings)
    verdict = conclusion.conclude(at, driven=True)
    if verdict.exit_code:
        raise Failed(
            f"the drill has ended: {verdict.sentence}",
            hint=f"mongosplit status {at.run.id}",
        )
    missing = _not_in(at, part, *APPLIED)
    if missing:
        raise Failed(
            f"the drill has ended: chunk {missing[0]} of {at.run.id} is not applied",
            hint=f"mongosplit status {at.run.id}",
        )


def _back(at: OpenRun, settings: Settings, part: Selection) -> None:
    asks.undo(at.ledger, at.run.id, part.query(), on_change="keep", actor=settings.actor)
    drive_here(at, settings, undo_only=True)
    if missing := _not_in(at, part, ChunkState.ROLLED_BACK):
        raise Failed(
            f"the drill has ended: chunk {missing[0]} of {at.run.id} was not rolled back",
            hint=f"mongosplit status {at.run.id}",
        )


def _not_in(at: OpenRun, part: Selection, *states: ChunkState) -> list[int]:
    other = {"state": {"$nin": [state.value for state in states]}}
    return chunks.numbers(at.ledger, at.run.id, {"$and": [other, part.query()]})


def _compare(at: OpenRun, before: dict[int, dict[str, str]]) -> None:
    for n, hashes in before.items():
        after = digest.of_chunk(at, n)
        wrong = [name for name, value in hashes.items() if after[name] != value]
        if wrong:
            raise Failed(
                f"after its rollback chunk {n} has left {wrong[0]} other than it was",
                hint=f"mongosplit verify {at.run.id}   (or somebody else writes {wrong[0]})",
            )


def _speed(at: OpenRun, numbers: list[int], docs: int = 0) -> tuple[int, float]:
    """Documents, and how many of them all workers together did in a second of their work."""
    rows = list(
        at.ledger["chunks"].find(
            {"run": at.run.id, "n": {"$in": numbers}}, {"docs": 1, "milliseconds": 1, "worker": 1}
        )
    )
    docs = docs or sum(row["docs"] for row in rows)
    seconds = sum(row["milliseconds"] for row in rows) / 1000
    busy = len({row["worker"] for row in rows})
    return docs, docs / max(seconds, 0.001) * busy
