"""Metrics over HTTP: of a live run that is driven by `serve`, and of a ledger that is away."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mongosplit.ledger import followers, leases, paces, runs, waves
from mongosplit.ledger.book import Ledger
from mongosplit.model import RunState
from mongosplit.mongo import connect
from producer.metrics import SERIES
from producer.scrape import served
from tests.conditions import until
from tests.integration.conftest import Begin, Client, migrated, users, verified

LIMIT = "mongosplit_rate_limit_documents_per_second"
Told = dict[tuple[str, ...], float]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


def scrape(port: int) -> dict[str, Told]:
    """By name the numbers by the values of their labels, the run first."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found: dict[str, Told] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_every_series_is_told_of_a_run_and_a_new_pace_is_seen(
    begin: Begin, ledger: Ledger, port: int
) -> None:
    run = begin(users(20), chunk_size=5).run.id
    followers.begin(ledger, run)
    with served(ledger, ("127.0.0.1", port)):
        assert scrape(port)[LIMIT] == {(run,): math.inf}
        paces.set_base(ledger, run, 700.0, actor="anna@shop")
        found = scrape(port)
        assert found[LIMIT] == {(run,): 700.0}
        assert found["mongosplit_chunks"][run, "pending"] == 4.0
        assert found["mongosplit_run_state"][run, "running"] == 1.0
        assert found["mongosplit_ledger_up"] == {(): 1.0}
        silent = {"throttle_verdict_age_seconds", "signal_observed", "foreign_writes"}
        silent.add("driver_seen_seconds")
        named = {f"mongosplit_{series.name}" for series in SERIES if series.name not in silent}
        assert named <= set(found)
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        scrape(port)


def test_a_lease_that_ran_out_is_told_with_its_age_and_one_given_back_is_not(
    begin: Begin, ledger: Ledger, port: int
) -> None:
    run = begin(users(5)).run.id
    alive, age = "mongosplit_driver_alive", "mongosplit_driver_seen_seconds"
    with served(ledger, ("127.0.0.1", port)):
        assert scrape(port)[alive] == {(run,): 0.0}
        assert age not in scrape(port)
        leases.hold(ledger, run, "a driver")
        assert scrape(port)[alive] == {(run,): 1.0}
        assert scrape(port)[age][(run,)] < 15
        ledger["runs"].update_one(
            {"_id": run}, [{"$set": {"lease.until": {"$subtract": ["$$NOW", 60_000]}}}]
        )
        assert scrape(port)[alive] == {(run,): 0.0}
        assert 75 <= scrape(port)[age][(run,)] < 300
        leases.let_go(ledger, run, "a driver")
        assert age not in scrape(port)


def test_the_wave_depth_is_what_is_yet_to_be_migrated_of_open_waves(
    begin: Begin, ledger: Ledger, port: int
) -> None:
    at = begin(users(40), chunk_size=5)
    run = at.run.id
    for numbers in ((1, 2, 3), (4, 5)):
        waves.open_next(ledger, run, numbers)
    with served(ledger, ("127.0.0.1", port)):
        assert depth(port) == ({(run,): 2.0}, {(run,): 5.0})
        for n in (1, 4):
            migrated(at, n)
        assert depth(port) == ({(run,): 2.0}, {(run,): 3.0})
        assert scrape(port)["mongosplit_documents_unverified"] == {(run,): 10.0}
        waves.close(ledger, run, 1, "a test")
        assert depth(port) == ({(run,): 1.0}, {(run,): 1.0})
        verified(at, 1)
        assert scrape(port)["mongosplit_documents_unverified"] == {(run,): 5.0}
        assert scrape(port)["mongosplit_mismatches"] == {(run,): 0.0}
        assert scrape(port)["mongosplit_documents_kept"] == {(run,): 0.0}


def depth(port: int) -> tuple[Told, Told]:
    found = scrape(port)
    return found["mongosplit_waves_open"], found["mongosplit_wave_chunks_open"]


