"""Live writes: the application goes on while users are split, rolled back and split again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from bson import ObjectId
from pymongo import MongoClient

from mongosplit.ledger.book import Ledger
from ops.embedded import EmbeddedServers
from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes
from tests.integration.conftest import oid, user, users

TARGETS = ("base_users", "vendors", "newsletter_subscribers")


class Application(Thread):
    """Changes, deletes and signs up users until it is stopped; `writes` counts."""

    def __init__(self, shop: Shop, ids: list[ObjectId]) -> None:
        super().__init__(daemon=True)
        self._users, self._ids = shop.data["users"], ids
        self._stopped, self._chance = Event(), random.Random(3)
        self.writes = self.sign_ups = 0

    def run(self) -> None:
        while not self._stopped.wait(0.005):
            self._write()
            self.writes += 1

    def _write(self) -> None:
        one, chance = self._chance.choice(self._ids), self._chance.random()
        if chance < 0.6:
            change = {"vendorProfile.slogan": f"slogan {self.writes}", "lastLogin": None}
            self._users.update_one({"_id": one}, {"$set": change, "$inc": {"__v": 1}})
        elif chance < 0.8:
            self._users.update_one({"_id": one}, [{"$set": {"isVendor": {"$not": "$isVendor"}}}])
        elif chance < 0.9:
            self._users.delete_one({"_id": one})
        else:
            self.sign_ups += 1
            new = user(10**6 + self.sign_ups, {"_id": ObjectId()})
            self._users.insert_one(new)

    def stop(self) -> None:
        """Write no more."""
        self._stopped.set()
        self.join()


@contextmanager
def writing(shop: Shop) -> Iterator[Application]:
    ids = [row["_id"] for row in shop.data["users"].find({}, {"_id": 1})]
    application = Application(shop, ids)
    application.start()
    try:
        yield application
    finally:
        application.stop()


def assert_split(shop: Shop) -> None:
    """Every user, and nobody else, is in the targets, byte for byte."""
    done = shop.mongosplit("verify", "users")
    assert done.returncode == 0, done.stdout + done.stderr
    source = {row["_id"] for row in shop.data["users"].find({}, {"_id": 1})}
    assert {row["_id"] for row in shop.data["base_users"].find({}, {"_id": 1})} == source
    vendors = {row["_id"] for row in shop.data["users"].find({"isVendor": True}, {"_id": 1})}
    assert {row["_id"] for row in shop.data["vendors"].find({}, {"_id": 1})} == vendors


def test_start_ends_verified_though_users_are_written_all_the_while(shop: Shop) -> None:
    seed(shop.data["users"], 2000)
    with writing(shop) as application:
        done = shop.mongosplit(
            "start", "users", "--yes", "--chunk-size", "50", "--local-workers", "2"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert application.writes > 100
        assert application.sign_ups > 0
    assert_split(shop)


def test_chunks_rolled_back_and_retried_while_users_are_written_end_verified(shop: Shop) -> None:
    shop.data["users"].insert_many(users(100))
    done = shop.mongosplit("start", "users", "--yes", "--chunk-size", "10", "--local-workers", "1")
    assert done.returncode == 0, done.stderr
    shop.begin("follow", "users")
    theirs = {"_id": {"$gte": oid(11), "$lte": oid(30)}}
    with writing(shop) as application:
        until(lambda: application.writes > 50)
        done = shop.mongosplit("rollback", "users", "--chunks", "2-3", "--yes")
        assert done.returncode == 0, done.stderr
        before = application.writes
        until(lambda: application.writes > before + 100)
        assert [shop.data[name].count_documents(theirs) for name in TARGETS] == [0, 0, 0]
        done = shop.mongosplit("retry", "users", "--chunks", "2-3", "--yes", "--local-workers", "1")
        assert done.returncode == 0, done.stderr
    assert shop.json("status", "users")["state"] == "verified"
    assert_split(shop)


def test_a_run_that_the_oplog_would_not_outlast_is_refused_and_nothing_is_written(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        EmbeddedServers(tmp_path / "own", redis=False, oplog_mb=16) as own,
        MongoClient(own.mongo_url) as client,
    ):
        seed(client["shop"]["users"], 4000)
        ledger = Ledger.at(client, "shop_ledger")
        its = {
            "MONGOSPLIT_MONGO_URL": own.mongo_url,
            "MONGOSPLIT_DATABASE": "shop",
            "MONGOSPLIT_LEDGER_DATABASE": "shop_ledger",
        }
        small = Shop(client["shop"], ledger, {**shop.environment, **its}, tmp_path)
        typed = Typed(small, monkeypatch, capsys)
        client["other"]["rows"].insert_many([{"fills": b"0" * 2**20} for _ in range(20)])
        unplanned = typed("start", "users", "--yes", MONGOSPLIT_OPLOG_MULTIPLE="1000")
        assert (unplanned.code, ledger["runs"].count_documents({})) == (3, 0)
        assert typed("plan", "users", "--yes").code == 0
        with nothing_changes(small):
            said = typed("start", "users", "--yes", MONGOSPLIT_OPLOG_MULTIPLE="1000")
        assert (said.code, said.out) == (3, "")
        [sentence, hint] = said.err.splitlines()
        assert sentence.startswith("mongosplit: the oplog reaches back ")
        assert "1000 times the " in sentence
        assert "MONGOSPLIT_OPLOG_MULTIPLE" in hint
        again = typed("start", "users", "--yes", "--detach", MONGOSPLIT_OPLOG_MULTIPLE="0")
        assert again.code == 0, again.err
