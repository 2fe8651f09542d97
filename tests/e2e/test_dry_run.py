"""`--dry-run` and the verbs that read send no command that writes: every one is overheard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from bson.timestamp import Timestamp
from pymongo import MongoClient, monitoring

from ops.seed import seed
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed

Client = MongoClient[dict[str, Any]]

READS = {
    *("hello", "isMaster", "ping", "buildinfo", "endSessions"),
    *("find", "getMore", "killCursors", "count", "aggregate", "distinct"),
    *("listCollections", "listIndexes", "collStats"),
    *("getDefaultRWConcern", "getParameter", "connectionStatus", "replSetGetStatus"),
}
WRITING_STAGES = {"$out", "$merge"}
MONGODB_S_OWN = ("local", "config")

DRY = ("plan --dry-run", "plan users --dry-run -o json", "start --dry-run")
PLANNED = ("start --dry-run", "start users-1 --dry-run", "start --dry-run -o json")
READING = (
    "check",
    "check -o json",
    "doctor",
    "doctor -o json",
    "coverage",
    "coverage --sample 10",
    "status",
    "status users-1 -o json",
    "quarantine list",
)


class Ear(monitoring.CommandListener):
    """Hears every command that a client made while it listens sends to a server."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.heard.append((event.command_name, dict(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """What came of it does not matter."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """What came of it does not matter."""

    @property
    def writes(self) -> list[str]:
        """The commands that are not known to be reads."""
        return [name for name, command in self.heard if not is_read(name, command)]


def is_read(name: str, command: dict[str, Any]) -> bool:
    stages = {stage for step in command.get("pipeline", ()) for stage in step}
    return name in READS and not stages & WRITING_STAGES


@pytest.fixture
def ear(client: Client) -> Iterator[Ear]:
    """Listens to every client made after the session's own."""
    client.admin.command("ping")
    listening = Ear()
    monitoring.register(listening)
    yield listening
    # The driver has no way to say so: without it every later client would be overheard too.
    monitoring._LISTENERS.command_listeners.remove(listening)


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    seed(shop.data["users"], 300, hostile=0.05)
    return Typed(shop, monkeypatch, capsys)


def content(client: Client) -> dict[str, Any]:
    """Every database with its collections, each with a hash of its documents."""
    names = [name for name in client.list_database_names() if name not in MONGODB_S_OWN]
    return {name: client[name].command("dbHash")["collections"] for name in names}


def last_write(client: Client) -> Timestamp:
    """Where the server's log of all writes ends; its own heartbeats and sessions are not ours."""
    ours = {"op": {"$ne": "n"}, "ns": {"$not": {"$regex": r"^config\."}}}
    [entry] = client.local["oplog.rs"].find(ours).sort("$natural", -1).limit(1)
    moment: Timestamp = entry["ts"]
    return moment


def keys(broker: redis.Redis) -> dict[bytes, bytes | None]:
    """Every key of Redis with its value."""
    return {key: broker.dump(key) for key in broker.scan_iter(count=1000)}


@contextmanager
def nothing_is_written(client: Client, broker: redis.Redis) -> Iterator[None]:
    """Neither server holds or logs anything new afterwards."""
    before = content(client), last_write(client), keys(broker)
    yield
    assert (content(client), last_write(client), keys(broker)) == before


@pytest.mark.parametrize(
    "line", [*DRY, "check", "check -o json", "coverage", "coverage --sample 9"]
)
def test_without_a_plan_nothing_is_written(
    typed: Typed, ear: Ear, client: Client, broker: redis.Redis, line: str
) -> None:
    with nothing_is_written(client, broker):
        said = typed(*line.split())
    assert said.code == 0, said.err
    assert ear.heard
    assert ear.writes == []


@pytest.mark.parametrize("line", [*PLANNED, *READING])
def test_with_a_plan_nothing_more_is_written(
    typed: Typed, ear: Ear, client: Client, broker: redis.Redis, line: str
) -> None:
    assert typed("plan", "--yes", "--chunk-size", "50").code == 0
    ear.heard.clear()
    with nothing_is_written(client, broker):
        said = typed(*line.split())
    assert said.code == (3 if line.startswith("check") else 0), said.err
    assert ear.heard
    assert ear.writes == []


@pytest.mark.parametrize("verb", ["plan", "start"])
def test_as_a_process_a_dry_run_leaves_no_trace_in_the_server_s_log(
    shop: Shop, client: Client, broker: redis.Redis, verb: str
) -> None:
    seed(shop.data["users"], 300)
    with nothing_is_written(client, broker):
        done = shop.mongosplit(verb, "--dry-run", "--chunk-size", "100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("would plan 300 documents in 4 chunks")
    assert done.stdout.endswith("nothing was written\n")


def test_what_a_dry_run_says_is_what_the_plan_then_is(typed: Typed) -> None:
    size = ("--chunk-size", "70")
    told = json.loads(typed("plan", "--dry-run", "-o", "json", *size).out)
    done = json.loads(typed("plan", "--yes", "-o", "json", *size).out)
    assert told == {**done, "run": None}
    assert json.loads(typed("start", "--dry-run", "-o", "json").out) == {
        "run": "users-1",
        "chunks": done["chunks"] - 1,
    }


def test_a_write_would_be_overheard_seen_and_found_in_the_log(
    typed: Typed, ear: Ear, client: Client, broker: redis.Redis
) -> None:
    before = content(client), last_write(client)
    assert typed("plan", "--yes").code == 0
    assert {"create", "createIndexes", "insert", "findAndModify"} <= set(ear.writes)
    assert content(client) != before[0]
    assert last_write(client) > before[1]
    with pytest.raises(AssertionError), nothing_is_written(client, broker):
        broker.set("mongosplit", "was here")


def test_an_aggregation_that_writes_is_no_read() -> None:
    assert is_read("aggregate", {"pipeline": [{"$match": {}}]})
    assert not is_read("aggregate", {"pipeline": [{"$match": {}}, {"$out": "there"}]})
    assert not is_read("aggregate", {"pipeline": [{"$merge": {"into": "there"}}]})
    assert not is_read("insert", {})
