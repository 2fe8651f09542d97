"""The guard around every chunk task: open the run, do the work, turn any error into a next step."""

from __future__ import annotations

import logging
import random
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NoReturn

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task
from pymongo.errors import PyMongoError

from mongosplit.errors import DefinitionChanged, Failed, MongosplitError, TransientError, Waiting
from mongosplit.ledger import claims
from mongosplit.ledger.book import Ledger, now
from mongosplit.ledger.claims import Attempt
from mongosplit.model import Outcome
from mongosplit.mongo import explained_chunk
from mongosplit.open_run import OpenRun
from mongosplit.rate_limit import TOO_LONG, Waited
from worker import pacing, place, presence
from worker.app import LONGEST_COUNTDOWN_SECONDS, SOFT_SECONDS

log = logging.getLogger(__name__)

FENCE_SECONDS = 2.0
_ATTEMPT = re.compile(r"^attempt \d+, ")
NOTICED_SECONDS = 0.1
"""From how long a wait the pace is told with the outcome."""


class NoPermit(Waiting):
    """The pace has let the chunk not begin in time; its message comes again."""


@dataclass(frozen=True)
class Duty:
    """What a chunk task is to do: its kind, its chunk, the work, and what giving it up means."""

    kind: str
    run: str
    n: int
    work: Callable[[OpenRun, Attempt], Outcome]
    give_up: Callable[[Ledger, dict[str, str], str], object]
    wave: int = 0
    admit: Callable[[OpenRun], Waited] | None = None
    """What it waits for before the work; None: for nothing."""

    def __str__(self) -> str:
        return f"{self.kind} {self.run} #{self.n}"


def carry_out(task: Task, duty: Duty) -> dict[str, Any]:
    """Do the duty; return its Outcome, or have Celery try it again, or give it up.

    No error of the chunk leaves this function, so that a wave comes to its end.
    """
    try:
        return _work(task, duty)
    except Waiting as error:
        # For another transaction, for a permit, for the follower: that is not a failed attempt.
        _again(task, duty, FENCE_SECONDS, error)
    except DefinitionChanged as error:
        # Another worker may hold the right version, so the message goes round a few times.
        if task.request.retries < place.settings().max_attempts:
            _again(task, duty, FENCE_SECONDS, error)
        return _give_up(task, duty, error)
    except (TransientError, SoftTimeLimitExceeded) as error:
        return _again_or_give_up(task, duty, _as_ours(error))
    except MongosplitError as error:
        return _give_up(task, duty, error)
    except Exception as error:  # noqa: BLE001 - a bug ends as a failed chunk, not as a lost one
        # The message may hold values of documents; where it happened holds none.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s: %s\n%s", duty, type(error).__name__, where)
        return _give_up(task, duty, Failed(f"{type(error).__name__} in the worker; see its log"))


def _work(task: Task, duty: Duty) -> dict[str, Any]:
    holder = place.name_of(task.request.hostname)
    with explained_chunk(duty.run, duty.n):
        at = place.opened(duty.run, holder)
    attempt = Attempt(
        worker=holder,
        task=task.request.id or "",
        wave=duty.wave,
        most=place.settings().max_attempts,
        is_dead=presence.is_dead,
    )
    if duty.admit is None:
        return duty.work(at, attempt).to_message()
    with explained_chunk(duty.run, duty.n):
        waited = duty.admit(at)
        # Whoever watches the events in Flower reads there at what pace it goes, or why it does not.
        pace = pacing.sentence(at) if waited.seconds >= NOTICED_SECONDS else ""
    if waited.reason == TOO_LONG:
        raise NoPermit(f"no permit within {pacing.MOST_SECONDS:.0f} s: {pace}")
    if not waited.granted:
        return Outcome(duty.run, duty.n, "held", waited.reason).to_message()
    outcome = replace(duty.work(at, attempt), waited=int(waited.seconds * 1000))
    return outcome.to_message() | ({"pace": pace} if pace else {})


def _as_ours(error: Exception) -> TransientError:
    if isinstance(error, TransientError):
        return error
    return TransientError(f"took longer than {SOFT_SECONDS} s and was stopped")


def _again_or_give_up(task: Task, duty: Duty, error: TransientError) -> dict[str, Any]:
    most = place.settings().max_attempts
    try:
        tries = claims.attempts(place.ledger(), duty.kind, duty.run, duty.n)
    except PyMongoError:
        # Without the ledger nothing can be given up: wait until it is back.
        tries = min(task.request.retries + 1, most - 1)
    if tries >= most:
        return _give_up(task, duty, Failed(f"{error.message}; tried {tries} times"))
    longest = min(LONGEST_COUNTDOWN_SECONDS, place.settings().retry_seconds * 2**tries)
    _again(task, duty, random.uniform(0.5, 1.0) * longest, error, attempt=tries + 1)


def _again(
    task: Task, duty: Duty, seconds: float, error: MongosplitError, *, attempt: int | None = None
) -> NoReturn:
    log.info("%s waits %.1f s: %s", duty, seconds, error.message)
    try:
        moment = now() + timedelta(seconds=seconds + 1)
        claims.wait_until(place.ledger(), duty.kind, duty.run, duty.n, moment)
    except PyMongoError:
        log.info("%s: the ledger does not answer, so the wait is not noted", duty)
    raise task.retry(countdown=seconds, max_retries=None, **_shown(task, attempt))


def _shown(task: Task, attempt: int | None) -> dict[str, str]:
    """How the next message of the chunk is shown in Flower: as this one, with its attempt."""
    told = task.request.get("kwargsrepr") or ""
    if attempt is not None:
        told = f"attempt {attempt}, {_ATTEMPT.sub('', told)}"
    return {"argsrepr": task.request.get("argsrepr") or "", "kwargsrepr": told}


def _give_up(task: Task, duty: Duty, error: MongosplitError) -> dict[str, Any]:
    log.warning("%s is given up: %s", duty, error.message)
    duty.give_up(place.ledger(), error.to_document(), place.name_of(task.request.hostname))
    return Outcome(duty.run, duty.n, "gave up", "").to_message()
