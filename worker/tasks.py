"""The tasks: a few lines each around one function of `mongosplit`; arguments are ids only."""

from __future__ import annotations

from typing import Any

from celery import Task

from mongosplit import breaker, migrate, rollback, verify
from mongosplit.ledger import checked, chunks
from mongosplit.ledger.book import Ledger
from worker import pacing, place
from worker.app import HARD_SECONDS, SOFT_SECONDS, app
from worker.guard import Duty
from worker.metrics import carry_out
from worker.verification import close_and_verify, roll_back_and_verify

CHUNK: dict[str, Any] = {
    "bind": True,
    "acks_late": True,
    "reject_on_worker_lost": True,
    "retry_on_worker_lost": True,
    "default_retry_delay": 1,
    "max_retries": None,
    "ignore_result": True,
    "soft_time_limit": SOFT_SECONDS,
    "time_limit": HARD_SECONDS,
}


@app.task(name="mongosplit.migrate_chunk", **CHUNK)
def migrate_chunk(self: Task, run: str, n: int, wave: int = 0) -> dict[str, Any]:
    """Migrate one chunk in one transaction."""
    duty = Duty(
        migrate.WORK,
        run,
        n,
        work=lambda at, attempt: migrate.migrate_chunk(at, n, attempt),
        give_up=lambda ledger, error, actor: _fail(ledger, run, n, error, actor),
        wave=wave,
        admit=lambda at: pacing.admitted(at.ledger, run, n),
    )
    return carry_out(self, duty)


def _fail(ledger: Ledger, run: str, n: int, error: dict[str, str], actor: str) -> None:
    if chunks.fail(ledger, run, n, error, actor=actor):
        breaker.look(ledger, run)


@app.task(name="mongosplit.rollback_chunk", **CHUNK)
def rollback_chunk(self: Task, run: str, n: int) -> dict[str, Any]:
    """Roll one chunk back in one transaction."""
    duty = Duty(
        rollback.WORK,
        run,
        n,
        work=lambda at, attempt: roll_back_and_verify(at, n, attempt),
        give_up=lambda ledger, error, actor: chunks.undo_refused(
            ledger, run, n, error, actor=actor
        ),
    )
    return carry_out(self, duty)


@app.task(name="mongosplit.verify_chunk", **CHUNK)
def verify_chunk(self: Task, run: str, n: int, verification: int) -> dict[str, Any]:
    """Compare one chunk byte for byte."""
    duty = Duty(
        verify.WORK,
        run,
        n,
        work=lambda at, attempt: verify.verify_chunk(
            at,
            n,
            attempt,
            verification=verification,
            independent=verify.is_in_share(n, float(at.run.options["verify_share"])),
        ),
        give_up=lambda ledger, error, actor: checked.not_checked(
            ledger, run, n, verification, error, actor=actor
        ),
        admit=lambda at: pacing.unstopped(at, n, verification),
    )
    return carry_out(self, duty)


@app.task(name="mongosplit.close_wave", acks_late=True, ignore_result=True)
def close_wave(key: str) -> str:
    """The chord's callback and its error callback: close the wave, and kick off its verification.

    One argument, `run:wave`: an error callback of more would be called inside the worker's main
    process, where no MongoDB client may be made.
    """
    run, _, wave = key.rpartition(":")
    return close_and_verify(place.ledger(), run, int(wave), by="callback")
