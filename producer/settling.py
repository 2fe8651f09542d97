"""Settling: from asked to done, and to rest when everything that was asked for is applied."""

from __future__ import annotations

import time
from collections.abc import Callable

from mongosplit import breaker
from mongosplit.errors import IllegalTransition
from mongosplit.ledger import chunks, claims, runs, waves
from mongosplit.ledger.book import Ledger
from mongosplit.model import ChunkState, Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.selection import Selection
from producer import migrating, verifying
from producer.tick import Tick
from worker import presence

DONE = {RunState.PAUSING: RunState.PAUSED, RunState.CANCELLING: RunState.CANCELLED}
POLL_SECONDS = 0.1


def at_work(ledger: Ledger, run: Run) -> int:
    """How many chunks of the run living workers have in hand.

    Rolling back goes on in a pause, and so does a verification that somebody asked for.
    """
    works = ["migrate"] if run.requested == run.verification else ["migrate", "verify"]
    return len(claims.working(ledger, run.id, works, presence.is_dead))


def settle_asked(ledger: Ledger, run: Run) -> Run:
    """Make what is asked done once no chunk is being worked on any more."""
    to = DONE.get(run.state)
    if to is None or at_work(ledger, run):
        return run
    # What is pending in them goes out again in other waves once the run is resumed.
    waves.close_all(ledger, run.id, by=to.value)
    try:
        actor, why = str(run.asked["actor"]), str(run.asked["why"])
        return runs.move(ledger, run.id, to, actor=actor, why=why)
    except IllegalTransition:
        # Somebody asked for something else meanwhile.
        return runs.get(ledger, run.id)


def wait_until_done(ledger: Ledger, run: Run, on_wait: Callable[[int], None]) -> Run:
    """Wait until what is asked is done, or something else is asked; `on_wait` gets who is busy."""
    while run.state in DONE:
        run = settle_asked(ledger, run)
        if run.state in DONE:
            on_wait(at_work(ledger, run))
            time.sleep(POLL_SECONDS)
            run = runs.get(ledger, run.id)
    return run


def is_wanted(at: OpenRun, run: Run) -> bool:
    """Whether chunks are still to be migrated, of those that the run is at."""
    return bool(chunks.numbers(at.ledger, run.id, migrating.wanted(run), limit=1))


def has_failed(at: OpenRun, run: Run) -> bool:
    """Whether chunks have used up their tries."""
    failed = {"state": ChunkState.FAILED.value}
    return bool(chunks.numbers(at.ledger, run.id, failed, limit=1))


def is_stuck(at: OpenRun, run: Run) -> bool:
    """Whether a running run has nothing to send, and failed chunks keep it from its rest."""
    return not is_wanted(at, run) and has_failed(at, run)


def settle_running(at: OpenRun, tick: Tick) -> Run:
    """Stop a run in which too much fails; move one on that has nothing left to send."""
    run = tick.run
    if breaker.trip(at.ledger, run, tick.totals):
        return runs.get(at.ledger, run.id)
    if is_wanted(at, run):
        return run
    if all(state in ("migrated", "verified") for state in tick.totals):
        return runs.move(at.ledger, run.id, RunState.MIGRATED)
    if has_failed(at, run) or verifying.is_left(at, run):
        return run
    return runs.move(at.ledger, run.id, RunState.PAUSED, why=_partly(run), resting=True)


def settle_migrated(at: OpenRun, run: Run) -> Run:
    """Let a run go on of which chunks were asked for while it came to its end."""
    if chunks.numbers(at.ledger, run.id, chunks.WANTED, limit=1):
        return runs.move(at.ledger, run.id, RunState.RUNNING, why="chunks are asked for again")
    return run


def _partly(run: Run) -> str:
    if not run.selection:
        return "a part of it is rolled back"
    return f"chunks {Selection.from_document(run.selection)} are applied, as asked"
