"""Workers in a bad place: a server away, a queue that is none, a queue on which nobody listens."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from pymongo import MongoClient

from mongosplit.ledger.book import Ledger
from ops.embedded import EmbeddedServers
from ops.seed import seed
from producer.doctor_workers import LISTEN
from tests.conditions import until
from tests.e2e.conftest import Shop
from worker.presence import PREFIX

NOWHERE = "127.0.0.1:9"
SECRET = "geheim-4711"
NO_REDIS = "Redis does not answer at "
NO_MONGODB = "does not answer as a replica set with a primary"
READY = " ready."
START = ("start", "users", "--yes", "--chunk-size", "10")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedServers]:
    """Servers that may be killed: the session's must not be stopped under other tests."""
    with EmbeddedServers(tmp_path / "own", failpoints=True) as servers:
        yield servers


def of_own(own: EmbeddedServers) -> dict[str, str]:
    """The settings of a worker that uses these servers."""
    urls = {"MONGOSPLIT_MONGO_URL": own.mongo_url, "MONGOSPLIT_REDIS_URL": own.redis_url}
    return {**urls, "MONGOSPLIT_SERVER_SECONDS": "1"}


def assert_plain(said: str) -> None:
    assert "Traceback" not in said
    assert SECRET not in said


# A server away


@pytest.mark.parametrize(
    ("away", "sentences"),
    [
        (("redis",), (NO_REDIS,)),
        (("mongodb",), (NO_MONGODB,)),
        (("redis", "mongodb"), (NO_REDIS, NO_MONGODB)),
    ],
)
def test_a_worker_started_while_a_server_is_away_says_so_and_works_when_it_is_back(
    shop: Shop, own: EmbeddedServers, away: tuple[str, ...], sentences: tuple[str, ...]
) -> None:
    if "redis" in away:
        own.kill_redis()
    if "mongodb" in away:
        own.kill_mongod(0)
    worker = shop.worker(**of_own(own))
    until(lambda: "the worker waits (2 of 30)" in shop.log("w1"))
    assert all(sentence in shop.log("w1") for sentence in sentences)
    assert READY not in shop.log("w1")
    if "redis" in away:
        own.start_redis()
    if "mongodb" in away:
        own.start_mongod(0)
    until(lambda: READY in shop.log("w1"))
    assert "Redis and MongoDB answer: the worker begins" in shop.log("w1")
    worker.terminate()
    assert worker.wait(90) == 0
    assert_plain(shop.log("w1"))


