"""Real servers, a client and a database for tests that want them; no settings of the machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from ops.embedded import EmbeddedServers


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MONGOSPLIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """One mongod (a replica set, with failpoints) and one Redis, shared by the whole session."""
    with EmbeddedServers(failpoints=True) as running:
        yield running


@pytest.fixture(scope="session")
def mongo_url(servers: EmbeddedServers) -> str:
    return servers.mongo_url


@pytest.fixture(scope="session")
def redis_url(servers: EmbeddedServers) -> str:
    return servers.redis_url


@pytest.fixture(scope="session")
def client(mongo_url: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](mongo_url) as connected:
        yield connected


@pytest.fixture
def database(client: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """A database of the test's own, dropped after it."""
    own = client[f"test_{uuid.uuid4().hex[:12]}"]
    yield own
    client.drop_database(own.name)
