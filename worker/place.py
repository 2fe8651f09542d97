"""What a worker process keeps between tasks: its connection to MongoDB and its open runs."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from typing import Any

from celery import signals

from mongosplit import mongo
from mongosplit.ledger.book import Ledger
from mongosplit.mongo import Client
from mongosplit.open_run import OpenRun, open_run
from mongosplit.settings import Settings, read_settings

# Both by process: what was made before a fork must not be used after it.
_clients: dict[int, Client] = {}
_runs: dict[tuple[int, str], OpenRun] = {}


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This worker's settings, from the environment."""
    return read_settings()


def client() -> Client:
    """The process's client, made on first use."""
    process = os.getpid()
    if process not in _clients:
        found = settings()
        _clients[process] = mongo.connect(
            found.mongo_url, seconds=found.server_seconds, application="mongosplit-worker"
        )
    return _clients[process]


@signals.worker_process_shutdown.connect
def _close(**_: Any) -> None:
    found = _clients.pop(os.getpid(), None)
    if found is not None:
        found.close()


def ledger() -> Ledger:
    """The ledger, over the process's client."""
    return Ledger.at(client(), settings().ledger_database)


def opened(run: str, holder: str) -> OpenRun:
    """The run, opened once for each process.

    Raises:
        DefinitionChanged: this worker holds another version of the declaration.
    """
    key = os.getpid(), run
    if key not in _runs:
        _runs[key] = open_run(client(), ledger(), run, holder=holder)
    return _runs[key]


def name_here(actor: str) -> str:
    """This process in the ledger's words where it is no worker: who, host and process."""
    at_host = f"@{socket.gethostname()}"
    return f"{actor.removesuffix(at_host)}{at_host}/{os.getpid()}"


def name_of(hostname: str | None) -> str:
    """This process in the ledger's words: worker, host and process."""
    return f"{hostname or 'worker@' + socket.gethostname()}/{os.getpid()}"
