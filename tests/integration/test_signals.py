"""Each health signal read from a real server: well when idle, tripped when it is in need."""

from __future__ import annotations

import os
import re
import signal as unix_signal
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, WriteConcern
from pymongo.database import Database

from mongosplit.errors import UsageError
from mongosplit.mongo import connect
from mongosplit.signal_command import CommandLine, read_command
from mongosplit.signal_thresholds import SIGNALS, Level, Reading, Threshold, Thresholds
from mongosplit.signals import Sources, read_all
from ops.embedded import EmbeddedServers
from ops.server import Server, mongod_binary, stop
from tests.conditions import until

Document = dict[str, Any]
Client = MongoClient[Document]

APPLICATION = "test-signals"
ANY = Threshold(None, None)


@pytest.fixture(scope="module")
def watching(mongo_url: str) -> Iterator[Client]:
    """A client of its own, so that a failpoint meets it alone."""
    with connect(mongo_url, application=APPLICATION) as client:
        yield client


@pytest.fixture
def sources(watching: Client, database: Database[Document]) -> Sources:
    return Sources(watching, probe=watching[database.name].probe)


def one(sources: Sources, text: str) -> Reading:
    """The reading of the one signal that the text sets."""
    name = text.partition("=")[0]
    (reading,) = read_all(sources, only(text))
    assert reading.name == name
    return reading


def only(text: str) -> Thresholds:
    name = text.partition("=")[0]
    return Thresholds({name: Thresholds.parse(text).of[name]})


@contextmanager
def failing(client: Client, *commands: str, **how: Any) -> Iterator[None]:
    """The server fails these commands of the watching client in the way `how` says."""
    data = {"failCommands": list(commands), "appName": APPLICATION, **how}
    client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
    try:
        yield
    finally:
        client.admin.command("configureFailPoint", "failCommand", mode="off")


def test_on_an_idle_server_every_signal_is_read_and_well_in_a_moment(sources: Sources) -> None:
    enabled = Thresholds.defaults()
    read_all(sources, enabled)  # the first one connects and makes the probe's collection
    took = []
    for _ in range(5):
        began = time.perf_counter()
        readings = read_all(sources, enabled)
        took.append(time.perf_counter() - began)
    assert [reading.name for reading in readings] == list(SIGNALS)
    assert {reading.level for reading in readings} == {Level.OK}, readings
    assert min(took) < 0.5


def test_a_signal_that_is_off_is_not_read(sources: Sources) -> None:
    enabled = Thresholds.parse("replication-lag=off,command=off")
    names = [reading.name for reading in read_all(sources, enabled)]
    assert names == [name for name in SIGNALS if name not in ("replication-lag", "command")]
    assert read_all(sources, Thresholds.parse("off")) == []


def test_writers_that_wait_for_the_server_are_counted(
    sources: Sources, client: Client, database: Database[Document]
) -> None:
    database.crowd.insert_one({})
    client.admin.command("fsync", lock=True)
    with ThreadPoolExecutor(4) as pool:
        try:
            for _ in range(4):
                pool.submit(database.crowd.insert_one, {})
            reading = awaited(lambda: tripped(sources, "queued-operations=2:4", Level.HARD))
        finally:
            client.admin.command("fsyncUnlock")
    # The server has writers of its own, which wait as well.
    assert re.fullmatch(r"queued-operations [4-9] ≥ 4", reading.sentence)


def tripped(sources: Sources, text: str, level: Level) -> Reading | None:
    reading = one(sources, text)
    return reading if reading.level is level else None


def awaited(condition: Callable[[], Reading | None]) -> Reading:
    reading = until(condition, what="it never trips")
    assert reading is not None
    return reading


def test_data_that_is_not_on_disk_yet_makes_the_cache_dirty(
    sources: Sources, database: Database[Document]
) -> None:
    def soiled() -> Reading | None:
        database.dirt.insert_many([{"mud": os.urandom(60_000)} for _ in range(100)])
        return tripped(sources, "cache-dirty=0.01:0.9", Level.SOFT)

    assert awaited(soiled).sentence.endswith(" ≥ 0.01")


