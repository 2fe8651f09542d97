"""One run through everything that can happen to it; whoever dies is followed within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import timedelta
from typing import Any

import pytest
import redis
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS

from mongosplit import reference
from mongosplit.ledger.book import now
from mongosplit.users import migration
from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import EVERY_QUEUE, Shop
from tests.e2e.typed import Said, Typed
from tests.integration.conftest import users

USERS, CHUNK = 750, 25
START = ("start", "users", "--yes", "--chunk-size", str(CHUNK), "--wave-size", "60")
ROLLBACK = ("rollback", "users", "--yes")


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(shop, monkeypatch, capsys)


def good(said: Said) -> None:
    assert said.code == 0, said.err
    assert "Traceback" not in said.err


def kill(process: subprocess.Popen[bytes]) -> float:
    """End it and its children without a word; returns when."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic()


def run_of(shop: Shop) -> dict[str, Any]:
    return shop.ledger["runs"].find_one({"_id": "users-1"}) or {}


def holders(shop: Shop, work: str) -> list[tuple[int, str]]:
    """Which chunks are in hand, and the workers that have them."""
    rows = shop.ledger["claims"].find({"_id.work": work, "holders.0": {"$exists": True}})
    return [(row["_id"]["n"], held["worker"]) for row in rows for held in row["holders"]]


def just_begun(shop: Shop) -> tuple[int, str] | None:
    """A chunk that a worker has begun this moment, and the worker."""
    since = {"$gt": now() - timedelta(milliseconds=150)}
    row = shop.ledger["claims"].find_one({"_id.work": "migrate", "holders.0.since": since})
    return None if row is None else (row["_id"]["n"], row["holders"][0]["worker"])


def is_followed(shop: Shop, n: int, dead: str) -> bool:
    """Whether another worker has taken the chunk, or has done it already."""
    row = shop.ledger["chunks"].find_one({"run": "users-1", "n": n}) or {}
    takers = [holder for held, holder in holders(shop, "migrate") if held == n]
    return row["state"] != "pending" or any(taker != dead for taker in takers)


def assert_every_byte_is_right(shop: Shop) -> None:
    """The targets hold what the reference makes of each source document, once, and no more."""
    expected: dict[str, list[bytes]] = {target.collection: [] for target in migration.targets}
    raw = DEFAULT_RAW_BSON_OPTIONS
    for document in shop.data["users"].with_options(codec_options=raw).find():
        for key, part in reference.split(migration, document.raw).items():
            expected[migration.keys[key].collection].append(part)
    for name, parts in expected.items():
        there = [row.raw for row in shop.data[name].with_options(codec_options=raw).find()]
        assert len(there) == len(parts), name
        assert sorted(there) == sorted(parts), name


