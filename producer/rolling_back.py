"""Rolling back: sends chunks that are to be rolled back, or does them here when nobody listens."""

from __future__ import annotations

import time
from collections.abc import Callable

from mongosplit import compat, provision, rollback, verify
from mongosplit.errors import MongosplitError, TransientError
from mongosplit.ledger import asks, checked, chunks, dirty, followers, runs
from mongosplit.ledger.claims import Attempt
from mongosplit.model import Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import dispatch, migrating, verifying
from producer.dispatch import BrokerAway
from producer.tick import Eyes, Tick
from worker import place, presence

Work = Callable[[OpenRun, int, Attempt], None]

CLOSE_MILLISECONDS = 500
HERE_SECONDS = 1.0
"""How long a tick may be busy with rolling back here; the lease on the run lasts much longer."""


def press(at: OpenRun, run: Run) -> None:
    """Of a whole run that is rolled back: close what was never applied, ask for what was."""
    asks.close_rest(at.ledger, run.id, milliseconds=CLOSE_MILLISECONDS)
    unasked = {"undo": {"$exists": False}, "undo_error": None}
    asks.undo(at.ledger, run.id, unasked, on_change=run.on_change, actor=str(run.asked["actor"]))


def carry_on(at: OpenRun, run: Run, settings: Settings, eyes: Eyes) -> int:
    """Send what is to be rolled back, or do some of it here; returns about how much is left."""
    left = asks.left_to_undo(at.ledger, run.id, limit=2 * settings.wave_size)
    if left and not _send(at, settings, eyes, left):
        _here(at, left, settings, _roll_back_here)
    if not left:
        _compare_the_rest(at, run, settings)
    return len(left)


def _compare_the_rest(at: OpenRun, run: Run, settings: Settings) -> None:
    """Compare here what was rolled back when nobody listens who would, or it never ended."""
    held = run.state is not RunState.ROLLING_BACK
    unchecked = checked.to_verify(run.verification, held=held)
    numbers = chunks.numbers(at.ledger, run.id, unchecked, limit=settings.wave_size)
    if numbers and not dispatch.somebody_listens("verify"):
        _here(at, numbers, settings, _compare_here)


def _send(at: OpenRun, settings: Settings, eyes: Eyes, left: list[int]) -> bool:
    """Send the next chunks if the queue has room for them; False when nobody would take them."""
    try:
        if not dispatch.listeners("rollback"):
            return False
        queued = dispatch.queued("rollback")
        eyes.to_undo_sent &= set(left)
        unsent = [n for n in left if n not in eyes.to_undo_sent]
        fitting = unsent[: max(0, settings.wave_size - queued)]
        dispatch.send_rollbacks(at.run.id, fitting)
        carried = migrating.carried_by(at, rollback.WORK)
        lost = eyes.rollback.lost(eyes.to_undo_sent.copy(), carried, queued)
        dispatch.send_rollbacks(at.run.id, lost)
        eyes.to_undo_sent |= set(fitting)
    except BrokerAway:
        return False
    return True


def _here(at: OpenRun, numbers: list[int], settings: Settings, work: Work) -> None:
    worker = place.name_here(settings.actor)
    attempt = Attempt(worker, most=settings.max_attempts, is_dead=presence.is_dead)
    end = time.monotonic() + HERE_SECONDS
    for n in numbers:
        try:
            work(at, n, attempt)
        except TransientError:
            # It is asked for until it is done, so the next tick tries again.
            return
        if time.monotonic() > end:
            return


def _roll_back_here(at: OpenRun, n: int, attempt: Attempt) -> None:
    try:
        rollback.rollback_chunk(at, n, attempt)
    except TransientError:
        raise
    except MongosplitError as error:
        chunks.undo_refused(at.ledger, at.run.id, n, error.to_document(), actor=attempt.worker)
    else:
        _compare_here(at, n, attempt)


def _compare_here(at: OpenRun, n: int, attempt: Attempt) -> None:
    number = runs.get(at.ledger, at.run.id).verification
    try:
        verify.verify_chunk(at, n, attempt, verification=number, independent=False)
    except TransientError:
        raise
    except MongosplitError as error:
        checked.not_checked(
            at.ledger, at.run.id, n, number, error.to_document(), actor=attempt.worker
        )


def settle(at: OpenRun, tick: Tick) -> Run:
    """Move the run on once no chunk of it is to be rolled back any more."""
    run = tick.run
    if asks.left_to_undo(at.ledger, run.id, limit=1) or verifying.is_left(at, run):
        return run
    undone = tick.totals.get("rolled_back", {}).get("chunks", 0)
    whole = sum(row["chunks"] for row in tick.totals.values())
    if run.state is RunState.ROLLING_BACK:
        return _end(at, run) if undone == whole else _give_up(at, run)
    if undone and run.state in (RunState.MIGRATED, RunState.VERIFIED):
        why = "a part of it was rolled back"
        return runs.move(at.ledger, run.id, RunState.PAUSED, why=why, resting=True)
    return run


def _end(at: OpenRun, run: Run) -> Run:
    compat.take_away(at)
    stayed = provision.take_away(at.data, run.provisioned)
    followers.forget_run(at.ledger, run.id)
    dirty.forget_run(at.ledger, run.id)
    why = "; ".join(stayed)
    actor = str(run.asked["actor"])
    return runs.move(at.ledger, run.id, RunState.ROLLED_BACK, actor=actor, why=why)


def _give_up(at: OpenRun, run: Run) -> Run:
    refused = chunks.numbers(at.ledger, run.id, {"undo_error": {"$ne": None}})
    if not refused:
        return run
    why = f"{len(refused):,} chunks could not be rolled back"
    return runs.move(at.ledger, run.id, RunState.PAUSED, why=why, resting=True)