def test_a_finished_run_is_told_of_while_it_is_the_newest(
    begin: Begin, ledger: Ledger, facts: dict[str, Any], port: int
) -> None:
    first = begin(users(5)).run.id
    for state in (RunState.CANCELLING, RunState.CANCELLED):
        runs.move(ledger, first, state)
    with served(ledger, ("127.0.0.1", port)):
        assert scrape(port)["mongosplit_run_state"][first, "cancelled"] == 1.0
        second = runs.begin(ledger, name="users", facts=facts, holder="a test").id
        ledger["runs"].update_one({"_id": first}, {"$set": {"created": 0}})
        told_of = {labels[0] for labels in scrape(port)["mongosplit_run_state"]}
        assert told_of == {second}


def test_a_ledger_that_is_away_is_told_and_nothing_else(port: int) -> None:
    with (
        connect("mongodb://127.0.0.1:9/?directConnection=true", seconds=0.2) as nowhere,
        served(Ledger.at(nowhere, "ledger"), ("127.0.0.1", port)),
    ):
        assert scrape(port) == {"mongosplit_ledger_up": {(): 0.0}}


@pytest.fixture
def serving(
    client: Client, begin: Begin, ledger: Ledger, mongo_url: str, redis_url: str, tmp_path: Path
) -> tuple[str, dict[str, str]]:
    """A run without workers, and the environment of a process that may drive it."""
    at = begin(users(40), chunk_size=5)
    options = {"throttle": "probe-latency=250:2000", "wave_size": 2, "waves_in_flight": 1}
    runs.note(ledger, at.run.id, **{f"options.{name}": value for name, value in options.items()})
    settings = {
        "MONGOSPLIT_MONGO_URL": mongo_url,
        "MONGOSPLIT_REDIS_URL": redis_url,
        "MONGOSPLIT_DATABASE": at.data.name,
        "MONGOSPLIT_LEDGER_DATABASE": ledger.database.name,
    }
    return at.run.id, {**os.environ, **settings}


def served_by(environment: dict[str, str], folder: Path, address: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "ops.entry", "serve", "--metrics", address]
    with (folder / "serve.log").open("wb") as log:
        return subprocess.Popen(
            line, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def answer(port: int) -> dict[str, Told]:
    try:
        return scrape(port)
    except OSError:
        return {}


def test_serve_tells_of_the_run_that_it_drives_and_of_its_pace(
    serving: tuple[str, dict[str, str]], ledger: Ledger, tmp_path: Path, port: int
) -> None:
    run, environment = serving
    process = served_by(environment, tmp_path, f"127.0.0.1:{port}")
    try:
        # Whoever drives the run publishes a verdict each second.
        age = "mongosplit_throttle_verdict_age_seconds"
        until(lambda: answer(port).get(age, {}).get((run,), 99.0) < 3)
        found = answer(port)
        assert found["mongosplit_throttle_stopped"] == {(run,): 0.0}
        assert found["mongosplit_signal_observed"][run, "probe-latency"] > 0
        paces.set_base(ledger, run, 321.0, actor="anna@shop")
        until(lambda: answer(port)[LIMIT] == {(run,): 321.0})
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("9464", 2, "MONGOSPLIT_METRICS (--metrics) is not an address like 127.0.0.1:9464"),
        ("taken", 1, "metrics cannot be served at 127.0.0.1:"),
    ],
)
def test_an_address_that_cannot_be_served_ends_serve_with_one_sentence(
    serving: tuple[str, dict[str, str]], tmp_path: Path, address: str, code: int, said: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        process = served_by(serving[1], tmp_path, taken if address == "taken" else address)
        assert process.wait(120) == code
    log = (tmp_path / "serve.log").read_text()
    assert log.startswith(f"mongosplit: {said}")
    assert len(log.splitlines()) == 2
