"""The servers a command works on: connected, with Celery pointed at the same Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from mongosplit import definition, mongo
from mongosplit.definition import Migration
from mongosplit.errors import Refused
from mongosplit.ledger import audit, runs, tally
from mongosplit.ledger.book import Ledger
from mongosplit.model import Run
from mongosplit.mongo import Client
from mongosplit.open_run import OpenRun, open_run
from mongosplit.settings import Settings, missing
from worker import app as celery_app

Servers = Callable[[Settings], AbstractContextManager[Settings]]
"""Gives settings that name servers, starting some if need be; the outermost ring provides it."""


@dataclass(frozen=True)
class Connection:
    """Settings that name servers, and the connections to them."""

    settings: Settings
    client: Client
    ledger: Ledger
    told: list[str] = field(default_factory=list)

    def tell(self, verb: str, *, run: str = "", **facts: Any) -> None:
        """Tell the audit what is about to be done, before any of it is."""
        self.ledger.prepare()
        self.told.append(verb)
        told = {"verb": verb, **{name: value for name, value in facts.items() if value}}
        audit.say(self.ledger, "verb", actor=self.settings.actor, run=run, facts=told)

    def totals(self, run: Run) -> dict[str, dict[str, int]]:
        """The run's sums by chunk state."""
        return tally.totals(self.ledger, run.id)

    def migration(self, name: str) -> Migration:
        """The declaration called `name`."""
        return definition.load(name)

    def run(self, name: str) -> Run:
        """The run called `name`, or the newest of the migration called so.

        Raises:
            UsageError: there is neither.
        """
        return runs.find(self.ledger, name)

    def open(self, name: str) -> OpenRun:
        """The run, opened with the declaration found here."""
        return open_run(self.client, self.ledger, self.run(name).id, holder=self.settings.actor)


def refuse_over(run: Run) -> None:
    """Of a run that is over nothing can be asked any more.

    Raises:
        Refused: it is.
    """
    if run.finished:
        raise Refused(
            f"{run.id} is over: it is {run.state_words}", hint=f"mongosplit status {run.id}"
        )


@contextmanager
def given(settings: Settings) -> Iterator[Settings]:
    """Only servers that were given.

    Raises:
        UsageError: naming the setting that is missing.
    """
    if not settings.mongo_url:
        raise missing("mongo_url", "the replica set that holds the data")
    if not settings.redis_url:
        raise missing("redis_url", "the Redis that carries the tasks")
    yield settings


@contextmanager
def connected(settings: Settings, servers: Servers) -> Iterator[Connection]:
    """Connect; every driver error inside becomes a sentence.

    Raises:
        UsageError: a setting is missing or wrong. TransientError: a server is away.
    """
    with servers(settings) as ready:
        ready.data_database  # noqa: B018 - asked now, so that what is missing is said first
        client = mongo.connect(ready.mongo_url, seconds=ready.server_seconds)
        try:
            with mongo.explained(ready.mongo_url):
                client.admin.command("ping")
                celery_app.connect(ready)
                connection = Connection(ready, client, Ledger.at(client, ready.ledger_database))
                yield connection
                if connection.told:
                    audit.chain(connection.ledger)
        finally:
            client.close()
