"""Pacing: what a chunk waits for before it begins: a permit, or the end of the throttle's stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from itertools import chain

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mongosplit import gate
from mongosplit.ledger import chunks, paces, runs
from mongosplit.ledger.book import Ledger, now
from mongosplit.ledger.paces import Pulse
from mongosplit.model import APPLIED, RunState
from mongosplit.open_run import OpenRun
from mongosplit.rate_limit import LONGEST_SLEEP_SECONDS, TOO_LONG, RateLimit, Waited
from mongosplit.verdict import STALE_SECONDS
from worker.app import app

MOST_SECONDS = 20.0
"""Longest wait for a permit inside a task: the rest of its time limit is for the chunk."""
AWAY = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, redis.BusyLoadingError)


@lru_cache(maxsize=4)
def _client(url: str, _process: int) -> redis.Redis:
    # By process: what was made before a fork must not be used after it. Short time-outs, since a
    # pause must be noticed while Redis hangs.
    return redis.Redis.from_url(
        url, socket_timeout=0.25, socket_connect_timeout=0.25, retry=Retry(NoBackoff(), 0)
    )


def line(run: str) -> RateLimit:
    """The line of one run."""
    client = _client(str(app.conf.broker_url), os.getpid())
    return RateLimit(client, f"mongosplit:pace:{run}", away=AWAY)


def admitted(ledger: Ledger, run: str, n: int) -> Waited:
    """Wait until the chunk may begin; not granted when its time is over or the run is held."""
    pulse = paces.pulse(ledger, run)
    if rate_of(pulse) is None:
        return Waited(granted=True, seconds=0.0)
    chunk = chunks.get(ledger, run, n)
    if not chunks.is_wanted(chunk):
        return Waited(granted=True, seconds=0.0)
    latest = [pulse]
    # The first look is what was read just now; the others are new ones.
    pulses = chain([pulse], iter(lambda: paces.pulse(ledger, run), None))

    def hold() -> str:
        latest[0] = next(pulses)
        state = latest[0].state
        return "" if state == RunState.RUNNING else state

    return line(run).wait(
        chunk.planned, lambda: rate_of(latest[0]), hold=hold, most_seconds=MOST_SECONDS
    )


def unstopped(
    at: OpenRun,
    n: int,
    verification: int,
    *,
    most_seconds: float = MOST_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Waited:
    """Wait until the throttle lets the chunk be compared; it takes no permit of the rate limit.

    Not granted when its time is over or the run is held. A chunk that is not applied is compared at
    once: that is the end of rolling it back, which nothing holds.
    """
    begun = time.monotonic()
    while is_stopped(pulse := paces.pulse(at.ledger, at.run.id)):
        waited = time.monotonic() - begun
        if _goes_in_a_stop(at, n, verification, pulse):
            return Waited(True, waited)
        if held := _held(at, n, verification, pulse):
            return Waited(False, waited, held)
        if waited >= most_seconds:
            return Waited(False, waited, TOO_LONG)
        sleep(LONGEST_SLEEP_SECONDS)
    return Waited(True, time.monotonic() - begun)


def _goes_in_a_stop(at: OpenRun, n: int, verification: int, pulse: Pulse) -> bool:
    if chunks.get(at.ledger, at.run.id, n).state not in APPLIED:
        return True
    # Where nobody drives the run nobody measures, and what was asked for would wait for ever.
    return is_stale(pulse) and runs.get(at.ledger, at.run.id).requested == verification


def _held(at: OpenRun, n: int, verification: int, pulse: Pulse) -> str:
    # Whoever rolls the whole run back wants the worker; the chunk is compared when it is done.
    rolling_back = pulse.state == RunState.ROLLING_BACK
    return pulse.state if rolling_back else gate.holds_verification(at, n, verification)


def sentence(at: OpenRun) -> str:
    """The pace of the run in one line: what holds it back, or its limit and who set it."""
    pulse = paces.pulse(at.ledger, at.run.id)
    limit, allowed = pulse.limit(now()), allowed_by_throttle(pulse)
    if is_stopped(pulse) and (is_stale(pulse) or pulse.verdict is None):
        return f"health was not measured within {STALE_SECONDS:.0f} s"
    if pulse.verdict and allowed is not None and (limit.rate is None or allowed < limit.rate):
        return pulse.verdict.reason
    return limit.sentence


def rate_of(pulse: Pulse, moment: datetime | None = None) -> float | None:
    """Documents per second that the whole fleet may do now: the limit, or less; None: any.

    `moment`, in UTC, is when the pulse was felt; None: just now.
    """
    limit, allowed = pulse.limit(moment or now()).rate, allowed_by_throttle(pulse)
    known = [rate for rate in (limit, allowed) if rate is not None]
    return min(known) if known else None


def allowed_by_throttle(pulse: Pulse) -> float | None:
    """Documents per second that the throttle allows; None: any, also where it is off."""
    if is_stopped(pulse):
        return 0.0
    return pulse.verdict.allowed if pulse.throttled and pulse.verdict else None


def is_stopped(pulse: Pulse) -> bool:
    """Whether the throttle stops the run, by its verdict or for want of a new one."""
    return pulse.throttled and (is_stale(pulse) or pulse.verdict is None or pulse.verdict.stop)


def is_stale(pulse: Pulse) -> bool:
    """Whether nobody has published a verdict of late."""
    return pulse.verdict_age is None or pulse.verdict_age > STALE_SECONDS
