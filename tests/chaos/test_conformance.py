"""Conformance: the real functions do what the model does, along schedules taken from the model."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo import MongoClient

from mongosplit import pipelines, plan, provision
from mongosplit.ledger import followers, leases, plans, runs
from mongosplit.ledger.book import Ledger
from mongosplit.model import RunState
from mongosplit.open_run import OpenRun
from mongosplit.users import migration
from tests.chaos.stand import written
from tests.chaos.steps import stepwise
from tests.chaos.trespass import Trespass
from tests.chaos.walk import Walk, carried_out
from tests.integration.conftest import oid
from tests.model import safeguards as safe
from tests.model import variants
from tests.model.protocol import Protocol
from tests.model.schedules import schedules
from tests.model.search import explore
from tests.model.states import Variant

Client = MongoClient[dict[str, Any]]
SEED = 20261123
SCHEDULES = 10
"""Of each variant; more by hand."""

_UNDO: dict[str, Any] = {"rollbacks": 2, "agains": 2}
VARIANTS = {
    "one chunk": Variant(ops=4, syncs=2, copies=2, **_UNDO),
    "two chunks": Variant(ops=4, syncs=3, chunk_of=(0, 1), **_UNDO),
    "three ids, crashes": Variant(
        source=(1, 2, 0), chunk_of=(0, 0, 1), values=(0, 1, 2, 3), ops=4, crashes=4, **_UNDO
    ),
    "split steps": Variant(ops=4, split=True, crashes=1, chunk_of=(0, 1), **_UNDO),
    "a foreign writer": Variant(ops=3, foreigns=3, **_UNDO),
    "verify": Variant(ops=4, verifies=4, foreigns=1, chunk_of=(0, 1), **_UNDO),
}


class Stage:
    """A run with chunks of the model's ids, put back to its beginning for each schedule."""

    def __init__(self, client: Client, chunk_of: tuple[int, ...]) -> None:
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.client, self.data = client, client[name]
        self.ledger = Ledger.at(client, f"{name}_ledger")
        self.ledger.prepare()
        self.chunks = max(chunk_of) + 1
        facts = {
            "migration": "users",
            "fingerprint": pipelines.fingerprint(migration),
            "source": f"{name}.users",
            "actor": "a test",
            "options": {},
        }
        run = runs.begin(self.ledger, name="users", facts=facts, holder="a test")
        size = chunk_of.count(0)
        self.data.users.insert_many([{"_id": oid(i + 1)} for i in range(len(chunk_of))])
        plans.write_plan(self.ledger, run.id, plan.walk(self.data.users, chunk_size=size))
        runs.move(self.ledger, run.id, RunState.PLANNED)
        leases.let_go(self.ledger, run.id, "a test")
        made = provision.provision(self.data, migration)
        run = runs.move(self.ledger, run.id, RunState.RUNNING, provisioned=made)
        self.at = OpenRun(client, self.ledger, run, migration)
        self.rows = list(self.ledger["chunks"].find())
        assert len(self.rows) == self.chunks + 1  # and the tail

    def put_back(self, source: tuple[int, ...]) -> None:
        """Everything as in the model's initial state."""
        for target in migration.targets:
            self.data[target.collection].delete_many({})
        for name in ("dirty", "quarantine", "kept", "mismatches", "foreign", "claims", "chunks"):
            self.ledger[name].delete_many({})
        self.data.users.delete_many({})
        for i, value in enumerate(source):
            written(self.at, i, value)
        self.ledger["chunks"].insert_many(self.rows)
        followers.forget_run(self.ledger, self.at.run.id)
        followers.begin(self.ledger, self.at.run.id)

    def close(self) -> None:
        """Leave nothing."""
        self.client.drop_database(self.data.name)
        self.client.drop_database(self.ledger.database.name)


@pytest.fixture(scope="module")
def staged(client: Client) -> Iterator[Callable[[Variant], Stage]]:
    made: dict[tuple[int, ...], Stage] = {}

    def stage(variant: Variant) -> Stage:
        if variant.chunk_of not in made:
            made[variant.chunk_of] = Stage(client, variant.chunk_of)
        return made[variant.chunk_of]

    with stepwise():
        yield stage
    for one in made.values():
        one.close()


@contextmanager
def walking(stage: Stage, variant: Variant, labels: list[Any]) -> Iterator[Walk]:
    stage.put_back(variant.source)
    walk = Walk(stage.at, labels, split=variant.split, crashes=variant.crashes > 0)
    try:
        yield walk
    finally:
        walk.close()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_real_functions_do_what_the_model_does(
    name: str, staged: Callable[[Variant], Stage]
) -> None:
    variant, chance = VARIANTS[name], random.Random(SEED)
    stage = staged(variant)
    probes: set[str] = set()
    for number, actions in enumerate(schedules(variant, SCHEDULES, SEED)):
        labels = [action.label for action in actions]
        with walking(stage, variant, labels) as walk:
            try:
                assert carried_out(walk, actions, chance, stage.chunks) > 0
            except AssertionError as error:
                done = "\n".join(map(str, labels[: walk.reached + 1]))
                raise AssertionError(f"schedule {number}, after\n{done}") from error
            rest = actions[-1].rest
            assert rest is not None
            assert walk.wrong(range(1, stage.chunks + 1)) == walk.meant_wrong(
                rest, variant.chunk_of
            )
            probes |= set(walk.probes)
    assert probes == {"busy", "nothing"}


REFUSED = {
    safe.FENCE_SYNC: "sync: synced, still dirty",
    safe.FENCE_CHANGES: "sync: synced, still dirty",
    safe.FENCE_SKIP: "sync: synced, still dirty",
    safe.STAMP: "sync: synced, still dirty",
    safe.STAMP_UNIQUE: "sync: synced, still dirty",
    safe.ROLLED_BACK: "copy: nothing",
    safe.ROLLBACK_FENCE: "sync: synced, still dirty",
}
"""What the real function comes to where the one without the safeguard does harm."""


@pytest.mark.parametrize("safeguard", variants.WITHOUT)
def test_what_does_harm_without_a_safeguard_does_none_to_the_real_functions(
    safeguard: str, staged: Callable[[Variant], Stage]
) -> None:
    variant = variants.WITHOUT[safeguard]
    trace = explore(Protocol(variant)).trace
    stage = staged(variant)
    stage.put_back(variant.source)
    walk = Trespass(stage.at, trace)
    try:
        for label in trace:
            walk.step(label)
        told = list(walk.told)
        walk.settle()
    finally:
        walk.close()
    assert REFUSED.get(safeguard, "") in ("", *told)
    assert (walk.mismatches, walk.harm(variant.chunk_of)) == (0, "")
    if safeguard == safe.ROLLED_BACK:
        assert walk.parts(0) == (0, 0)
