"""What a check looks at and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mongosplit.definition import Migration
from mongosplit.ledger.book import Ledger
from mongosplit.mongo import Client, Data, exact
from mongosplit.settings import Settings


@dataclass(frozen=True)
class Finding:
    """What one check found: `ok`, `warning` or `refusal`, a sentence, and the mend."""

    check: str
    verdict: str
    sentence: str
    hint: str = ""


@dataclass(frozen=True)
class Subject:
    """What is checked."""

    client: Client
    ledger: Ledger
    settings: Settings
    migration: Migration
    spec: str

    @property
    def data(self) -> Data:
        """The database of source and targets."""
        return exact(self.client[self.settings.data_database])

    @property
    def source(self) -> str:
        """The source as `database.collection`."""
        return f"{self.settings.data_database}.{self.migration.source}"


Check = Callable[[Subject], Iterator[Finding]]
