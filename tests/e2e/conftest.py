"""The command line and real workers as processes, each test with databases of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database

from mongosplit.ledger.book import Ledger
from mongosplit.ledger.claims import Attempt
from mongosplit.migrate import migrate_chunk
from mongosplit.open_run import open_run
from producer.leash import leashed
from producer.local_workers import command

VERB_SECONDS = 240
EVERY_QUEUE = "rollback,migrate,verify"


@dataclass
class Shop:
    """A database to split, its ledger, and everything started to split it."""

    data: Database[dict[str, Any]]
    ledger: Ledger
    environment: dict[str, str]
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def mongosplit(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Carry out one command line to its end."""
        return subprocess.run(
            [sys.executable, "-m", "ops.entry", *arguments],
            env={**self.environment, **changes},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=VERB_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What a reading verb prints."""
        done = self.mongosplit(*arguments, "-o", "json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def begin(
        self, *arguments: str, log: str = "command", **changes: str
    ) -> subprocess.Popen[bytes]:
        """Begin a command and leave it running."""
        return self._spawn([sys.executable, "-m", "ops.entry", *arguments], log, changes)

    def worker(
        self, name: str = "w1", *, queues: str = "migrate,verify", **changes: str
    ) -> subprocess.Popen[bytes]:
        """Start a real Celery worker of one process."""
        return self._spawn(command(name, queues=queues), name, changes)

    @contextmanager
    def slowed(
        self,
        *commands: str,
        milliseconds: int,
        application: str = "mongosplit-worker",
        mode: str | dict[str, int] = "alwaysOn",
    ) -> Iterator[None]:
        """The server holds each of these commands of an application back meanwhile.

        At the end the server waits for those that it still holds.
        """
        admin = self.data.client.admin
        held = {"failCommands": list(commands), "appName": application}
        how = {"blockConnection": True, "blockTimeMS": milliseconds}
        admin.command("configureFailPoint", "failCommand", mode=mode, data=held | how)
        try:
            yield
        finally:
            admin.command("configureFailPoint", "failCommand", mode="off")

    def _spawn(
        self, line: list[str], name: str, changes: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                leashed(line, signal=signal.SIGKILL),
                env={**self.environment, **changes},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def log(self, name: str) -> str:
        """What a process started by `begin` (`command`) or `worker` has said."""
        return (self.folder / f"{name}.log").read_text()

    def states(self, run: str = "users-1") -> dict[str, int]:
        """How many chunks are in each state."""
        rows = self.ledger["chunks"].aggregate(
            [{"$match": {"run": run}}, {"$group": {"_id": "$state", "n": {"$sum": 1}}}]
        )
        return {row["_id"]: row["n"] for row in rows}

    def migrate_here(self, *numbers: int) -> None:
        """Have chunks migrated without a worker."""
        at = open_run(self.data.client, self.ledger, "users-1", holder="a test")
        for n in numbers:
            assert migrate_chunk(at, n, Attempt("w1@here")).did == "migrated"

    def outcomes(self, run: str = "users-1") -> list[dict[str, Any]]:
        """What the audit tells of chunks that have changed, in the order in which they did."""
        told = {"run": run, "action": "chunk", "facts.to": {"$exists": True}}
        rows = [*self.ledger["audit"].find(told), *self.ledger["outbox"].find(told)]
        # What waits in the outbox has the _id under which the chain calls it `entry`.
        return sorted(
            {row.get("entry", row["_id"]): row for row in rows}.values(),
            key=lambda row: (row["at"], row.get("entry", row["_id"])),
        )

    def assert_every_outcome_is_told(self, run: str = "users-1") -> None:
        """From its beginning to what it is now, every change of every chunk has its entry."""
        told = self.outcomes(run)
        reopened = self.ledger["audit"].count_documents({"run": run, "facts.ask": "retry"})
        for chunk in self.ledger["chunks"].find({"run": run, "closed": {"$ne": True}}):
            state = "migrated" if chunk.get("tail") else "pending"
            for facts in [row["facts"] for row in told if row["chunk"] == chunk["n"]]:
                if reopened and state in ("failed", "rolled_back") and facts["from"] == "pending":
                    state = "pending"
                assert facts["from"] == state, (chunk["n"], facts, state)
                state = facts["to"]
            assert state == chunk["state"], (chunk["n"], state)

    def stop(self) -> None:
        """End what is still running; the tests themselves stop what they promise to stop."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    """The session's Redis, emptied."""
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def shop(
    client: MongoClient[dict[str, Any]],
    database: Database[dict[str, Any]],
    mongo_url: str,
    redis_url: str,
    broker: redis.Redis,
    tmp_path: Path,
) -> Iterator[Shop]:
    ledger = Ledger.at(client, database.name + "_ledger")
    settings = {
        "MONGOSPLIT_MONGO_URL": mongo_url,
        "MONGOSPLIT_REDIS_URL": redis_url,
        "MONGOSPLIT_DATABASE": database.name,
        "MONGOSPLIT_LEDGER_DATABASE": ledger.database.name,
        "MONGOSPLIT_RETRY_SECONDS": "0.2",
        # A test machine that stalls for a moment is no database in need of a rest.
        "MONGOSPLIT_THROTTLE": "off",
        "COLUMNS": "160",
    }
    found = Shop(database, ledger, {**os.environ, **settings}, tmp_path)
    try:
        yield found
    finally:
        found.stop()
        client.drop_database(ledger.database.name)
