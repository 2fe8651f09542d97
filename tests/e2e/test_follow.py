"""Following: what the application writes after `start` shows in the targets, whoever follows."""

from __future__ import annotations

import json
import os
import signal

import pytest
import redis

from mongosplit.ledger import followers, runs
from mongosplit.model import RunState
from tests.conditions import until
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes, refused
from tests.integration.conftest import oid, user, users

USERS = 40
START = ("start", "users", "--yes", "--chunk-size", "10")
NO_RECHECK = {"MONGOSPLIT_RECHECK_SECONDS": "0"}
SLOWLY = 500
"""Milliseconds for which a worker's commit is held back, so that it is seen at work."""


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(shop, monkeypatch, capsys)


@pytest.fixture
def split(typed: Typed) -> Shop:
    """A verified run that nobody drives or follows."""
    shop = typed.shop
    shop.data["users"].insert_many(users(USERS))
    assert typed(*START, "--detach").code == 0
    shop.migrate_here(1, 2, 3, 4)
    runs.move(shop.ledger, "users-1", RunState.MIGRATED)
    assert typed("verify", "users").code == 0
    return shop


def named(shop: Shop, n: int, name: str) -> None:
    """The application renames a user."""
    shop.data["users"].update_one({"_id": oid(n)}, {"$set": {"username": name}})


def shown(shop: Shop, n: int, name: str) -> bool:
    """Whether the target has that name."""
    found = shop.data["base_users"].find_one({"_id": oid(n)}) or {}
    return found.get("username") == name


def shows(shop: Shop, n: int, name: str, *, seconds: float = 30) -> None:
    until(lambda: shown(shop, n, name), seconds=seconds, what=f"{name} is not shown")


def leads(shop: Shop, pid: int) -> bool:
    """Whether the process of that number is the run's follower."""
    position = followers.get(shop.ledger, "users-1")
    return position is not None and position.holder.endswith(f"/{pid}")


def test_writes_after_start_has_ended_show_once_somebody_follows(split: Shop, typed: Typed) -> None:
    named(split, 1, "later")
    split.data["users"].delete_one({"_id": oid(2)})
    assert not shown(split, 1, "later")
    follower = split.begin("follow", "users")
    shows(split, 1, "later")
    until(lambda: split.data["base_users"].count_documents({}) == USERS - 1)
    named(split, 1, "later still")
    shows(split, 1, "later still")
    assert follower.poll() is None
    assert typed("verify", "users").code == 0


def test_a_second_follower_takes_over_from_one_that_was_killed(split: Shop) -> None:
    first = split.begin("follow", "users", log="first")
    until(lambda: leads(split, first.pid))
    second = split.begin("follow", "users", log="second")
    until(lambda: "followed by" in split.log("second"))
    first.kill()
    first.wait()
    named(split, 1, "after the kill")
    shows(split, 1, "after the kill", seconds=20)
    assert leads(split, second.pid)


def test_a_verification_after_the_follower_was_killed_follows_by_itself(
    split: Shop, typed: Typed
) -> None:
    first = split.begin("follow", "users", log="first")
    until(lambda: leads(split, first.pid))
    first.kill()
    first.wait()
    named(split, 1, "nobody follows this")
    said = typed("verify", "users", **NO_RECHECK)
    assert said.code == 0, said.err
    assert shown(split, 1, "nobody follows this")


def test_a_sync_worker_derives_what_is_dirty_and_without_it_the_follower_does(
    split: Shop, typed: Typed
) -> None:
    worker = split.worker("s1", queues="sync")
    follower = split.begin("follow", "users")
    until(lambda: leads(split, follower.pid))
    at_work = {"work": "sync", "run": "users-1", "holders.worker": {"$regex": "^s1@"}}
    count = iter(range(1000))

    def derived_by_the_worker() -> bool:
        named(split, 1, f"name {next(count)}")
        return split.ledger["claims"].find_one(at_work) is not None

    with split.slowed("commitTransaction", milliseconds=SLOWLY):
        until(derived_by_the_worker)
    named(split, 2, "by the worker")
    shows(split, 2, "by the worker")
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    named(split, 3, "by the follower")
    shows(split, 3, "by the follower")
    assert typed("verify", "users").code == 0


def test_serve_follows_a_run_that_nobody_drives(split: Shop) -> None:
    assert split.json("status", "users")["state"] == "verified"
    server = split.begin("serve")
    named(split, 1, "served")
    shows(split, 1, "served")
    assert leads(split, server.pid)


