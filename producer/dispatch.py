"""Dispatch: putting chunks on the queues, as chords or one by one, and how much waits there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import redis
from celery import chord
from kombu.exceptions import OperationalError

from mongosplit.errors import TransientError
from mongosplit.ledger.waves import Wave
from worker import presence
from worker.app import app
from worker.tasks import close_wave, migrate_chunk, rollback_chunk


class BrokerAway(TransientError):
    """Redis does not answer; the ledger loses nothing, and sending goes on when it is back."""


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn what Celery and redis-py raise when Redis is away into one error.

    Raises:
        BrokerAway: Redis does not answer.
    """
    try:
        yield
    except (OperationalError, redis.RedisError, RuntimeError) as error:
        # Celery raises a bare RuntimeError when the result store cannot be reached.
        raise BrokerAway(
            f"Redis does not answer at {presence.address()}",
            hint="check that it runs, and MONGOSPLIT_REDIS_URL (--redis-url)",
        ) from error


def send_wave(wave: Wave, pace: str) -> None:
    """Send the wave as one chord; its callback closes the wave and kicks off verification.

    `pace` is for those who read Flower.

    The header is a generator: a list would leave a subscription behind for each chunk.
    """
    key = f"{wave.run}:{wave.n}"
    header = (_chunk(wave.run, n, wave.n, pace) for n in wave.chunks)
    seen = {"argsrepr": f"{wave.run} wave {wave.n}", "kwargsrepr": f"{len(wave.chunks)} chunks"}
    callback = close_wave.si(key).set(queue="verify", **seen)
    callback.on_error(close_wave.si(key).set(queue="verify", **seen))
    with broker_errors():
        chord(header, app=app)(callback)


def send_chunks(run: str, numbers: Iterable[int], pace: str) -> None:
    """Send chunks whose message was lost, each on its own; a double is harmless."""
    with broker_errors():
        for n in numbers:
            _chunk(run, n, 0, pace).apply_async()


def send_rollbacks(run: str, numbers: Iterable[int]) -> None:
    """Send chunks to be rolled back, each on its own; a double is harmless."""
    with broker_errors():
        for n in numbers:
            seen = {"argsrepr": f"{run} #{n}", "kwargsrepr": "attempt 1, rollback"}
            rollback_chunk.apply_async((run, n), queue="rollback", **seen)


def _chunk(run: str, n: int, wave: int, pace: str):  # type: ignore[no-untyped-def] # celery has no types
    which = f"wave {wave}" if wave else "sent again"
    seen = {"argsrepr": f"{run} #{n}", "kwargsrepr": f"attempt 1, {which}, {pace}"}
    return migrate_chunk.s(run, n, wave).set(queue="migrate", **seen)


def queued(queue: str) -> int:
    """How many messages wait in a queue.

    Raises:
        BrokerAway: Redis does not answer.
    """
    with broker_errors():
        return int(presence.connection().llen(queue))


def listeners(queue: str) -> list[str]:
    """The living workers that listen on a queue.

    Raises:
        BrokerAway: Redis does not answer.
    """
    with broker_errors():
        return sorted(name for name, queues in presence.present().items() if queue in queues)


def unheard(queues: Iterable[str]) -> list[str]:
    """Those of the queues on which no living worker listens, as one short look at Redis shows.

    Raises:
        BrokerAway: Redis does not answer at once.
    """
    with broker_errors():
        heard = {queue for sign in presence.glance().values() for queue in sign.queues}
    return [queue for queue in queues if queue not in heard]


def somebody_listens(queue: str) -> bool:
    """Whether a living worker listens on a queue; nobody does where Redis is away."""
    try:
        return bool(listeners(queue))
    except BrokerAway:
        return False