def test_a_slow_majority_write_shows_in_the_probe(sources: Sources, client: Client) -> None:
    with failing(client, "update", blockConnection=True, blockTimeMS=150):
        reading = one(sources, "probe-latency=100:800")
    assert (reading.level, reading.unit) == (Level.SOFT, "ms")
    assert reading.observed is not None
    assert 150 <= reading.observed < 800


def test_a_probe_that_does_not_end_is_given_up_and_is_hard(
    sources: Sources, client: Client
) -> None:
    with failing(client, "update", blockConnection=True, blockTimeMS=4000):
        began = time.monotonic()
        reading = one(sources, "probe-latency=100:1200")
        took = time.monotonic() - began
    assert reading.level is Level.HARD
    assert took < 3.9
    assert sources.probe is not None
    assert sources.probe.count_documents({}) <= 1


def test_the_follower_s_backlog_is_what_the_caller_says(sources: Sources) -> None:
    assert one(sources, "follower-backlog=on").level is Level.OK
    behind = one(replace(sources, follower_backlog=12_345), "follower-backlog=on")
    assert (behind.level, behind.sentence) == (Level.SOFT, "follower-backlog 12,345 ≥ 10,000")


def test_a_server_that_does_not_answer_costs_a_second_and_gives_no_reading(
    sources: Sources, client: Client
) -> None:
    with failing(client, "serverStatus", blockConnection=True, blockTimeMS=4000):
        began = time.monotonic()
        assert read_all(sources, only("cache-dirty=on")) == []
        took = time.monotonic() - began
    assert took < 3.9


