"""Verifying while a run is driven: chunks that no callback asked to compare, or that were lost."""

from __future__ import annotations

from typing import Any

from mongosplit.ledger import checked, chunks, waves
from mongosplit.model import HELD, ChunkState, Run
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import dispatch
from producer.migrating import carried_by
from producer.tick import Eyes
from worker import verification


def query(run: Run) -> dict[str, Any]:
    """The query for chunks that are to be compared now."""
    return checked.to_verify(run.verification, held=run.state in HELD)


def is_left(at: OpenRun, run: Run) -> bool:
    """Whether chunks are still to be compared."""
    return bool(chunks.numbers(at.ledger, run.id, query(run), limit=1))


def send_leftover(at: OpenRun, run: Run, settings: Settings, eyes: Eyes) -> None:
    """Send what no wave will ask for and is in nobody's hands."""
    in_waves = {n for wave in waves.open_waves(at.ledger, run.id) for n in wave.chunks}
    limit = settings.wave_size + len(in_waves)
    waiting_for = set(chunks.numbers(at.ledger, run.id, query(run), limit=limit))
    # What a wave has rolled back meanwhile it will not ask for, if it closes at all.
    undone = {"state": ChunkState.ROLLED_BACK.value}
    waiting_for -= in_waves - chunks.still(at.ledger, run.id, sorted(in_waves), undone)
    lost = eyes.verify.lost(waiting_for, carried_by(at, "verify"), dispatch.queued("verify"))
    with dispatch.broker_errors():
        verification.send(run.id, lost, run.verification)
