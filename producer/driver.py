"""The driver: one loop that sends waves, notices what was lost, and waits on the ledger.

The chord is a bell, the ledger is the clock. A wave is over when the ledger says so; a message that
is neither in the queue nor in a living worker's hands is sent again. All it knows it reads from the
ledger at every tick, so it can be killed and started again at any moment. Migrating, verifying and
rolling back are driven by this one loop, and a lease allows one of it for each run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Event

from mongosplit import breaker
from mongosplit.ledger import asks, audit, checked, chunks, leases, runs, tally
from mongosplit.ledger.book import now
from mongosplit.model import FINISHED, Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.selection import Selection
from mongosplit.settings import Settings
from producer import (
    dispatch,
    health,
    migrating,
    oplog_guard,
    pacing_facts,
    rolling_back,
    settling,
    verifying,
    worker_rate,
)
from producer.dispatch import BrokerAway
from producer.following import following
from producer.oplog_guard import Guard
from producer.tick import Eyes, Tick
from worker import verification

TICK_SECONDS = 0.25
STOPPERS = (breaker.ACTOR, oplog_guard.ACTOR)
"""Those that pause a run by themselves: nobody is there who would resume it soon."""


def drive(
    at: OpenRun,
    settings: Settings,
    holder: str,
    on_tick: Callable[[Tick], None],
    stop: Event | None = None,
    *,
    stay: bool = False,
    undo_only: bool = False,
) -> Tick:
    """Drive the run until all that was asked for is done and verified, or failed, or `stop` is set.

    With `stay` a pause that somebody asked for is waited out; with `undo_only` nothing is migrated.

    Raises:
        LeaseHeld: another driver has the run.
    """
    eyes, stop, guard = Eyes(), stop or Event(), Guard(settings)
    run_id = at.run.id
    leases.hold_when_free(at.ledger, run_id, holder)
    try:
        runs.first_verification(at.ledger, run_id)
        with health.watching(at, settings) as doctor, following(at, settings):
            while True:
                leases.hold(at.ledger, run_id, holder)
                tick = _tick(at, settings, eyes, undo_only=undo_only)
                doctor.throughput = tick.rate
                guard.look(at, tick.run, tick.eta_seconds)
                on_tick(tick)
                over = _is_undone(at, tick) if undo_only else is_over(at, tick, stay=stay)
                if over or stop.wait(TICK_SECONDS):
                    return tick
    finally:
        audit.chain(at.ledger)
        leases.let_go(at.ledger, run_id, holder)


def _tick(at: OpenRun, settings: Settings, eyes: Eyes, *, undo_only: bool) -> Tick:
    run = settling.settle_asked(at.ledger, runs.get(at.ledger, at.run.id))
    if run.state is RunState.ROLLING_BACK:
        rolling_back.press(at, run)
    to_undo = rolling_back.carry_on(at, run, settings, eyes)
    obstacle, queued = "", 0
    try:
        outstanding, sent = migrating.close_waves(at, eyes)
        if run.state is RunState.RUNNING and not undo_only:
            migrating.send_waves(at, run, settings, sent, len(outstanding))
            migrating.send_lost(at, run, eyes, outstanding)
            worker_rate.tell_newcomers(run.pace.get("per_worker"), eyes.told_rate)
        verifying.send_leftover(at, run, settings, eyes)
        queued = dispatch.queued("migrate")
    except BrokerAway as error:
        obstacle = error.message
    audit.chain(at.ledger)
    totals = tally.totals(at.ledger, run.id)
    rate = eyes.rate(sum(row["docs"] for row in totals.values()))
    selected = _selected(at, run)
    pace = pacing_facts.sentence(pacing_facts.facts(run, now()))
    tick = Tick(run, totals, rate, queued, to_undo, obstacle, selected, pace)
    if undo_only and run.state is RunState.RUNNING:
        return tick
    return replace(tick, run=_settled(at, tick, eyes))


def _selected(at: OpenRun, run: Run) -> dict[str, dict[str, int]] | None:
    if not run.selection or run.state is RunState.ROLLING_BACK:
        return None
    query = Selection.from_document(run.selection).query()
    return tally.totals(at.ledger, run.id, query)


def _settled(at: OpenRun, tick: Tick, eyes: Eyes) -> Run:
    if tick.run.state is RunState.MIGRATED:
        tick = replace(tick, run=settling.settle_migrated(at, tick.run))
    if tick.run.state is not RunState.RUNNING:
        return rolling_back.settle(at, tick)
    run = settling.settle_running(at, tick)
    if not eyes.tail_sent and not settling.is_wanted(at, run):
        eyes.tail_sent = True
        # The tail is in no wave, so no callback asks for it.
        tail = chunks.numbers(at.ledger, run.id, {"tail": True})
        with suppress(BrokerAway), dispatch.broker_errors():
            verification.send(run.id, tail, run.verification)
    return run


def is_over(at: OpenRun, tick: Tick, *, stay: bool) -> bool:
    """Whether nobody needs to drive the run any more, as this tick left it."""
    run = tick.run
    if run.state in FINISHED or run.state is RunState.PLANNED:
        return not tick.to_undo
    if run.state in (RunState.PAUSING, RunState.CANCELLING, RunState.ROLLING_BACK):
        return False
    if verifying.is_left(at, run) or asks.left_to_undo(at.ledger, run.id, limit=1):
        return False
    if run.state is RunState.MIGRATED:
        # What was asked for while it came to its end is for the next tick.
        return not chunks.numbers(at.ledger, run.id, chunks.WANTED, limit=1)
    if run.state is RunState.PAUSED:
        return run.resting or not stay or run.asked.get("actor") in STOPPERS
    # What ended since this tick began is settled by the next one: only failed chunks keep it so.
    return run.state is not RunState.RUNNING or settling.is_stuck(at, run)


def _is_undone(at: OpenRun, tick: Tick) -> bool:
    if tick.run.state is RunState.ROLLING_BACK or tick.to_undo:
        return False
    left = checked.to_verify(tick.run.verification, held=True)
    return not chunks.numbers(at.ledger, tick.run.id, left, limit=1)
