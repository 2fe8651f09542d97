"""Presence: which workers are alive, by a key in Redis that each renews every two seconds.

The key says that the worker lives, which queues it listens on, and which version of the declaration
it holds. Redis may be wiped: the keys are back with the next heartbeat, and nothing is decided on
them but who is waited for.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import redis
from celery import signals
from redis.backoff import NoBackoff
from redis.retry import Retry

from mongosplit import definition, pipelines
from mongosplit.errors import MongosplitError
from mongosplit.ledger.book import now
from mongosplit.ledger.claims import Claim
from mongosplit.settings import read_settings
from worker.app import HARD_SECONDS, app

PREFIX = "mongosplit:worker:"
SINCE = "mongosplit:presence-since"
"""When presence began: a wipe takes it away, and absence proves nothing until it is old again."""
EXPIRES_SECONDS = 10
GLANCE_SECONDS = 0.5


@dataclass(frozen=True)
class Sign:
    """What a living worker says of itself.

    `fingerprint` is the version of `migration` that it holds, both empty where it could not tell;
    `ahead` is by how many seconds its clock is ahead of that of Redis.
    """

    queues: list[str]
    migration: str
    fingerprint: str
    ahead: float


@lru_cache(maxsize=4)
def _redis(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def connection() -> redis.Redis:
    """A connection to the broker's Redis."""
    return _redis(str(app.conf.broker_url))


def address() -> str:
    """Where the broker's Redis is, without user, password or database."""
    parts = urlsplit(str(app.conf.broker_url))
    return f"{parts.hostname}:{parts.port or 6379}"


@lru_cache(maxsize=1)
def _held() -> dict[str, str]:
    """The migration of this worker's settings, and which version of it this process holds."""
    try:
        name = read_settings().migration
        return {
            "migration": name,
            "fingerprint": pipelines.fingerprint(definition.load(name)),
        }
    except MongosplitError:
        # A run of it says what is wrong; this worker may serve others.
        return {}


@signals.heartbeat_sent.connect
def _renew(sender: Any, **_: Any) -> None:
    hostname = sender.eventer.hostname
    facts: dict[str, Any] = {"pid": os.getpid(), **_held()}
    # Timed last: the first look at the declaration takes a while.
    facts |= {"queues": sorted(app.amqp.queues.consume_from), "at": time.time()}
    try:
        connection().set(PREFIX + hostname, json.dumps(facts), ex=EXPIRES_SECONDS)
        connection().set(SINCE, time.time(), nx=True)
    except redis.RedisError:
        # Redis is away: Celery itself is trying to reach it and says so; the next beat renews.
        return


@signals.worker_shutdown.connect
def _leave(sender: Any, **_: Any) -> None:
    try:
        connection().delete(PREFIX + sender.hostname)
    except redis.RedisError:
        # The key expires by itself.
        return


def present() -> dict[str, list[str]]:
    """The queues each living worker listens on, by the worker's name.

    Raises:
        redis.RedisError: Redis is away.
    """
    return {name: sign.queues for name, sign in signs().items()}


def signs() -> dict[str, Sign]:
    """What each living worker says of itself, by the worker's name.

    Raises:
        redis.RedisError: Redis is away.
    """
    return _signs(connection())


def glance() -> dict[str, Sign]:
    """The same for somebody who only looks, and would rather not know than wait.

    Raises:
        redis.RedisError: Redis does not answer at once.
    """
    never_twice = Retry(NoBackoff(), 0)
    with redis.Redis.from_url(
        str(app.conf.broker_url),
        socket_timeout=GLANCE_SECONDS,
        socket_connect_timeout=GLANCE_SECONDS,
        retry=never_twice,
    ) as hasty:
        return _signs(hasty)


def _signs(at: redis.Redis) -> dict[str, Sign]:
    found: dict[str, Sign] = {}
    for key in at.scan_iter(match=PREFIX + "*", count=500):
        together = at.pipeline()
        together.get(key)
        together.pttl(key)
        together.time()
        facts, left, time_ = together.execute()
        if facts is not None:
            # The key's age, by the clock of Redis, tells when it was set.
            set_at = _seconds(time_) - (EXPIRES_SECONDS - left / 1000)
            found[key.decode().removeprefix(PREFIX)] = _sign(json.loads(facts), set_at)
    return found


def _sign(facts: dict[str, Any], set_at: float) -> Sign:
    # A worker of older code says less.
    held = str(facts.get("migration", "")), str(facts.get("fingerprint", ""))
    return Sign(facts["queues"], *held, ahead=facts["at"] - set_at)


def moment() -> float:
    """The present by the clock of Redis, in seconds since 1970.

    Raises:
        redis.RedisError: Redis is away.
    """
    return _seconds(connection().time())


def _seconds(told: tuple[int, int]) -> float:
    return told[0] + told[1] / 1_000_000


def is_dead(claim: Claim) -> bool:
    """Whether the worker of a claim is known to be dead; in doubt it is alive.

    Known: its process is gone from this host, or its claim is older than any task may run.
    """
    if now() - claim.since > timedelta(seconds=HARD_SECONDS + 10):
        return True
    name, _, process = claim.worker.rpartition("/")
    if name.endswith("@" + socket.gethostname()) and process.isdigit():
        return not os.path.exists(f"/proc/{process}") if os.path.isdir("/proc/self") else False
    return _is_absent(name, claim)


def _is_absent(name: str, claim: Claim) -> bool:
    """Whether a worker elsewhere has not renewed its key, in a Redis that was not wiped lately."""
    settled = EXPIRES_SECONDS + 5
    if now() - claim.since < timedelta(seconds=settled):
        return False
    try:
        since = connection().get(SINCE)
        return (
            since is not None
            and time.time() - float(since) > settled
            and not connection().exists(PREFIX + name)
        )
    except redis.RedisError:
        return False
