"""Whatever dies or is lost on the way, the run ends verified and every byte is right."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import redis
from pymongo import MongoClient

from mongosplit.model import ChunkState
from ops.embedded import EmbeddedServers
from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import Shop

USERS, CHUNK = 1500, 50
START = ("start", "users", "--yes", "--chunk-size", str(CHUNK), "--wave-size", "8")


@pytest.fixture
def slow_commits(client: MongoClient[dict[str, Any]]) -> Any:
    """Every commit takes longer, so that there is time to break things in the middle."""
    client.admin.command(
        "configureFailPoint",
        "failCommand",
        mode="alwaysOn",
        data={
            "failCommands": ["commitTransaction"],
            "blockConnection": True,
            "blockTimeMS": 150,
            "appName": "mongosplit-worker",
        },
    )
    yield
    client.admin.command("configureFailPoint", "failCommand", mode="off")


def migrated(shop: Shop) -> int:
    states = shop.states()
    return states.get(ChunkState.MIGRATED, 0) + states.get(ChunkState.VERIFIED, 0)


def assert_all_is_right(shop: Shop) -> None:
    status = shop.json("status", "users")
    assert status["state"] == "verified", status
    assert status["documents"]["migrated"] == USERS
    assert shop.data["base_users"].count_documents({}) == USERS
    assert shop.json("verify", "users")["mismatches"] == []


@pytest.mark.usefixtures("slow_commits")
def test_a_driver_killed_in_the_middle_is_followed_by_another(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    shop.worker()
    driver = shop.begin(*START)
    until(lambda: migrated(shop) >= 6)
    driver.kill()
    driver.wait()
    done = shop.mongosplit(*START)
    assert done.returncode == 0, done.stderr
    assert_all_is_right(shop)


@pytest.mark.usefixtures("slow_commits")
def test_a_wiped_redis_costs_time_and_no_chunk(shop: Shop, broker: redis.Redis) -> None:
    seed(shop.data["users"], USERS)
    shop.worker()
    driver = shop.begin(*START)
    until(lambda: migrated(shop) >= 6)
    broker.flushall()
    assert driver.wait(timeout=90) == 0, shop.log("command")
    assert_all_is_right(shop)


@pytest.mark.usefixtures("slow_commits")
def test_a_worker_killed_in_the_middle_holds_nobody_up(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    victim = shop.worker("w1")
    driver = shop.begin(*START)
    until(lambda: migrated(shop) >= 3)
    os.killpg(victim.pid, signal.SIGKILL)
    shop.worker("w2")
    # A dead worker's transaction would hold its fence for 60 s and more.
    assert driver.wait(timeout=55) == 0, shop.log("command")
    assert_all_is_right(shop)


@pytest.mark.usefixtures("slow_commits")
def test_a_killed_child_process_is_followed_by_another_at_once(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    shop.worker("w1")
    driver = shop.begin(*START)
    until(lambda: migrated(shop) >= 3)
    claim = until(lambda: shop.ledger["claims"].find_one({"holders.0.worker": {"$exists": True}}))
    os.kill(int(claim["holders"][0]["worker"].rpartition("/")[2]), signal.SIGKILL)
    assert driver.wait(timeout=55) == 0, shop.log("command")
    assert_all_is_right(shop)


def test_transient_errors_are_tried_again_by_the_worker_until_they_pass(
    shop: Shop, client: MongoClient[dict[str, Any]]
) -> None:
    seed(shop.data["users"], 500)
    client.admin.command(
        "configureFailPoint",
        "failCommand",
        mode={"times": 30},
        data={
            "failCommands": ["commitTransaction"],
            "errorCode": 251,
            "errorLabels": ["TransientTransactionError"],
            "appName": "mongosplit-worker",
        },
    )
    try:
        shop.worker()
        done = shop.mongosplit(*START, "--chunk-size", "100")
    finally:
        client.admin.command("configureFailPoint", "failCommand", mode="off")
    assert done.returncode == 0, done.stderr
    attempts = [row["attempts"] for row in shop.ledger["chunks"].find({"tail": None})]
    assert max(attempts) > 1, "no chunk needed a second try: the failpoint did nothing"


def test_tries_are_bounded_and_the_chunk_fails_with_a_sentence_until_retry(
    shop: Shop, client: MongoClient[dict[str, Any]]
) -> None:
    seed(shop.data["users"], 200)
    client.admin.command(
        "configureFailPoint",
        "failCommand",
        mode="alwaysOn",
        data={
            "failCommands": ["commitTransaction"],
            "errorCode": 251,
            "errorLabels": ["TransientTransactionError"],
            "appName": "mongosplit-worker",
        },
    )
    try:
        shop.worker(MONGOSPLIT_MAX_ATTEMPTS="2")
        done = shop.mongosplit(*START, "--chunk-size", "200")
    finally:
        client.admin.command("configureFailPoint", "failCommand", mode="off")
    assert done.returncode == 1
    status = shop.json("status", "users")
    assert status["chunks"]["failed"] == 1
    [failure] = [found for found in status["failures"] if found["chunk"] == 1]
    assert "tried 2 times" in failure["sentence"]
    assert "mongosplit retry users" in status["next"]
    assert shop.data["base_users"].count_documents({}) == 0

    again = shop.mongosplit("retry", "users", "--yes")
    assert again.returncode == 0, again.stderr
    assert shop.json("status", "users")["documents"]["migrated"] == 200


def test_redis_away_for_a_while_holds_the_run_up_and_no_longer(shop: Shop, tmp_path: Any) -> None:
    seed(shop.data["users"], USERS)
    with EmbeddedServers(tmp_path / "own", nodes=1) as own:
        # Only its Redis is used: the session's must not be stopped under other tests.
        shop.environment["MONGOSPLIT_REDIS_URL"] = own.redis_url
        shop.worker()
        driver = shop.begin(*START)
        until(lambda: migrated(shop) >= 3)
        own.kill_redis()
        until(lambda: "Redis does not answer" in shop.log("command"), seconds=60)
        own.start_redis()
        assert driver.wait(timeout=100) == 0, shop.log("command")
        assert_all_is_right(shop)


def test_a_rollback_whose_verification_was_lost_ends_though_its_wave_never_does(
    shop: Shop,
) -> None:
    seed(shop.data["users"], 200)
    assert shop.mongosplit(*START[:3], "--detach", "--chunk-size", "50").returncode == 0
    serve = shop.begin("serve", log="serve")
    until(lambda: shop.ledger["waves"].find_one(), seconds=60)
    serve.kill()
    serve.wait()
    shop.migrate_here(1, 2)
    assert shop.mongosplit("rollback", "users", "--chunks", "1", "--yes").returncode == 0
    # The worker that rolled it back was killed, or Redis was wiped, before its verification.
    lost = {"n": 1, "state": "rolled_back"}
    assert shop.ledger["chunks"].update_one(lost, {"$unset": {"checked": ""}}).modified_count
    shop.worker("w1", queues="verify,rollback")
    verb = shop.begin("rollback", "users", "--chunks", "2", "--yes", log="rollback")
    assert verb.wait(60) == 0