def test_a_command_that_fails_for_another_cause_gives_no_reading(
    sources: Sources, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(client, "replSetGetStatus", errorCode=96):
        assert read_all(sources, only("replication-lag=on")) == []
    assert caplog.messages == ["replication-lag could not be read: OperationFailed (code 96)"]


def test_what_the_user_may_not_read_is_unreadable_and_the_rest_is_read(
    sources: Sources, client: Client
) -> None:
    refused = ("replSetGetStatus", "serverStatus", "collStats", "update")
    with failing(client, *refused, errorCode=13):
        readings = {reading.name: reading for reading in read_all(sources, Thresholds.defaults())}
    unreadable = [name for name, one in readings.items() if one.level is Level.UNREADABLE]
    assert unreadable == [
        *("replication-lag", "flow-control", "queued-operations", "cache-dirty"),
        *("oplog-window", "probe-latency"),
    ]
    assert readings["flow-control"].sentence == (
        "flow-control cannot be read: this user may not run serverStatus (clusterMonitor allows it)"
    )
    assert readings["follower-backlog"].level is Level.OK


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host of a set that knows `nobody` without a role and `monitor` with two."""
    folder = tmp_path_factory.mktemp("guarded")
    with EmbeddedServers(folder, redis=False) as servers:
        host = servers.mongo_url.removeprefix("mongodb://").partition("/")[0]
        with MongoClient[Document](servers.mongo_url) as client:
            roles = ["clusterMonitor", {"role": "readWrite", "db": "ledger"}]
            client.admin.command("createUser", "nobody", pwd="n", roles=[])
            client.admin.command("createUser", "monitor", pwd="m", roles=roles)
    key = folder / "key"
    key.write_text("c2VjcmV0IG9mIGEgdGVzdA==")
    key.chmod(0o600)
    port = int(host.rpartition(":")[2])
    command = [mongod_binary(), "--dbpath", str(folder / "mongod-0"), "--replSet", "mongosplit"]
    command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--port", str(port)]
    server = Server([*command, "--auth", "--keyFile", str(key)], port, folder / "guarded.log")
    try:
        yield host
    finally:
        stop([server])


@pytest.mark.parametrize("user", ["nobody:n", "monitor:m"])
def test_what_is_unreadable_without_a_role_is_read_with_cluster_monitor(
    guarded: str, user: str
) -> None:
    url = f"mongodb://{user}@{guarded}/?replicaSet=mongosplit&authSource=admin"
    with connect(url, seconds=30) as client:
        until(lambda: client.primary)
        readings = read_all(Sources(client, probe=client.ledger.probe), Thresholds.defaults())
        if user == "monitor:m":
            assert client.local["oplog.rs"].find_one({}, {"ts": 1})
    unreadable = [one.name for one in readings if one.level is Level.UNREADABLE]
    without = [name for name in SIGNALS if name not in ("follower-backlog", "command")]
    assert unreadable == (without if user == "nobody:n" else [])
    assert len(readings) == len(SIGNALS)


def test_the_window_counts_once_the_oplog_is_full() -> None:
    with (
        EmbeddedServers(redis=False, oplog_mb=16) as servers,
        MongoClient[Document](servers.mongo_url) as client,
    ):
        sources = Sources(client)
        fresh = one(sources, "oplog-window=on")
        assert (fresh.level, fresh.observed) == (Level.OK, None)
        for _ in range(10):
            client.test.fill.insert_many([{"filler": os.urandom(100_000)} for _ in range(20)])
        full = one(sources, "oplog-window=on")
    assert full.level is Level.HARD
    assert full.sentence == "oplog-window 0.00 h ≤ 1 h"


# A set of three


@pytest.fixture(scope="module")
def three() -> Iterator[EmbeddedServers]:
    with EmbeddedServers(nodes=3, redis=False, failpoints=True) as running:
        yield running


@contextmanager
def frozen(servers: EmbeddedServers, number: int) -> Iterator[None]:
    process = servers.mongod_processes[number]
    process.send_signal(unix_signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(unix_signal.SIGCONT)


def test_a_secondary_that_is_frozen_lags_more_and_more_also_once_it_is_seen_to_be_down(
    three: EmbeddedServers,
) -> None:
    number = (three.primary() + 1) % 3
    with MongoClient[Document](three.mongo_url) as client:
        sources = Sources(client)
        assert one(sources, "replication-lag=on").level is Level.OK
        readings = []

        def lagging() -> Reading | None:
            client.test.beat.insert_one({})
            readings.append(one(sources, "replication-lag=2:6"))
            return readings[-1] if readings[-1].level is Level.HARD else None

        with frozen(three, number):
            until(lagging, what="it never lags")
            members = client.admin.command("replSetGetStatus")["members"]
            assert members[number]["health"] == 0, "seen to be down meanwhile"
        assert readings[-1].sentence.endswith(f" s ≥ 6 s at {members[number]['name']}")
        levels = [reading.level for reading in readings]
        assert levels == sorted(levels, key=[Level.OK, Level.SOFT, Level.HARD].index)
        assert Level.SOFT in levels
        until(lambda: one(sources, "replication-lag=2:6").level is Level.OK)


def test_a_quiet_set_does_not_seem_to_lag_when_a_write_comes(three: EmbeddedServers) -> None:
    """The optimes are seconds apart then, though nobody has waited."""
    with MongoClient[Document](three.mongo_url) as client:
        client.test.beat.insert_one({})
        sources = Sources(client)
        quiet_until = time.monotonic() + 4.0
        until(lambda: time.monotonic() > quiet_until)
        with stopped_applying(three):
            client.test.get_collection("beat", write_concern=WriteConcern(1)).insert_one({})
            reading = one(sources, "replication-lag=2:6")
            apart = optimes_apart(client)
    assert apart >= 3, "otherwise this proves nothing"
    assert reading.level is Level.OK, reading.sentence


def test_a_majority_that_does_not_come_makes_the_probe_hard(three: EmbeddedServers) -> None:
    with MongoClient[Document](three.mongo_url) as client, stopped_applying(three):
        sources = Sources(client, probe=client.test.probe)
        reading = one(sources, "probe-latency=100:1200")
    assert reading.level is Level.HARD
    assert reading.observed == pytest.approx(1200, abs=300)


def optimes_apart(client: Client) -> float:
    applied = [
        member["lastAppliedWallTime"]
        for member in client.admin.command("replSetGetStatus")["members"]
    ]
    return float((max(applied) - min(applied)).total_seconds())


@contextmanager
def stopped_applying(servers: EmbeddedServers) -> Iterator[None]:
    """Both secondaries stay up and answer, but apply nothing."""
    primary = servers.primary()
    with ExitStack() as stack:
        for number, url in enumerate(single_urls(servers)):
            if number != primary:
                secondary = stack.enter_context(MongoClient[Document](url)).admin
                switch = {"configureFailPoint": "rsSyncApplyStop"}
                secondary.command({**switch, "mode": "alwaysOn"})
                stack.callback(secondary.command, {**switch, "mode": "off"})
        yield


def single_urls(servers: EmbeddedServers) -> list[str]:
    hosts = servers.mongo_url.removeprefix("mongodb://").partition("/")[0].split(",")
    return [f"mongodb://{host}/?directConnection=true" for host in hosts]


def test_flow_control_is_seen_to_be_engaged(three: EmbeddedServers) -> None:
    with MongoClient[Document](three.mongo_url) as client:
        sources = Sources(client)
        assert one(sources, "flow-control=on").sentence == "flow-control is not engaged"
        for name, value in (("TargetLagSeconds", 1), ("SamplePeriod", 10)):
            client.admin.command({"setParameter": 1, f"flowControl{name}": value})
        fast = client.test.get_collection("flood", write_concern=WriteConcern(1))

        def engaged() -> Reading | None:
            fast.insert_many([{} for _ in range(200)])
            return tripped(sources, "flow-control=on", Level.SOFT)

        engaged()
        with stopped_applying(three):
            reading = awaited(engaged)
    assert reading.sentence == "flow-control is engaged"


# The operator's own command


def script(folder: Path, text: str) -> CommandLine:
    path = folder / "health"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return CommandLine.parse(str(path))


@pytest.mark.parametrize(
    ("text", "level", "sentence"),
    [
        ("exit 0", Level.OK, "command is content"),
        ("echo 3", Level.OK, "command 3.000 < 10"),
        ("echo 12.5; echo more", Level.SOFT, "command 12.500 ≥ 10"),
        ("echo 99", Level.HARD, "command 99.000 ≥ 20"),
        ("echo 3; exit 3", Level.HARD, "command exited with 3 (expected 0)"),
        ("kill -9 $$", Level.HARD, "command was ended by signal 9 (expected exit code 0)"),
        ("echo käthe", Level.HARD, "command wrote a first line that is not a number"),
        ("echo nan", Level.HARD, "command wrote a first line that is not a number"),
        ("echo 3; yes | head -c 3000000", Level.OK, "command 3.000 < 10"),
        ("exec >&-; exit 0", Level.OK, "command is content"),
    ],
)
def test_the_operator_s_command_answers_by_exit_code_and_number(
    tmp_path: Path, text: str, level: Level, sentence: str
) -> None:
    reading = read_command(script(tmp_path, text), Threshold(10, 20))
    assert (reading.level, reading.sentence) == (level, sentence)


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    children = tmp_path / "children"
    line = script(tmp_path, f"sleep 60 & echo $! >{children}; wait")
    began = time.monotonic()
    reading = read_command(line, ANY, seconds=0.5)
    assert time.monotonic() - began < 30
    assert reading.level is Level.HARD
    assert reading.sentence == "command was killed after 0.5 s without an end"
    child = int(children.read_text())
    until(lambda: not is_running(child), what="its child lives on")


def test_a_command_that_ends_leaves_nothing_behind_and_is_not_waited_for(tmp_path: Path) -> None:
    children = tmp_path / "children"
    line = script(tmp_path, f"sleep 60 & echo $! >{children}; echo 4")
    began = time.monotonic()
    assert read_command(line, ANY).observed == 4
    assert time.monotonic() - began < 30
    child = int(children.read_text())
    until(lambda: not is_running(child), what="its child lives on")


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_command_that_is_gone_at_run_time_is_a_hard_stop(tmp_path: Path) -> None:
    line = script(tmp_path, "exit 0")
    Path(line.words[0]).unlink()
    reading = read_command(line, ANY)
    assert reading.level is Level.HARD
    assert reading.sentence == "command cannot be started: no such file or directory"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the throttle's command is empty"),
        ("echo 'open", "the throttle's command cannot be split into words"),
        ("no-such-program", "the throttle's command 'no-such-program' is not there or is not"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_when_it_is_configured(
    text: str, sentence: str
) -> None:
    with pytest.raises(UsageError, match=f"^{sentence}"):
        CommandLine.parse(text)


def test_a_command_is_run_without_a_shell_and_takes_part_in_a_round(sources: Sources) -> None:
    line = CommandLine.parse("echo '$HOME'")
    reading = one(replace(sources, command=line), "command=on")
    assert reading.sentence == "command wrote a first line that is not a number"
    number = CommandLine.parse("echo 7")
    assert one(replace(sources, command=number), "command=5:9").sentence == "command 7.000 ≥ 5"
