"""The application as a load: its journal is the truth of its source, and it finds what is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import bson
import pytest
from click.testing import CliRunner
from pymongo import MongoClient
from pymongo.database import Database

from mongosplit import raw
from mongosplit.mongo import raw_documents
from ops.load import journal as journals
from ops.load import others
from ops.load.application import Application, Passed
from ops.load.command import load
from ops.load.customers import MEND, SPOIL, SWAP
from ops.load.habits import Habits
from ops.load.journal import LOST, UNACKNOWLEDGED, Journal, compare
from ops.load.latency import Sample, by_operation
from ops.load.phases import FLAT_OUT, IDLE, PACED, Phase
from ops.load.showing import Sampler
from ops.load.tables import goals
from ops.seed import seed
from producer.leash import leashed
from tests.conditions import until

Document = dict[str, Any]
Client = MongoClient[Document]
Data = Database[Document]

USERS = 300
OPERATIONS = {
    *("login", "profile", "sign-up", "opt-in", "opt-out", "e-mail", "vendor-begins"),
    *("vendor-ends", "replace", "delete", "re-insert"),
}
EVENLY = dict.fromkeys(
    ("login", "profile", "newsletter", "sign-up", "e-mail", "vendor", "replace", "delete"), 1.0
)
ODD = Habits(bad=0.05, swap=0.05, weights={**EVENLY, "re-insert": 1.0})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def ran(
    database: Data, file: Path, habits: Habits = ODD, *, seconds: float = 3.0, rate: float = 120
) -> Passed:
    with (
        Journal(file) as journal,
        Application(
            database.client,
            database.name,
            seed=3,
            threads=3,
            rate=rate,
            journal=journal,
            habits=habits,
        ) as application,
    ):
        return application.run(seconds)


def sources(database: Data) -> dict[Any, bytes]:
    found = raw_documents(database.users.find_raw_batches({}))
    return {bson.decode(document, raw.EXACT)["_id"]: document for document in found}


@contextmanager
def failing(client: Client, command: str, **how: Any) -> Iterator[None]:
    data = {"failCommands": [command], "appName": "test-load", **how}
    client.admin.command("configureFailPoint", "failCommand", mode={"times": 2}, data=data)
    try:
        yield
    finally:
        client.admin.command("configureFailPoint", "failCommand", mode="off")


def test_after_a_run_the_source_is_what_the_journal_says_and_every_operation_occurred(
    database: Data, file: Path
) -> None:
    seed(database.users, USERS, hostile=0.1)
    before = sources(database)
    passed = ran(database, file)
    done = by_operation(passed.samples)
    assert {*done} >= OPERATIONS | {SPOIL, MEND, SWAP}
    assert passed.errors == {}
    assert compare(file, database.users) == []
    after = sources(database)
    newcomers = [number for number in after if number not in before]
    assert newcomers
    largest = max(number for number in before if isinstance(number, bson.ObjectId))
    assert all(number > largest for number in newcomers)
    assert sum(after.get(number) != document for number, document in before.items()) > 50


def test_the_rate_is_kept_and_no_two_users_share_a_name_or_an_address(
    database: Data, file: Path
) -> None:
    seed(database.users, USERS)
    passed = ran(database, file, Habits(swap=0.2), seconds=3.0, rate=60)
    assert len(passed.samples) + passed.unstarted == pytest.approx(180, abs=6)
    assert passed.rate > 20
    starts = [sample.start for sample in passed.samples]
    assert starts[-1] - starts[0] == pytest.approx(3.0, abs=0.3)
    for path in ("kontakt.email", "username"):
        values = [raw.lookup(user, path) for user in sources(database).values()]
        present = [value for value in values if value]
        assert len(set(present)) == len(present), path


def test_a_stall_of_the_server_is_felt_by_all_that_was_due_meanwhile(
    client: Client, mongo_url: str, database: Data
) -> None:
    seed(database.users, USERS)
    with (
        MongoClient[Document](mongo_url, appname="test-load") as slow,
        Application(slow, database.name, seed=1, threads=1, rate=50) as application,
        failing(client, "findAndModify", blockConnection=True, blockTimeMS=600),
    ):
        passed = application.run(2.0)
    assert sum(sample.seconds > 0.2 for sample in passed.samples) > 10


def test_toggling_brings_users_back_to_states_they_were_in(database: Data, file: Path) -> None:
    seed(database.users, 30)
    ran(database, file, Habits(hot=2, toggling=True, weights={"login": 3, "profile": 3}))
    told = [dict(raw.elements(entry)) for entry in journals._entries(file)]
    writes: dict[raw.Value, list[raw.Value]] = {}
    for entry in told:
        if entry["kind"].decode() == "acknowledged":
            writes.setdefault(entry["id"], []).append(entry["after"])
    # Three moments and three names: what the user had, and two each.
    assert all(len(set(states)) <= 9 for states in writes.values())
    hot = max(writes.values(), key=len)
    assert 3 < len(set(hot)) < len(hot) / 2


def test_a_lost_connection_leaves_an_unknown_write_that_a_later_read_settles(
    client: Client, mongo_url: str, database: Data, file: Path
) -> None:
    seed(database.users, USERS)
    with (
        MongoClient[Document](mongo_url, appname="test-load", retryWrites=False) as shaky,
        Journal(file) as journal,
        Application(
            shaky, database.name, seed=1, threads=2, rate=60, journal=journal
        ) as application,
        failing(client, "findAndModify", closeConnection=True),
    ):
        passed = application.run(1.5)
    assert passed.errors == {"AutoReconnect": 2}
    assert by_operation(passed.samples)["settle"].count >= 1
    assert all(len(one.possible) == 1 for one in journals.known(file).values())
    assert compare(file, database.users) == []


def test_compare_finds_lost_writes_and_writes_that_nobody_acknowledged(
    database: Data, file: Path
) -> None:
    seed(database.users, USERS)
    before = sources(database)
    ran(database, file, seconds=1.0)
    after = sources(database)
    changed = [n for n in before if n in after and after[n] != before[n]]
    deleted = [n for n in before if n not in after]
    same = [n for n in before if after.get(n) == before[n]]
    lost = bson.decode(before[changed[0]], raw.EXACT)
    database.users.replace_one({"_id": changed[0]}, lost)
    database.users.insert_one(bson.decode(before[deleted[0]], raw.EXACT))
    database.users.delete_one({"_id": same[0]})
    database.users.update_one({"_id": same[1]}, {"$set": {"isAdmin": 7}})
    database.users.insert_one({"_id": "from nowhere"})
    found = {(one.key.decode(), one.kind, one.where) for one in compare(file, database.users)}
    assert found == {
        (changed[0], LOST, "source"),
        (deleted[0], LOST, "source"),
        (same[0], LOST, "source"),
        (same[1], UNACKNOWLEDGED, "source"),
        ("from nowhere", UNACKNOWLEDGED, "source"),
    }


def test_a_lost_write_is_found_though_the_application_has_written_the_user_again(
    database: Data, file: Path
) -> None:
    seed(database.users, 3)
    only = Habits(weights={"login": 1, "profile": 1})
    (one, *_) = sources(database)
    with (
        Journal(file) as journal,
        Application(
            database.client,
            database.name,
            seed=1,
            threads=1,
            rate=100,
            journal=journal,
            habits=only,
        ) as application,
    ):
        database.users.update_many({}, {"$unset": {"__v": ""}})
        application.run(0.5)
    found = {(item.key.decode(), item.where) for item in compare(file, database.users)}
    assert (one, "journal") in found


def test_an_application_that_is_killed_leaves_a_journal_that_explains_its_source(
    mongo_url: str, database: Data, file: Path
) -> None:
    seed(database.users, USERS)
    line = [*(sys.executable, "-m", "ops.load", "application"), "--mongo-url", mongo_url]
    line += ["--database", database.name, "--journal", str(file)]
    for _ in range(2):
        begun = file.stat().st_size if file.exists() else 0
        killed = subprocess.Popen(leashed([*line, "--rate", "100", "--seconds", "60"]))
        # Past the entries of the beginning.
        least = begun + sum(map(len, sources(database).values())) + 150_000
        until(lambda least=least: file.exists() and file.stat().st_size > least, seconds=60)
        killed.kill()
        killed.wait()
    until(lambda: compare(file, database.users) == [])
    asked = subprocess.Popen(
        [*line, "--rate", "50", "--seconds", "60", "-o", "json"], stdout=subprocess.PIPE
    )
    size = file.stat().st_size + sum(map(len, sources(database).values())) + 100_000
    until(lambda: file.stat().st_size > size, seconds=60)
    asked.send_signal(signal.SIGTERM)
    said, _ = asked.communicate(timeout=60)
    assert asked.returncode == 0
    assert json.loads(said)["count"] > 0
    compared = CliRunner().invoke(
        load,
        ["compare", "--mongo-url", mongo_url, "--database", database.name, "--journal", str(file)],
    )
    assert (compared.exit_code, compared.output) == (0, "0 differences\n")


@contextmanager
def copying(database: Data, wait: float) -> Iterator[None]:
    """Stands in for a follower: copies the value so many seconds after it saw it."""
    done = Event()

    def copy() -> None:
        while not done.is_set():
            seen = list(database.users.find({}, {"lastLogin": 1}))
            done.wait(wait)
            for user in seen:
                login = {"lastLogin": user.get("lastLogin")}
                database.base_users.update_one({"_id": user["_id"]}, {"$set": login})

    thread = Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_the_sampler_says_how_long_a_write_takes_to_show_and_how_many_never_did(
    database: Data,
) -> None:
    seed(database.users, 5)
    ids = [user["_id"] for user in database.users.find({}, {"_id": 1})]
    database.base_users.insert_many([{"_id": number} for number in ids[:3]])
    sampler = Sampler(database, [raw.encode(number) for number in ids])
    assert [key.decode() for key in sampler.keys] == ids[:3]
    with copying(database, 0.1):
        lags = sampler.sample(1.5, within=5.0)
    assert lags.not_shown == 0
    assert len(lags.seconds) > 2
    assert all(0.05 < lag < 4.9 for lag in lags.seconds)
    began = time.monotonic()
    lags = sampler.sample(0.5, within=0.3)
    assert (lags.seconds, lags.not_shown) == ([], 2)
    assert time.monotonic() - began < 30


def test_spared_users_are_left_alone(database: Data) -> None:
    seed(database.users, 40)
    before = sources(database)
    with Application(
        database.client,
        database.name,
        seed=1,
        threads=2,
        rate=100,
        habits=Habits(spared=10),
    ) as application:
        application.run(1.0)
        spared = [key.decode() for key in application.spared]
    after = sources(database)
    assert len(spared) == 10
    assert all(after[number] == before[number] for number in spared)
    assert after != before


def test_goals_are_measured_against_idle() -> None:
    def phase(name: str, *milliseconds: float) -> Phase:
        samples = [Sample("login", 0.0, one / 1000) for one in milliseconds]
        return Phase(name, Passed(samples, 1.0))

    measured = [phase(IDLE, 2, 2, 5), phase(FLAT_OUT, 3, 3, 25), phase(PACED, 4, 4, 6)]
    found = {(one["phase"], one["percentile"]): one for one in goals(measured)}
    assert {key: (pytest.approx(one["ratio"]), one["met"]) for key, one in found.items()} == {
        (FLAT_OUT, "p50"): (1.5, True),
        (FLAT_OUT, "p99"): (5.0, False),
        (PACED, "p99"): (1.2, True),
    }


def test_waiting_for_a_core_is_told_apart_from_waiting_for_an_answer() -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    cores = os.cpu_count() or 1
    before, hogs = others.starved(), [subprocess.Popen(spin) for _ in range(2 * cores)]
    try:
        until(lambda: sum(range(10**6)) and others.starved() > before + 0.05)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    samples = [Sample("login", 0.0, 0.050, starved=0.044), Sample("login", 1.0, 0.005)]
    phase = Phase(FLAT_OUT, Passed(samples, 1.0))
    assert phase.felt.most == pytest.approx(50)
    assert phase.served.most == pytest.approx(6)


def test_work_of_a_child_is_ours_while_it_lives_and_after_it_was_waited_for() -> None:
    before = others._ours()
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    line = [sys.executable, "-c", busy]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert others._ours() - before > 0.4
    assert others._ours() - before > 0.4
