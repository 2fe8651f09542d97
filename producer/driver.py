"""The driver: one loop that sends waves, notices what was lost, and waits on the ledger.

The chord is a bell, the ledger is the clock. A wave is over when the ledger says so; a message that
is neither in the queue nor in a living worker's hands is sent again. All it knows it reads from the
ledger at every tick, so it can be killed and started again at any moment.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Event

from mongosplit.ledger import chunks, claims, runs, waves
from mongosplit.ledger.waves import Wave
from mongosplit.model import APPLIED, ChunkState, Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import dispatch
from producer.dispatch import BrokerAway
from worker import presence, verification

TICK_SECONDS = 0.25
CALLBACK_SECONDS = 3.0
"""How long a finished wave waits for its chord's callback before the driver closes it."""
LOST_SECONDS = 3.0
"""How long a chunk must be in nobody's hands before its message counts as lost."""
SENT_AGAIN_AT_ONCE = 500
"""Bounded, or a false alarm would double a long queue."""
RATE_SECONDS = 10.0

_IS_APPLIED = {"state": {"$in": [state.value for state in APPLIED]}}


@dataclass(frozen=True)
class Tick:
    """What one look at the ledger showed."""

    run: Run
    totals: dict[str, dict[str, int]]
    rate: float
    queued: int
    obstacle: str = ""

    @property
    def unit(self) -> str:
        """What the source calls its documents: the name of the collection."""
        return self.run.source.partition(".")[2]

    def chunks(self, *states: ChunkState) -> int:
        """How many chunks are in one of these states."""
        return sum(self.totals.get(state.value, {}).get("chunks", 0) for state in states)

    def sum(self, fact: str) -> int:
        """A fact summed over all chunks."""
        return sum(row[fact] for row in self.totals.values())

    @property
    def total(self) -> int:
        """All chunks."""
        return sum(row["chunks"] for row in self.totals.values())

    @property
    def eta_seconds(self) -> float | None:
        """When the rest will be migrated at the present rate; None while there is none."""
        left = self.totals.get(ChunkState.PENDING.value, {}).get("planned", 0)
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
        return sorted(loose)


@dataclass
class _Eyes:
    """What the driver remembers from tick to tick; losing it costs seconds, never truth."""

    migrate: LossWatch = field(default_factory=LossWatch)
    verify: LossWatch = field(default_factory=LossWatch)
    finished: dict[int, float] = field(default_factory=dict)
    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def rate(self, docs: int) -> float:
        """Documents per second over the last seconds."""
        moment = time.monotonic()
        self.seen.append((moment, docs))
        while moment - self.seen[0][0] > RATE_SECONDS:
            self.seen.popleft()
        first, before = self.seen[0]
        return (docs - before) / (moment - first) if moment > first else 0.0


def drive(
    at: OpenRun,
    settings: Settings,
    holder: str,
    on_tick: Callable[[Tick], None],
    stop: Event | None = None,
) -> Tick:
    """Drive the run until every chunk is verified, or failed, or `stop` is set.

    Raises:
        LeaseHeld: another driver has the run.
    """
    eyes, stop = _Eyes(), stop or Event()
    run_id = at.run.id
    runs.hold_when_free(at.ledger, run_id, holder)
    try:
        if at.run.verification == 0:
            runs.next_verification(at.ledger, run_id)
        while True:
            runs.hold(at.ledger, run_id, holder)
            tick = _tick(at, settings, eyes)
            on_tick(tick)
            if _is_over(at, tick) or stop.wait(TICK_SECONDS):
                return tick
    finally:
        runs.let_go(at.ledger, run_id, holder)


def _tick(at: OpenRun, settings: Settings, eyes: _Eyes) -> Tick:
    obstacle, queued = "", 0
    run = runs.get(at.ledger, at.run.id)
    try:
        outstanding, sent = _close_waves(at, eyes)
        if run.state is RunState.RUNNING:
            _send_waves(at, settings, sent, len(outstanding))
            _send_lost(at, eyes, outstanding)
        _verify(at, settings, eyes, run.verification)
        queued = dispatch.queued("migrate")
    except BrokerAway as error:
        obstacle = error.message
    totals = chunks.totals(at.ledger, at.run.id)
    docs = sum(row["docs"] for row in totals.values())
    tick = Tick(run, totals, eyes.rate(docs), queued, obstacle)
    pending = tick.chunks(ChunkState.PENDING)
    if run.state is RunState.RUNNING and not pending and not tick.chunks(ChunkState.FAILED):
        return replace(tick, run=_all_migrated(at, run))
    return tick


