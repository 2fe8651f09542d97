"""Migrating: sends the waves of a run, closes them, and sends again what was lost on the way."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from mongosplit.ledger import chunks, claims, paces, tally, waves
from mongosplit.ledger.book import now
from mongosplit.ledger.waves import Wave
from mongosplit.model import ChunkState, Run
from mongosplit.open_run import OpenRun
from mongosplit.selection import Selection
from mongosplit.settings import Settings
from producer import dispatch
from producer.tick import Eyes
from worker import presence, verification

LEAST_WAVE = 10
RECENTLY = timedelta(seconds=30)
CALLBACK_SECONDS = 3.0
"""How long a finished wave waits for its chord's callback before the driver closes it."""


def wanted(run: Run) -> dict[str, Any]:
    """The query for chunks that are to be sent: pending ones of the selection, and all to mend."""
    pending: dict[str, Any] = {"state": ChunkState.PENDING.value}
    if run.selection == []:
        return {"mend": True}
    if run.selection is not None:
        pending = {"$and": [pending, Selection.from_document(run.selection).query()]}
    return {"$or": [pending, {"mend": True}]}


def close_waves(at: OpenRun, eyes: Eyes) -> tuple[set[int], list[int]]:
    """Close what is over; returns the unfinished chunks of open waves, and all chunks in them."""
    outstanding: set[int] = set()
    sent: list[int] = []
    for wave in waves.open_waves(at.ledger, at.run.id):
        unfinished = chunks.still(at.ledger, at.run.id, wave.chunks, chunks.WANTED)
        outstanding |= unfinished
        sent += wave.chunks
        if not unfinished:
            _close(at, wave, eyes)
    return outstanding, sent


def _close(at: OpenRun, wave: Wave, eyes: Eyes) -> None:
    first_seen = eyes.finished.setdefault(wave.n, time.monotonic())
    if time.monotonic() - first_seen > CALLBACK_SECONDS:
        with dispatch.broker_errors():
            verification.close_and_verify(at.ledger, at.run.id, wave.n, by="driver")


def send_waves(
    at: OpenRun, run: Run, settings: Settings, sent: list[int], outstanding: int
) -> None:
    """Refill by count, so that a straggler in one wave keeps nobody from the next."""
    if outstanding > settings.wave_size * (settings.waves_in_flight - 1):
        return
    size = wave_size(at, settings)
    while outstanding <= size * (settings.waves_in_flight - 1):
        unsent = {"$and": [wanted(run), {"n": {"$nin": sent}}]}
        numbers = chunks.numbers(at.ledger, at.run.id, unsent, limit=size)
        if not numbers:
            return
        sent += numbers
        outstanding += len(numbers)
        dispatch.send_wave(waves.open_next(at.ledger, at.run.id, numbers), _pace(run))


def wave_size(at: OpenRun, settings: Settings) -> int:
    """Chunks in the next wave: as set, and fewer where a chunk takes longer than it should.

    So a wave takes about as long as one of quick chunks would, and what is asked of the run
    meanwhile has no long queue before it.
    """
    took = tally.recent_milliseconds(at.ledger, at.run.id, RECENTLY)
    if took is None or took <= settings.target_milliseconds:
        return settings.wave_size
    fitting = settings.wave_size * settings.target_milliseconds // took
    return min(settings.wave_size, max(LEAST_WAVE, fitting))


def send_lost(at: OpenRun, run: Run, eyes: Eyes, outstanding: set[int]) -> None:
    """Send chunks again that are neither in the queue nor in a living worker's hands."""
    carried = carried_by(at, "migrate")
    lost = eyes.migrate.lost(outstanding, carried, dispatch.queued("migrate"))
    dispatch.send_chunks(at.run.id, lost, _pace(run))


def _pace(run: Run) -> str:
    return paces.limit_of(run.pace, now()).sentence


def carried_by(at: OpenRun, work: str) -> set[int]:
    """The chunks that a living worker has in hand for this work, or that wait for another try."""
    held, waiting = claims.of_run(at.ledger, at.run.id, work=work)
    return waiting | {claim.n for claim in held if not presence.is_dead(claim)}
