"""Scaling while a run lives: workers come and go, warm and cold, and every chunk is done once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from datetime import datetime
from functools import partial
from typing import Any

from celery import Celery

from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import Shop

USERS, CHUNK = 2000, 25
SECONDS = 240
START = ("start", "users", "--yes", "--chunk-size", str(CHUNK), "--wave-size", "20")
SLOW_MILLISECONDS = 150
"""So long each insert of a chunk takes at least, or the run were over before the fleet has grown.

Not its commit: a server that holds one back carries it out though the worker is gone.
"""


def done_by(shop: Shop) -> Counter[str]:
    """How many chunks each worker has migrated, by its name before the @."""
    return Counter(
        row["actor"].partition("@")[0]
        for row in shop.outcomes()
        if row["facts"]["to"] == "migrated"
    )


def at_work(shop: Shop, worker: str) -> tuple[int, datetime] | None:
    """The chunk that a worker is migrating now, and since when."""
    held = {"_id.work": "migrate", "holders.worker": {"$regex": f"^{worker}@"}}
    row = shop.ledger["claims"].find_one(held)
    return (row["_id"]["n"], row["holders"][0]["since"]) if row else None


def grown(shop: Shop) -> dict[str, subprocess.Popen[bytes]]:
    """Four workers, of which three came while the first was at work; each has done something."""
    fleet = {"w1": shop.worker("w1")}
    until(lambda: done_by(shop)["w1"] >= 2, seconds=SECONDS)
    fleet |= {name: shop.worker(name) for name in ("w2", "w3", "w4")}
    until(lambda: done_by(shop).keys() == fleet.keys(), seconds=SECONDS)
    return fleet


def rows(shop: Shop) -> list[dict[str, Any]]:
    return list(shop.ledger["chunks"].find({"run": "users-1", "tail": None}))


def assert_all_is_right(shop: Shop) -> None:
    """Each chunk became migrated once, none is lost, and the targets are right byte by byte."""
    status = shop.json("status", "users")
    assert status["state"] == "verified", status
    assert status["documents"]["migrated"] == USERS
    became = [row["chunk"] for row in shop.outcomes() if row["facts"]["to"] == "migrated"]
    assert sorted(became) == sorted(row["n"] for row in rows(shop))
    assert len(became) == USERS // CHUNK
    shop.assert_every_outcome_is_told()
    assert shop.data["base_users"].count_documents({}) == USERS
    assert shop.json("verify", "users")["mismatches"] == []


def test_from_one_to_four_and_back_by_warm_stops_begins_no_chunk_twice(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    with shop.slowed("insert", milliseconds=SLOW_MILLISECONDS):
        driver = shop.begin(*START)
        fleet = grown(shop)
        for name in ("w1", "w2", "w3"):
            until(partial(at_work, shop, name), seconds=SECONDS)
            fleet[name].terminate()
        for name in ("w1", "w2", "w3"):
            assert fleet[name].wait(SECONDS) == 0, shop.log(name)
            assert at_work(shop, name) is None
        before = done_by(shop)
        assert sum(before.values()) < USERS // CHUNK, "the run was over before they were"
    assert driver.wait(SECONDS) == 0, shop.log("command")
    after = done_by(shop)
    assert {name for name in after if after[name] > before[name]} == {"w4"}
    # A chunk that was dropped would have been begun again.
    assert {row["attempts"] for row in rows(shop)} == {1}
    assert_all_is_right(shop)


def test_from_one_to_four_and_back_by_cold_stops_loses_no_chunk(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    dropped: dict[str, tuple[int, datetime]] = {}
    with shop.slowed("insert", milliseconds=SLOW_MILLISECONDS):
        driver = shop.begin(*START)
        fleet = grown(shop)
        for name in ("w1", "w2", "w3"):
            held = until(partial(at_work, shop, name), seconds=SECONDS)
            assert held is not None
            dropped[name] = held
            if name == "w1":
                fleet[name].send_signal(signal.SIGQUIT)
            else:
                os.killpg(fleet[name].pid, signal.SIGKILL)
        for name in dropped:
            fleet[name].wait(SECONDS)
        assert len(shop.outcomes()) < USERS // CHUNK, "the run was over before they were"
    # A dead worker's transaction would hold its fence for 60 s and more.
    assert driver.wait(SECONDS) == 0, shop.log("command")
    for name, (n, since) in dropped.items():
        taken = until(partial(outcome, shop, n), what=f"nobody took chunk {n} of {name}")
        assert taken is not None
        assert taken["at"] > since
    assert max(row["attempts"] for row in rows(shop)) > 1, "nothing was dropped"
    assert_all_is_right(shop)


def outcome(shop: Shop, n: int) -> dict[str, Any] | None:
    """What the audit tells of the chunk's becoming migrated."""
    told = (row for row in shop.outcomes() if row["chunk"] == n)
    return next((row for row in told if row["facts"]["to"] == "migrated"), None)


def test_a_pool_grows_at_work_and_shrinks_no_later_than_when_it_is_idle(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    app = Celery(broker=shop.environment["MONGOSPLIT_REDIS_URL"])
    with shop.slowed("insert", milliseconds=SLOW_MILLISECONDS):
        driver = shop.begin(*START)
        shop.worker("w1")
        until(lambda: done_by(shop)["w1"] >= 2, seconds=SECONDS)
        [grew] = app.control.pool_grow(2, reply=True, timeout=30, limit=1)
        assert "pool will grow" in str(grew)
        until(lambda: len(processes(shop)) >= 3, seconds=SECONDS)
        assert re.search("pool will shrink|All processes busy", shrunk(app))
        assert len(shop.outcomes()) < USERS // CHUNK, "the run was over before it was asked"
    assert driver.wait(SECONDS) == 0, shop.log("command")
    until(lambda: "pool will shrink" in shrunk(app))
    app.close()
    assert_all_is_right(shop)


def shrunk(app: Celery) -> str:
    """What the worker answers when its pool is to lose a process."""
    [answer] = app.control.pool_shrink(1, reply=True, timeout=30, limit=1)
    return str(answer)


def processes(shop: Shop) -> set[str]:
    """The processes that have migrated something."""
    return {row["actor"] for row in shop.outcomes() if row["facts"]["to"] == "migrated"}
