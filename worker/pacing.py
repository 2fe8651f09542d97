"""Pacing: waiting for a permit before a chunk, at the pace that the ledger says."""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import chain

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mongosplit.ledger import chunks, paces
from mongosplit.ledger.book import Ledger, now
from mongosplit.ledger.paces import Pulse
from mongosplit.model import RunState
from mongosplit.rate_limit import RateLimit, Waited
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


def rate_of(pulse: Pulse) -> float | None:
    """Documents per second that the whole fleet may do now: the limit, or less; None: any."""
    limit = pulse.limit(now()).rate
    if not pulse.throttled:
        return limit
    verdict = pulse.verdict
    if verdict is None or pulse.verdict_age is None or pulse.verdict_age > STALE_SECONDS:
        return 0.0
    allowed = 0.0 if verdict.stop else verdict.allowed
    known = [rate for rate in (limit, allowed) if rate is not None]
    return min(known) if known else None