def test_a_worker_looks_thirty_times_and_ends_with_a_sentence(shop: Shop) -> None:
    worker = shop.worker(
        MONGOSPLIT_MONGO_URL=f"mongodb://erika:{SECRET}@{NOWHERE}/",
        MONGOSPLIT_REDIS_URL=f"redis://:{SECRET}@{NOWHERE}/0",
        MONGOSPLIT_SERVER_SECONDS="0.05",
    )
    assert worker.wait(120) == 1
    said = shop.log("w1")
    assert said.count("the worker waits (") == 30
    assert said.splitlines()[-1].endswith(
        f"the worker ends: {NO_REDIS}{NOWHERE} and MongoDB at {NOWHERE} {NO_MONGODB}, "
        "looked for 30 times; check that it runs; what supervises the worker starts it again"
    )
    assert_plain(said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_waits_can_be_stopped(shop: Shop, number: int) -> None:
    worker = shop.worker(MONGOSPLIT_REDIS_URL=f"redis://{NOWHERE}/0")
    until(lambda: "the worker waits (1 of 30)" in shop.log("w1"))
    worker.send_signal(number)
    assert worker.wait(60) == 0
    assert_plain(shop.log("w1"))


@pytest.mark.parametrize("name", ["MONGOSPLIT_MONGO_URL", "MONGOSPLIT_REDIS_URL"])
def test_a_server_that_refuses_the_worker_is_not_waited_for(shop: Shop, name: str) -> None:
    locked = shop.environment[name].replace("://", f"://erika:{SECRET}@")
    worker = shop.worker(**{name: locked})
    assert worker.wait(90) == 1
    said = shop.log("w1")
    assert "the worker ends: " in said
    assert "name or password" in said or "the user name or the password" in said
    assert "the worker waits" not in said
    assert_plain(said)


@pytest.fixture
def own_shop(own: EmbeddedServers, tmp_path: Path) -> Iterator[Shop]:
    """A shop on servers that may be killed."""
    with MongoClient[dict[str, Any]](own.mongo_url) as client:
        settings = {
            **of_own(own),
            "PATH": "/usr/bin:/bin",
            "MONGOSPLIT_DATABASE": "shop",
            "MONGOSPLIT_LEDGER_DATABASE": "ledger",
            "MONGOSPLIT_RETRY_SECONDS": "0.2",
            "MONGOSPLIT_THROTTLE": "off",
        }
        found = Shop(client["shop"], Ledger.at(client, "ledger"), settings, tmp_path)
        try:
            yield found
        finally:
            found.stop()


def test_a_chunk_that_is_begun_while_mongodb_is_away_waits_until_it_is_back(
    own_shop: Shop, own: EmbeddedServers
) -> None:
    shop = own_shop
    seed(shop.data["users"], 30)
    shop.worker("w1", queues="verify", MONGOSPLIT_MAX_ATTEMPTS="2")
    until(lambda: READY in shop.log("w1"))
    driver = shop.begin(*START)
    with redis.Redis.from_url(own.redis_url) as broker:
        until(lambda: broker.llen("migrate") == 3)
    driver.kill()
    driver.wait()
    own.kill_mongod(0)
    with Celery(broker=own.redis_url) as app:
        app.control.add_consumer("migrate")
        app.close()
    # More often than the chunk may fail: that it could not be begun is no failed attempt.
    until(lambda: shop.log("w1").count("the ledger does not answer") >= 4)
    own.start_mongod(0)
    shop.worker("w2", queues="migrate,verify")
    done = shop.mongosplit(*START)
    assert done.returncode == 0, done.stderr
    status = shop.json("status", "users")
    assert (status["state"], status["documents"]["migrated"]) == ("verified", 30)
    assert "is given up" not in shop.log("w1")
    assert_plain(shop.log("w1"))


# A queue that is none


@pytest.mark.parametrize("queues", ["migrat", "migrate,verfy"])
def test_a_worker_for_an_unknown_queue_ends_with_a_sentence_and_has_taken_nothing(
    shop: Shop, broker: redis.Redis, queues: str
) -> None:
    broker.rpush("migrate", "{}")
    worker = shop.worker(queues=queues)
    assert worker.wait(90) == 1
    wrong = queues.rpartition(",")[2]
    assert shop.log("w1").splitlines()[-2:] == [
        f'mongosplit worker: there is no queue "{wrong}"',
        "  the queues are migrate, verify, rollback, sync: for a migration give -Q migrate,verify",
    ]
    assert_plain(shop.log("w1"))
    assert broker.llen("migrate") == 1
    assert not list(broker.scan_iter(PREFIX + "*"))


# A queue on which nobody listens


def unheard(shop: Shop, **changes: str) -> dict[str, int]:
    """How many chunks wait on each queue without a listener, as status tells in both forms."""
    told = json.loads(shop.mongosplit("status", "users", "-o", "json", **changes).stdout)
    found = told["listening"]
    assert found["obstacle"] == ""
    plain = shop.mongosplit("status", "users", **changes).stdout
    assert plain.count("no worker listens on queue ") == len(found["unheard"])
    for row in found["unheard"]:
        assert f"no worker listens on queue {row['queue']}: {row['chunks']} chunk" in plain
        assert f"; {LISTEN[row['queue']]}" in plain
    return {row["queue"]: row["chunks"] for row in found["unheard"]}


def test_status_names_the_queues_on_which_chunks_wait_and_nobody_listens(
    shop: Shop,
) -> None:
    seed(shop.data["users"], 40)
    assert shop.mongosplit(*START, "--detach").returncode == 0
    assert unheard(shop) == {"migrate": 4}
    shop.migrate_here(1)
    assert unheard(shop) == {"migrate": 3, "verify": 1}

    shop.worker("w1")
    done = shop.mongosplit(*START)
    assert done.returncode == 0, done.stderr
    assert unheard(shop) == {}


def test_a_rollback_for_which_nobody_listens_is_named_by_status(shop: Shop) -> None:
    seed(shop.data["users"], 40)
    shop.worker("w1")
    done = shop.mongosplit(*START)
    assert done.returncode == 0, done.stderr
    with shop.slowed("delete", milliseconds=5_000, application="mongosplit"):
        verb = shop.begin("rollback", "users", "--yes", log="rollback")
        until(lambda: shop.ledger["chunks"].find_one({"undo": {"$exists": True}}))
        assert unheard(shop) == {"rollback": 5}  # the tail is one of them
        verb.kill()
        verb.wait()
    assert unheard(shop)["rollback"] >= 3
    shop.worker("r1", queues="rollback")
    until(lambda: READY in shop.log("r1"))
    until(lambda: unheard(shop) == {})
    done = shop.mongosplit("rollback", "users", "--yes")
    assert done.returncode == 0, done.stderr
    assert unheard(shop) == {}
    assert shop.json("status", "users")["state"] == "rolled_back"


def assert_not_known(shop: Shop, where: str) -> None:
    url = f"redis://{where}/0"
    said = shop.mongosplit("status", "users", MONGOSPLIT_REDIS_URL=url)
    assert said.returncode == 0, said.stderr
    assert f"{NO_REDIS}{where}: whether workers listen is not known" in said.stdout
    assert "no worker listens" not in said.stdout


def test_status_without_redis_says_that_nobody_knows_who_listens(shop: Shop) -> None:
    seed(shop.data["users"], 40)
    assert shop.mongosplit(*START, "--detach").returncode == 0
    assert_not_known(shop, NOWHERE)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        # It takes the connection and never answers.
        assert_not_known(shop, f"127.0.0.1:{deaf.getsockname()[1]}")
