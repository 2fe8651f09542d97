"""The sync task, and the hints by which it is asked for: what is dirty stands in the ledger.

A hint is a key in Redis that says that a message is on its way. The task takes the key away before
it reads what is dirty, so whatever was marked while the key was there is read by that task. A hint
that is lost expires, and the follower, which sees what stays dirty, asks again.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task

from mongosplit import sync
from mongosplit.errors import MongosplitError, TransientError
from mongosplit.ledger import followers
from mongosplit.ledger.claims import Attempt
from mongosplit.open_run import OpenRun
from worker import metrics, place, presence
from worker.app import HARD_SECONDS, SOFT_SECONDS, app

log = logging.getLogger(__name__)

HINT_SECONDS = 2
NEVER = 1_000_000
"""A sync is never given up: its rows stay dirty until one succeeds."""


def _hint(run: str, part: int, parts: int) -> str:
    return f"mongosplit:sync:{run}:{part}/{parts}"


def ask(run: str, part: int, parts: int) -> bool:
    """Send a sync for a part of the chunks unless one is on its way; True when it was sent.

    Raises:
        redis.RedisError, kombu.exceptions.OperationalError: Redis does not answer.
    """
    if not presence.connection().set(_hint(run, part, parts), 1, nx=True, ex=HINT_SECONDS):
        return False
    seen = {"argsrepr": f"{run} part {part + 1} of {parts}", "kwargsrepr": "dirty"}
    sync_chunks.apply_async((run, part, parts), queue="sync", **seen)
    return True


@app.task(
    name="mongosplit.sync_chunks",
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    soft_time_limit=SOFT_SECONDS,
    time_limit=HARD_SECONDS,
)
def sync_chunks(self: Task, run: str, part: int, parts: int) -> dict[str, Any]:
    """Derive again what is dirty in a part of the chunks."""
    presence.connection().delete(_hint(run, part, parts))
    holder = place.name_of(self.request.hostname)
    try:
        at = place.opened(run, holder)
    except MongosplitError as error:
        return metrics.synced(_obstacle(run, part, error))
    return metrics.synced(carry_out(at, part, parts, worker=holder, task=self.request.id or ""))


def carry_out(at: OpenRun, part: int, parts: int, *, worker: str, task: str = "") -> dict[str, Any]:
    """Sync, here; what does not work is noted for `status`, and stays dirty."""
    attempt = Attempt(worker, task, most=NEVER, is_dead=presence.is_dead)
    try:
        outcome = sync.sync_chunks(at, part, parts, attempt)
    except (TransientError, SoftTimeLimitExceeded) as error:
        log.info("sync %s part %d comes again: %s", at.run.id, part, type(error).__name__)
        return {"run": at.run.id, "n": part, "did": "comes again"}
    except MongosplitError as error:
        return _obstacle(at.run.id, part, error)
    followers.obstructed(at.ledger, at.run.id, None)
    return outcome.to_message()


def _obstacle(run: str, part: int, error: MongosplitError) -> dict[str, Any]:
    log.warning("sync %s part %d: %s", run, part, error.message)
    followers.obstructed(place.ledger(), run, error.to_document())
    return {"run": run, "n": part, "did": "could not"}
