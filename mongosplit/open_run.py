"""A run opened for work: its declaration and where its data and its ledger are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mongosplit import definition, pipelines
from mongosplit.definition import Migration, Target
from mongosplit.errors import DefinitionChanged
from mongosplit.ledger import runs
from mongosplit.ledger.book import Ledger
from mongosplit.model import Run
from mongosplit.mongo import Client, Data, Documents, exact
from mongosplit.schema import Schema
from mongosplit.sub_batches import SubBatches

TARGET_MILLISECONDS = 250
"""How long one insert is to take at most, and a chunk, where the run's options do not say it."""


@dataclass(frozen=True)
class OpenRun:
    """What every function that works on a chunk needs to know."""

    client: Client
    ledger: Ledger
    run: Run
    migration: Migration

    @cached_property
    def data(self) -> Data:
        """The database of source and targets."""
        return exact(self.client[self.run.source.partition(".")[0]])

    @cached_property
    def source(self) -> Documents:
        """The source collection."""
        return self.data[self.migration.source]

    def target(self, target: type[Target]) -> Documents:
        """The collection of a target."""
        return self.data[target.collection]

    def sub_batches(self, key: str) -> SubBatches:
        """What this process has learned of inserting into a target, by its row key."""
        if key not in self._sub_batches:
            target = self.run.options.get("target_milliseconds", TARGET_MILLISECONDS)
            self._sub_batches[key] = SubBatches(target / 1000)
        return self._sub_batches[key]

    @cached_property
    def _sub_batches(self) -> dict[str, SubBatches]:
        return {}

    @cached_property
    def schemas(self) -> dict[str, Schema]:
        """The `$jsonSchema` of each target, by its row key."""
        return {key: t.schema_of_documents() for key, t in self.migration.keys.items()}

    @cached_property
    def split_row(self) -> dict[str, Any]:
        """The compiled split expression."""
        return pipelines.split_row(self.migration)


def open_run(client: Client, ledger: Ledger, run_id: str, *, holder: str) -> OpenRun:
    """Open a run with the declaration this process holds.

    Raises:
        DefinitionChanged: this process holds another version of the declaration.
    """
    run = runs.get(ledger, run_id)
    migration = definition.load(run.migration)
    mine = pipelines.fingerprint(migration)
    if mine != run.fingerprint:
        raise DefinitionChanged(
            f"{holder} holds version {mine} of migration {run.migration}, "
            f"run {run_id} was planned with version {run.fingerprint}",
            hint="use the code the run was planned with",
        )
    return OpenRun(client, ledger, run, migration)
