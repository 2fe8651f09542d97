"""The command line and real workers as processes, each test with databases of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database

from mongosplit.ledger.book import Ledger
from producer.leash import leashed
from producer.local_workers import command

VERB_SECONDS = 120


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

    def begin(self, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
        """Begin a command and leave it running."""
        return self._spawn([sys.executable, "-m", "ops.entry", *arguments], "command", changes)

    def worker(self, name: str = "w1", **changes: str) -> subprocess.Popen[bytes]:
        """Start a real Celery worker of one process."""
        return self._spawn(command(name), name, changes)

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
        "COLUMNS": "160",
    }
    found = Shop(database, ledger, {**os.environ, **settings}, tmp_path)
    try:
        yield found
    finally:
        found.stop()
        client.drop_database(ledger.database.name)