def test_a_run_goes_through_everything_that_can_happen_and_every_byte_is_right(
    typed: Typed, broker: redis.Redis
) -> None:
    shop = typed.shop
    seed(shop.data["users"], USERS)
    workers = {name: shop.worker(name, queues=EVERY_QUEUE) for name in ("w1", "w2", "w3")}
    until(lambda: all("ready" in shop.log(name) for name in workers))
    with shop.slowed("insert", milliseconds=120):
        driver = shop.begin(*START)

        # A worker dies with a chunk in its hands: another has it within seconds.
        until(lambda: shop.states().get("migrated", 0) > 6)

        # A worker is sent home and a new one comes, the driver dies, Redis is emptied.
        _, sent_home = workers.popitem()
        sent_home.terminate()
        workers["w4"] = shop.worker("w4", queues=EVERY_QUEUE)
        kill(driver)
        follower = shop.begin(*START, log="follower")
        broker.flushall()

        # While nobody drives, it is paused and resumed.
        good(typed("pause", "users", "--yes"))
        assert run_of(shop)["state"] == "paused"
        assert shop.states()["pending"] > 10
        good(typed("resume", "users", "--yes", "--detach"))
        until(lambda: f"process {follower.pid})" in str(run_of(shop)["lease"]))

        # A worker dies with a chunk in its hands: another has it within seconds.
        n, holder = until(lambda: just_begun(shop))
        died = kill(workers.pop(holder.partition("@")[0]))
        until(lambda: is_followed(shop, n, holder))
        assert time.monotonic() - died < 50

        # A part goes back and comes again.
        good(typed(*ROLLBACK, "--chunks", "2,5"))
        rows = shop.ledger["chunks"].find({"run": "users-1", "n": {"$in": [2, 5]}})
        assert [row["state"] for row in rows] == ["rolled_back", "rolled_back"]
        good(typed("retry", "users", "--yes", "--chunks", "2,5"))
    assert follower.wait(timeout=120) == 0, shop.log("follower")

    assert sent_home.wait(timeout=90) == 0
    assert run_of(shop)["state"] == "verified"
    assert shop.states() == {"verified": USERS // CHUNK + 1}
    assert_every_byte_is_right(shop)
    good(typed("verify", "users"))
    good(typed("history", "--check"))
    shop.assert_every_outcome_is_told()


@pytest.fixture
def four_applied(typed: Typed) -> Shop:
    """A run of four chunks, all migrated, that nobody drives."""
    shop = typed.shop
    shop.data["users"].insert_many(users(40))
    good(typed("start", "users", "--yes", "--detach", "--chunk-size", "10"))
    shop.migrate_here(1, 2, 3, 4)
    return shop


def test_a_worker_killed_in_the_middle_of_a_rollback_is_followed_within_seconds(
    typed: Typed, four_applied: Shop
) -> None:
    shop = four_applied
    workers = {name: shop.worker(name, queues="rollback,verify") for name in ("w1", "w2")}
    until(lambda: all("ready" in shop.log(name) for name in workers))
    with shop.slowed("delete", milliseconds=60_000, mode={"times": 1}):
        rollback = shop.begin(*ROLLBACK)
        until(lambda: shop.states() == {"migrated": 1, "rolled_back": 4})
        [(n, holder)] = holders(shop, "rollback")
        died = kill(workers[holder.partition("@")[0]])
        until(lambda: shop.states() == {"rolled_back": 5})
        assert time.monotonic() - died < 50
        assert rollback.wait(timeout=90) == 0, shop.log("command")
    assert run_of(shop)["state"] == "rolled_back"
    assert shop.data.list_collection_names() == ["users"]
    [undone] = [
        row
        for row in shop.outcomes()
        if (row["chunk"], row["facts"]["to"]) == (n, "rolled_back")
        and row["facts"]["from"] != "rolled_back"
    ]
    assert undone["actor"] != holder
    shop.assert_every_outcome_is_told()


def is_held_back(shop: Shop, command: str) -> bool:
    """Whether the server holds such a command of the command line back by now."""
    held = {"appName": "mongosplit", f"command.{command}": {"$exists": True}}
    stages: list[dict[str, Any]] = [{"$currentOp": {}}, {"$match": held}]
    return next(iter(shop.data.client.admin.aggregate(stages)), None) is not None


def test_a_rollback_that_is_killed_is_gone_on_with_when_typed_again(
    typed: Typed, four_applied: Shop
) -> None:
    shop = four_applied
    with shop.slowed("delete", milliseconds=60_000, application="mongosplit", mode={"times": 1}):
        rollback = shop.begin(*ROLLBACK)
        until(lambda: is_held_back(shop, "delete"))
        died = kill(rollback)
        assert run_of(shop)["state"] == "rolling_back"
        # The dead one's lease is 15 s; its transaction would hold the chunk for 60.
        good(typed(*ROLLBACK))
        assert time.monotonic() - died < 55
    assert run_of(shop)["state"] == "rolled_back"
    assert shop.data.list_collection_names() == ["users"]
    shop.assert_every_outcome_is_told()
