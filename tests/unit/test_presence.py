"""Presence: which workers count as living, and when a claim's worker counts as dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import fakeredis
import pytest
import redis
from bson import Binary
from celery import signals

from mongosplit.ledger.book import now
from mongosplit.ledger.claims import Claim
from worker import presence
from worker.app import HARD_SECONDS, app

HERE = socket.gethostname()
YOUNG, OLD = 1, presence.EXPIRES_SECONDS + 6
"""Ages of a claim in seconds: before and after a living worker's key must have been renewed."""


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[fakeredis.FakeRedis]:
    with fakeredis.FakeRedis() as connection:
        monkeypatch.setattr(presence, "connection", lambda: connection)
        yield connection


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = fakeredis.FakeServer()
    server.connected = False
    with fakeredis.FakeRedis(server=server) as connection:
        monkeypatch.setattr(presence, "connection", lambda: connection)
        yield


def claim(worker: str, seconds: float) -> Claim:
    since = now() - timedelta(seconds=seconds)
    return Claim("migrate", "users-1", 1, worker, "task", Binary(b""), since)


class Worker:
    """As much of a Celery worker as its signals carry."""

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname
        self.eventer = self

    def beat(self) -> None:
        answers = signals.heartbeat_sent.send(sender=self)
        assert [answer for _, answer in answers if answer is not None] == []

    def leave(self) -> None:
        answers = signals.worker_shutdown.send(sender=self)
        assert [answer for _, answer in answers if answer is not None] == []


def settle(broker: fakeredis.FakeRedis) -> None:
    """Presence has been kept for longer than any key may be missing."""
    broker.set(presence.SINCE, now().timestamp() - 10 * OLD)


@pytest.fixture(scope="module")
def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_worker_is_present_with_its_queues_from_its_first_beat(
    broker: fakeredis.FakeRedis,
) -> None:
    assert presence.present() == {}
    Worker("w1@there").beat()
    assert presence.present() == {"w1@there": ["migrate", "rollback", "sync", "verify"]}
    assert 0 < broker.ttl("mongosplit:worker:w1@there") <= presence.EXPIRES_SECONDS
    facts = json.loads(broker.get("mongosplit:worker:w1@there"))
    assert facts["pid"] == os.getpid()


def test_a_worker_that_leaves_in_order_is_absent_at_once(broker: fakeredis.FakeRedis) -> None:
    Worker("w1@there").beat()
    Worker("w2@there").beat()
    Worker("w1@there").leave()
    assert list(presence.present()) == ["w2@there"]


@pytest.mark.usefixtures("away")
def test_a_beat_without_redis_is_no_error_and_a_look_is() -> None:
    Worker("w1@there").beat()
    Worker("w1@there").leave()
    with pytest.raises(redis.RedisError):
        presence.present()


@pytest.mark.usefixtures("broker")
def test_a_claim_older_than_any_task_may_run_is_dead_even_here() -> None:
    mine = f"w1@{HERE}/{os.getpid()}"
    assert presence.is_dead(claim(mine, HARD_SECONDS + 11))
    assert not presence.is_dead(claim(mine, HARD_SECONDS - 11))


@pytest.mark.usefixtures("away")
def test_on_this_host_the_process_decides_and_redis_is_not_asked(gone: int) -> None:
    for seconds in (YOUNG, OLD):
        assert not presence.is_dead(claim(f"w1@{HERE}/{os.getpid()}", seconds))
        assert presence.is_dead(claim(f"w1@{HERE}/{gone}", seconds))


def test_elsewhere_a_worker_is_dead_when_its_key_is_missing(broker: fakeredis.FakeRedis) -> None:
    Worker("w1@there").beat()
    settle(broker)
    assert not presence.is_dead(claim("w1@there/7", OLD))
    assert presence.is_dead(claim("w2@there/7", OLD))
    broker.delete("mongosplit:worker:w1@there")
    assert presence.is_dead(claim("w1@there/7", OLD))


def test_elsewhere_a_young_claim_is_never_dead(broker: fakeredis.FakeRedis) -> None:
    Worker("w1@there").beat()
    settle(broker)
    assert not presence.is_dead(claim("w2@there/7", YOUNG))


def test_after_a_wipe_nobody_is_dead_before_every_key_must_be_back(
    broker: fakeredis.FakeRedis,
) -> None:
    Worker("w1@there").beat()
    settle(broker)
    broker.flushall()
    assert not presence.is_dead(claim("w2@there/7", OLD)), "no worker has beaten since"
    Worker("w1@there").beat()
    assert not presence.is_dead(claim("w2@there/7", OLD)), "w2 may be about to beat"
    settle(broker)
    assert presence.is_dead(claim("w2@there/7", OLD))


@pytest.mark.usefixtures("away")
def test_without_redis_nobody_elsewhere_is_dead() -> None:
    assert not presence.is_dead(claim("w1@there/7", OLD))


@pytest.mark.parametrize("worker", ["w1@there/x", f"w1@{HERE}/x"])
def test_a_claim_without_a_process_id_is_judged_by_its_key(
    broker: fakeredis.FakeRedis, worker: str
) -> None:
    settle(broker)
    assert not presence.is_dead(claim(worker, YOUNG))
    assert presence.is_dead(claim(worker, OLD))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://erika:geheim@shop:6380/2", "shop:6380"),
        ("rediss://shop", "shop:6379"),
        ("redis://[::1]:6380", "::1:6380"),
    ],
)
def test_the_address_of_redis_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, address: str
) -> None:
    monkeypatch.setattr(app.conf, "broker_url", url)
    assert presence.address() == address
