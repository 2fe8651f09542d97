"""Verification of a whole run by request, and the verdict a run comes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mongosplit import verify
from mongosplit.ledger import chunks, mismatches, runs
from mongosplit.ledger.claims import Attempt
from mongosplit.model import Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import dispatch
from worker import verification
from worker.tasks import is_in_share

POLL_SECONDS = 0.2
RESEND_SECONDS = 15.0
"""How long the number of unchecked chunks may stand still before they are sent again."""


@dataclass(frozen=True)
class Verdict:
    """What the ledger says of a run once its driver or its verification has ended."""

    run: Run
    failed: int
    unchecked: int
    mismatches: int
    checked: int

    @property
    def exit_code(self) -> int:
        """0 good, 1 chunks failed or could not be checked, 4 differences found."""
        if self.mismatches:
            return 4
        return 1 if self.failed or self.unchecked else 0


def conclude(at: OpenRun) -> Verdict:
    """Read the verdict off the ledger, and move the run to where it belongs."""
    run = runs.get(at.ledger, at.run.id)
    totals = chunks.totals(at.ledger, run.id)
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
    return Verdict(run, failed, len(unable), wrong, checked)


def reverify(at: OpenRun, settings: Settings, on_progress: Callable[[int, int], None]) -> Verdict:
    """Compare every chunk again, by the workers on the `verify` queue, or here if there are none.

    A chunk that is not applied must have nothing in the targets. `on_progress` gets how many chunks
    are checked, of how many.
    """
    number = runs.next_verification(at.ledger, at.run.id)
    whole = len(chunks.numbers(at.ledger, at.run.id, {}))
    if dispatch.listeners("verify"):
        _by_workers(at, settings, number, whole, on_progress)
    else:
        _here(at, settings, number, whole, on_progress)
    return conclude(at)


def _here(
    at: OpenRun,
    settings: Settings,
    number: int,
    whole: int,
    on_progress: Callable[[int, int], None],
) -> None:
    attempt = Attempt(worker=settings.actor)
    for done, n in enumerate(chunks.numbers(at.ledger, at.run.id, {}), start=1):
        share = is_in_share(n, settings.verify_share)
        verify.verify_chunk(at, n, attempt, verification=number, independent=share)
        on_progress(done, whole)


def _by_workers(
    at: OpenRun,
    settings: Settings,
    number: int,
    whole: int,
    on_progress: Callable[[int, int], None],
) -> None:
    sent = 0
    moved, left_before = time.monotonic(), whole
    while left := chunks.numbers(at.ledger, at.run.id, chunks.unchecked(number)):
        on_progress(whole - len(left), whole)
        unsent = [n for n in left if n > sent]
        with dispatch.broker_errors():
            if unsent and dispatch.queued("verify") < settings.wave_size:
                verification.send(at.run.id, unsent[: settings.wave_size], number)
                sent = unsent[: settings.wave_size][-1]
            elif time.monotonic() - moved > RESEND_SECONDS:
                verification.send(at.run.id, left[: settings.wave_size], number)
                moved = time.monotonic()
        if len(left) < left_before:
            moved, left_before = time.monotonic(), len(left)
        time.sleep(POLL_SECONDS)
    on_progress(whole, whole)


def found(at: OpenRun, *, limit: int = 0) -> list[dict[str, Any]]:
    """The mismatches listed, by id, target, field and kind."""
    return mismatches.listed(at.ledger, at.run.id, limit=limit)
