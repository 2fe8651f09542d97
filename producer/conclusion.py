"""Verification of a whole run by request, and the verdict a run comes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mongosplit import verify
from mongosplit.errors import TransientError
from mongosplit.ledger import checked, chunks, mismatches, runs, tally
from mongosplit.ledger.claims import Attempt
from mongosplit.model import HELD, Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import dispatch
from producer.console import counted
from producer.dispatch import BrokerAway
from worker import pacing, place, verification

OnProgress = Callable[[int, int], None]
POLL_SECONDS = 0.2
HERE_AT_ONCE = 50
"""Chunks compared in this process before looking again whether a worker has come."""
GIVE_UP_SECONDS = 60.0
"""How long a comparison in this process is tried again that comes to no end."""
RESEND_SECONDS = 15.0
"""How long the number of unchecked chunks may stand still before they are sent again."""


STOPPED = HELD | {RunState.ROLLING_BACK, RunState.ROLLED_BACK}
"""A run that was to be driven on and is in one of these has not done what was asked of it."""


@dataclass(frozen=True)
class Verdict:
    """What the ledger says of a run once it was `driven` on, or compared."""

    run: Run
    failed: int
    unchecked: int
    mismatches: int
    checked: int
    independent: int
    driven: bool = False

    @property
    def exit_code(self) -> int:
        """0 good, 1 failed, not checked or stopped on the way, 4 differences found."""
        if self.mismatches:
            return 4
        return 1 if self.failed or self.unchecked or self.stopped else 0

    @property
    def stopped(self) -> bool:
        """Whether somebody, or the breaker, stopped the run before it had done what was asked."""
        return self.driven and self.run.state in STOPPED and not self.run.resting

    @property
    def sentence(self) -> str:
        """What is wrong with the run; empty when nothing is."""
        if self.mismatches:
            return f"{counted(self.mismatches, 'difference')} found in {self.run.id}"
        if self.failed:
            return f"{counted(self.failed, 'chunk')} of {self.run.id} failed"
        if self.unchecked:
            return f"{counted(self.unchecked, 'chunk')} of {self.run.id} could not be verified"
        if self.stopped:
            why = self.run.asked.get("why") or f"asked by {self.run.asked.get('actor')}"
            return f"{self.run.id} is {self.run.state_words}: {why}"
        return ""


def conclude(at: OpenRun, *, driven: bool = False) -> Verdict:
    """Read the verdict off the ledger, and move the run to where it belongs."""
    run = runs.get(at.ledger, at.run.id)
    totals = tally.totals(at.ledger, run.id)
    wrong = sum(row["mismatches"] for row in totals.values())
    unable = chunks.numbers(at.ledger, run.id, {"check_error": {"$ne": None}})
    failed = totals.get("failed", {}).get("chunks", 0)
    pending = totals.get("pending", {}).get("chunks", 0)
    clean = not (wrong or unable or failed or pending)
    if clean and run.state is RunState.MIGRATED:
        run = runs.move(at.ledger, run.id, RunState.VERIFIED)
    elif not clean and run.state is RunState.VERIFIED:
        run = runs.move(at.ledger, run.id, RunState.MIGRATED)
    checked = sum(row["docs"] for row in totals.values())
    checked -= sum(chunks.get(at.ledger, run.id, n).docs for n in unable)
    independent = sum(row["independent"] for row in totals.values())
    return Verdict(run, failed, len(unable), wrong, checked, independent, driven)


def reverify(at: OpenRun, settings: Settings, on_progress: OnProgress) -> Verdict:
    """Compare every chunk again, by the workers on the `verify` queue; here where there are none.

    A chunk that is not applied must have nothing in the targets. `on_progress` gets how many chunks
    are checked, of how many.
    """
    number = runs.next_verification(at.ledger, at.run.id, requested=True)
    whole = len(chunks.numbers(at.ledger, at.run.id, {}))
    sent = 0
    last_change, left_before = time.monotonic(), whole
    while left := chunks.numbers(at.ledger, at.run.id, checked.unchecked(number)):
        on_progress(whole - len(left), whole)
        if len(left) < left_before:
            last_change, left_before = time.monotonic(), len(left)
        if not dispatch.somebody_listens("verify"):
            stuck = time.monotonic() - last_change > GIVE_UP_SECONDS
            _compare_here(at, settings, number, left[:HERE_AT_ONCE], give_up=stuck)
            continue
        stuck = time.monotonic() - last_change > RESEND_SECONDS
        sent = 0 if stuck else sent
        sent = _send_next(at, settings, number, left, sent)
        time.sleep(POLL_SECONDS)
    on_progress(whole, whole)
    runs.note(at.ledger, at.run.id, requested=0)
    return conclude(at)


def _compare_here(
    at: OpenRun, settings: Settings, number: int, numbers: list[int], *, give_up: bool
) -> None:
    try:
        for n in numbers:
            if pacing.unstopped(at, n, number).granted:
                _verify_here(at, settings, number, n)
    except TransientError:
        # Such as a follower that died, while no other one has taken over yet.
        if give_up:
            raise
        time.sleep(POLL_SECONDS)


def _send_next(at: OpenRun, settings: Settings, number: int, left: list[int], sent: int) -> int:
    """Send the next chunks if the queue has room for them; returns the last chunk sent."""
    unsent = [n for n in left if n > sent][: settings.wave_size]
    with suppress(BrokerAway), dispatch.broker_errors():
        if unsent and dispatch.queued("verify") < settings.wave_size:
            verification.send(at.run.id, unsent, number)
            return unsent[-1]
    return sent


def _verify_here(at: OpenRun, settings: Settings, number: int, n: int) -> None:
    attempt = Attempt(worker=place.name_here(settings.actor), most=settings.max_attempts)
    share = verify.is_in_share(n, settings.verify_share)
    verify.verify_chunk(at, n, attempt, verification=number, independent=share)


def found(at: OpenRun, *, limit: int = 0) -> list[dict[str, Any]]:
    """The mismatches listed, by id, target, field and kind."""
    return mismatches.listed(at.ledger, at.run.id, limit=limit)
