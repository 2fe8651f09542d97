"""The pace with real workers: held, changed in the middle, stopped by the operator's command."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, refused

START = ("start", "users", "--yes")


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(shop, monkeypatch, capsys)


def finished(shop: Shop) -> list[tuple[datetime, int]]:
    """When each chunk was migrated, and how many documents it had."""
    rows = shop.ledger["chunks"].find(
        {"tail": None, "docs": {"$gt": 0}}, {"finished": 1, "docs": 1}
    )
    return sorted((row["finished"], row["docs"]) for row in rows)


def planned(shop: Shop, users: int, chunk: int, **changes: str) -> None:
    seed(shop.data["users"], users)
    done = shop.mongosplit("plan", "users", "--yes", "--chunk-size", str(chunk), **changes)
    assert done.returncode == 0, done.stderr


def test_the_fleet_keeps_to_the_rate_that_is_set(shop: Shop) -> None:
    planned(shop, 3000, 50)
    assert shop.mongosplit("pace", "users", "500/s", "--yes").returncode == 0
    for name in ("w1", "w2", "w3"):
        shop.worker(name)
    assert shop.mongosplit(*START).returncode == 0
    done = finished(shop)
    seconds = (done[-1][0] - done[0][0]).total_seconds()
    documents = sum(docs for _, docs in done[1:])
    # The ends of a chunk move by what it takes; the middle of the run is as even as the rate.
    # A machine with too much to do may be slower; the limit is what must not be passed.
    assert 200 < documents / seconds < 550


def test_another_pace_reaches_those_who_wait_within_a_second(shop: Shop) -> None:
    planned(shop, 800, 200)
    shop.mongosplit("pace", "users", "10/s", "--yes")
    shop.worker()
    driver = shop.begin(*START)
    until(lambda: len(finished(shop)) == 1)
    assert driver.poll() is None
    shop.mongosplit("pace", "users", "off", "--yes")
    began = datetime.now()
    until(lambda: len(finished(shop)) == 4)
    assert (datetime.now() - began).total_seconds() < 15
    assert driver.wait(120) == 0


def test_the_operators_own_command_stops_the_run_and_lets_it_go_on(
    shop: Shop, tmp_path: Path
) -> None:
    busy = tmp_path / "busy"
    script = tmp_path / "well"
    script.write_text(f"#!/bin/sh\ntest ! -e {busy}\n")
    script.chmod(0o755)
    own = {"MONGOSPLIT_THROTTLE": "command=on", "MONGOSPLIT_THROTTLE_COMMAND": str(script)}
    planned(shop, 2000, 20, **own)
    busy.touch()
    driver = shop.begin(*START, **own)
    shop.worker()
    until(lambda: pace(shop)["held_back_by"] == "command")
    said = pace(shop)
    assert said["allowed"] == 0.0
    assert said["reason"].startswith("command exited with 1 (expected 0); stopped, next try in ")
    assert finished(shop) == []
    busy.unlink()
    assert driver.wait(60) == 0
    told = [
        row
        for row in shop.json("history", "users", "--limit", "1000")["entries"]
        if row["action"] == "throttle"
    ]
    assert [(row["facts"]["signal"], row["facts"]["stop"]) for row in told][:1] == [
        ("command", True)
    ]
    assert not told[-1]["facts"]["stop"]


def pace(shop: Shop) -> dict[str, Any]:
    found: dict[str, Any] = shop.json("status", "users")["pace"]
    return found


@pytest.mark.parametrize(
    ("line", "sentence", "hint"),
    [
        ("users fast", '"fast" is no pace', "write 5000/s, 5k/s, 300/m, +20%, -50% or off"),
        (
            "users --for 30m",
            "--for says how long a pace holds",
            "mongosplit pace",
        ),
        ("users +20%", '"+20%" changes a limit, and none is set', "set one first"),
        ("users 0/s", "stop", "mongosplit pause"),
        ("users --per-worker fast", '"fast" is no rate of a worker', "write --per-worker 10/s"),
        ("users --signals lag=3", "the throttle knows no signal 'lag'", "the signals are"),
        ("users 5/s --schedule 22:00-06:00", "", ""),
    ],
)
def test_a_pace_that_cannot_be_read_is_refused(
    typed: Typed, line: str, sentence: str, hint: str
) -> None:
    planned(typed.shop, 20, 10)
    said = typed("pace", *line.split())
    assert said.code == 2
    assert sentence in said.err
    assert hint in said.err
    assert "Traceback" not in said.err


def test_a_pace_may_be_halved(typed: Typed) -> None:
    planned(typed.shop, 20, 10)
    assert typed("pace", "users", "1000/s", "--yes").code == 0
    assert typed("pace", "-50%", "--yes").out.splitlines()[0].startswith("users-1: 500 documents/s")


def test_a_run_that_is_over_has_no_pace_to_set(typed: Typed) -> None:
    planned(typed.shop, 20, 10)
    assert typed("cancel", "users", "--yes").code == 0
    said = typed("pace", "users", "5/s", "--yes")
    refused(said, 3, "users-1 is over: it is cancelled", "mongosplit status users-1")