def _all_migrated(at: OpenRun, run: Run) -> Run:
    moved = runs.move(at.ledger, run.id, RunState.MIGRATED)
    # The tail is in no wave, so no callback asks for it.
    tail = chunks.numbers(at.ledger, run.id, {"tail": True})
    with suppress(BrokerAway), dispatch.broker_errors():
        verification.send(run.id, tail, run.verification)
    return moved


def _close_waves(at: OpenRun, eyes: _Eyes) -> tuple[set[int], list[int]]:
    """Close what is over; returns the pending chunks of open waves, and all chunks in them."""
    outstanding: set[int] = set()
    sent: list[int] = []
    for wave in waves.open_waves(at.ledger, at.run.id):
        pending = chunks.still(at.ledger, at.run.id, wave.chunks, {"state": "pending"})
        outstanding |= pending
        sent += wave.chunks
        if not pending:
            _close(at, wave, eyes)
    return outstanding, sent


def _close(at: OpenRun, wave: Wave, eyes: _Eyes) -> None:
    first_seen = eyes.finished.setdefault(wave.n, time.monotonic())
    if time.monotonic() - first_seen > CALLBACK_SECONDS:
        with dispatch.broker_errors():
            verification.close_and_verify(at.ledger, at.run.id, wave.n, by="driver")


def _send_waves(at: OpenRun, settings: Settings, sent: list[int], outstanding: int) -> None:
    """Refill by count, so that a straggler in one wave keeps nobody from the next."""
    while outstanding <= settings.wave_size * (settings.waves_in_flight - 1):
        unsent = {"state": "pending", "n": {"$nin": sent}}
        numbers = chunks.numbers(at.ledger, at.run.id, unsent, limit=settings.wave_size)
        if not numbers:
            return
        sent += numbers
        outstanding += len(numbers)
        dispatch.send_wave(waves.open_next(at.ledger, at.run.id, numbers))


def _send_lost(at: OpenRun, eyes: _Eyes, outstanding: set[int]) -> None:
    held, waiting = claims.of_run(at.ledger, at.run.id, work="migrate")
    carried = waiting | {claim.n for claim in held if not presence.is_dead(claim)}
    lost = eyes.migrate.lost(outstanding, carried, dispatch.queued("migrate"))
    dispatch.send_chunks(at.run.id, lost[:SENT_AGAIN_AT_ONCE])


def _verify(at: OpenRun, settings: Settings, eyes: _Eyes, number: int) -> None:
    """Verification that no callback kicked off, or that was lost, and the tail's."""
    in_waves = {n for wave in waves.open_waves(at.ledger, at.run.id) for n in wave.chunks}
    query = {**_IS_APPLIED, **chunks.unchecked(number)}
    limit = settings.wave_size + len(in_waves)
    waiting_for = set(chunks.numbers(at.ledger, at.run.id, query, limit=limit)) - in_waves
    held, waiting = claims.of_run(at.ledger, at.run.id, work="verify")
    carried = waiting | {claim.n for claim in held if not presence.is_dead(claim)}
    lost = eyes.verify.lost(waiting_for, carried, dispatch.queued("verify"))
    with dispatch.broker_errors():
        verification.send(at.run.id, lost[:SENT_AGAIN_AT_ONCE], number)


def _is_over(at: OpenRun, tick: Tick) -> bool:
    if tick.chunks(ChunkState.PENDING) or tick.run.state is RunState.PLANNED:
        return False
    query = {**_IS_APPLIED, **chunks.unchecked(runs.get(at.ledger, at.run.id).verification)}
    return not chunks.numbers(at.ledger, at.run.id, query, limit=1)