def test_a_wiped_redis_loses_no_write(split: Shop, typed: Typed, broker: redis.Redis) -> None:
    split.worker("s1", queues="sync")
    follower = split.begin("follow", "users")
    until(lambda: leads(split, follower.pid))
    for n in range(1, USERS + 1):
        named(split, n, f"wiped {n}")
        if n % 10 == 0:
            broker.flushall()
    for n in range(1, USERS + 1):
        shows(split, n, f"wiped {n}")
    assert typed("verify", "users").code == 0


def test_sign_ups_beyond_the_plan_land_and_are_rolled_back_with_the_run(
    split: Shop, typed: Typed
) -> None:
    follower = split.begin("follow", "users")
    split.data["users"].insert_many([user(n) for n in range(900, 910)])
    until(lambda: split.data["base_users"].count_documents({}) == USERS + 10)
    assert typed("verify", "users").code == 0
    done = typed("rollback", "users", "--yes")
    assert done.code == 0, done.err
    assert set(split.data.list_collection_names()) == {"users"}
    assert split.data["users"].count_documents({}) == USERS + 10
    assert follower.wait(timeout=120) == 0, split.log("command")
    assert "nothing is to be followed any more" in split.log("command")


def test_a_foreign_write_is_named_told_as_a_difference_repaired_and_kept(
    split: Shop, typed: Typed
) -> None:
    follower = split.begin("follow", "users", **NO_RECHECK)
    until(lambda: leads(split, follower.pid))
    split.data["vendors"].update_one({"_id": oid(7)}, {"$set": {"slogan": "theirs"}})
    row = until(lambda: split.ledger["foreign"].find_one({}))
    assert (row["collection"], row["document_id"]) == ("vendors", oid(7))
    sentence = "somebody else wrote vendors: 1 document, 1 time, last at "
    assert sentence in typed("status", "users").out
    until(lambda: sentence in split.log("command"))

    found = typed("verify", "users", "-o", "json", **NO_RECHECK)
    assert found.code == 4, found.err
    [mismatch] = json.loads(found.out)["mismatches"]
    assert mismatch["target"] == "vendors"
    assert str(oid(7)) in str(mismatch["id"])
    done = typed("verify", "users", "--repair", **NO_RECHECK)
    assert done.code == 0, done.err
    assert "slogan" not in split.data["vendors"].find_one({"_id": oid(7)})
    [saved] = json.loads(typed("kept", "list", "users", "-o", "json").out)["documents"]
    assert saved["collection"] == "vendors"
    assert "repair" in typed("history", "users-1").out


def test_a_foreign_write_is_found_by_the_background_verification_unasked(split: Shop) -> None:
    split.begin("follow", "users", MONGOSPLIT_RECHECK_SECONDS="0.2")
    split.data["vendors"].update_one({"_id": oid(7)}, {"$set": {"slogan": "theirs"}})

    def state() -> str:
        return str((split.ledger["runs"].find_one({"_id": "users-1"}) or {})["state"])

    until(lambda: state() == RunState.MIGRATED, what="nobody has noticed")


def test_a_run_that_has_not_begun_is_not_followed(typed: Typed) -> None:
    typed.shop.data["users"].insert_many(users(10))
    assert typed("plan", "users", "--yes").code == 0
    with nothing_changes(typed.shop):
        refused(
            typed("follow", "users"),
            3,
            "users-1 has not begun: there is nothing to follow yet",
            "mongosplit start users",
        )
        assert typed("follow", "users", "--restart", "--yes").code == 3


def test_a_run_that_is_over_is_not_followed(typed: Typed) -> None:
    typed.shop.data["users"].insert_many(users(10))
    assert typed(*START, "--detach").code == 0
    assert typed("rollback", "users", "--yes").code == 0
    with nothing_changes(typed.shop):
        refused(
            typed("follow", "users-1"),
            3,
            "users-1 is over: it is rolled back",
            "mongosplit status users-1",
        )


def test_following_anew_off_a_terminal_wants_yes_and_changes_nothing(typed: Typed) -> None:
    typed.shop.data["users"].insert_many(users(10))
    assert typed(*START, "--detach").code == 0
    with nothing_changes(typed.shop):
        done = typed.shop.mongosplit("follow", "users", "--restart")
    assert done.returncode == 2
    assert "--yes" in done.stderr
