"""Starting: a worker begins when its queues are ours and both servers answer, or says why not."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any, NoReturn

import redis
from celery import signals

from mongosplit import mongo
from mongosplit.errors import MongosplitError, TransientError, UsageError
from mongosplit.settings import Settings
from worker import place, presence
from worker.app import QUEUES, app

log = logging.getLogger(__name__)

Ask = Callable[[Settings], None]
LOOKS = 30
"""How often a server that is away is looked for; each look lasts `server_seconds`."""
PAUSE_SECONDS = 0.5


@signals.celeryd_init.connect
def refuse_unknown_queues(options: dict[str, Any], **_: Any) -> None:
    """End the worker before it consumes anything when it is to listen on a queue we have not."""
    given = options.get("queues") or ()
    names = given.split(",") if isinstance(given, str) else given
    unknown = [name for name in names if name not in QUEUES]
    if unknown:
        known = f"the queues are {', '.join(QUEUES)}: for a migration give -Q migrate,verify"
        raise SystemExit(f'mongosplit worker: there is no queue "{unknown[0]}"\n  {known}')


@signals.celeryd_after_setup.connect
def wait_for_servers(**_: Any) -> None:
    """Wait until Redis and MongoDB answer; end the worker when they do not in time, or refuse it.

    What the worker says of it names hosts and ports, and nothing else of a URL.
    """
    try:
        with _stoppable():
            _wait(place.settings())
    except MongosplitError as error:
        log.critical("the worker ends: %s; %s", error.message, error.hint)
        raise SystemExit(1) from None


def _wait(settings: Settings) -> None:
    seconds = settings.server_seconds
    away = _away(settings, (_ask_redis, _ask_mongodb))
    if not away:
        return
    for look in range(1, LOOKS + 1):
        who = " and ".join(away.values())
        log.warning("%s: the worker waits (%d of %d)", who, look, LOOKS)
        end = time.monotonic() + seconds
        while away and time.monotonic() < end:
            Event().wait(PAUSE_SECONDS)
            away = _away(settings, away)
        if not away:
            log.warning("Redis and MongoDB answer: the worker begins")
            return
    hint = "check that it runs; what supervises the worker starts it again"
    raise TransientError(f"{' and '.join(away.values())}, looked for {LOOKS} times", hint=hint)


def _away(settings: Settings, asked: Iterable[Ask]) -> dict[Ask, str]:
    """Who of those that are asked does not answer, with a sentence for each.

    Raises:
        MongosplitError: one answers and refuses us, which waiting does not mend.
    """
    found = {}
    for ask in asked:
        try:
            ask(settings)
        except TransientError as error:
            found[ask] = error.message
    return found


def _ask_redis(_: Settings) -> None:
    where = presence.address()
    try:
        with redis.Redis.from_url(
            str(app.conf.broker_url), socket_timeout=2, socket_connect_timeout=2
        ) as asked:
            asked.ping()
    except redis.AuthenticationError as error:
        hint = "check MONGOSPLIT_REDIS_URL"
        raise UsageError(f"Redis at {where} refuses name or password", hint=hint) from error
    except redis.RedisError as error:
        raise TransientError(f"Redis does not answer at {where}") from error


def _ask_mongodb(settings: Settings) -> None:
    # Closed before the pool forks: what was made before a fork must not be used after it.
    url, seconds = settings.mongo_url, settings.server_seconds
    with (
        mongo.explained(url),
        mongo.connect(url, seconds=seconds, application="mongosplit-worker") as asked,
    ):
        asked.admin.command("ping")


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGQUIT end the worker while it waits; Celery heeds them only later.

    As the first process of a container it would be deaf to them otherwise.
    """
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(*_: Any) -> NoReturn:
    log.warning("stopped while it waited")
    sys.exit(0)
