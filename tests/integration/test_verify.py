"""Verification names every byte that differs, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bson
import pytest
from bson import Int64
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.monitoring import CommandListener

from mongosplit.errors import TransientError
from mongosplit.ledger import chunks, claims, tally
from mongosplit.ledger.book import Ledger
from mongosplit.model import ChunkState
from mongosplit.open_run import OpenRun
from mongosplit.verify import TRIES, WORK
from tests.integration.conftest import (
    TARGETS,
    Begin,
    Client,
    Document,
    failing,
    found,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    put_state,
    state_of,
    stored,
    user,
    users,
    verified,
    verified_all,
)

BASE, VENDORS, LETTERS = TARGETS
Rows = Collection[Document]
Found = set[tuple[Any, str, str, str]]
PARTS = {(oid(n), name, "", "ghost") for n in (1, 2, 3) for name in TARGETS}


def unchecked(rows: Rows) -> Rows:
    """The collection, taking documents that its validator would refuse."""
    rows.database.command("collMod", rows.name, validationLevel="off")
    return rows


def edit(rows: Rows, n: int, change: Callable[[Document], Document | None]) -> None:
    """Replace a user's document by what the function makes of it."""
    document = rows.find_one({"_id": oid(n)})
    assert document is not None
    document = change(document) or document
    unchecked(rows).delete_one({"_id": oid(n)})
    rows.insert_one(document)


def backwards(document: Document) -> Document:
    return dict(reversed(list(document.items())))


def extra(rows: Rows, _id: Any, **more: Any) -> None:
    unchecked(rows).insert_one({"_id": _id, "email": f"{_id}", **more})


Damage = Callable[[Database[Document]], object]
DAMAGES: dict[str, tuple[Damage, Found]] = {
    "false became 0": (
        lambda data: edit(data[BASE], 2, lambda d: d.update(isAdmin=0)),
        {(oid(2), BASE, "isAdmin", "different")},
    ),
    "int became long": (
        lambda data: edit(
            data[VENDORS], 2, lambda d: d["location"].update(deliveryRadius=Int64(5))
        ),
        {(oid(2), VENDORS, "location", "different")},
    ),
    "one letter": (
        lambda data: edit(data[LETTERS], 2, lambda d: d.update(name="Kathe 2")),
        {(oid(2), LETTERS, "name", "different")},
    ),
    "two fields": (
        lambda data: edit(data[BASE], 1, lambda d: d.update(email="x", isActive=False)),
        {(oid(1), BASE, name, "different") for name in ("email", "isActive")},
    ),
    "field order": (
        lambda data: edit(data[BASE], 3, backwards),
        {(oid(3), BASE, "(field order)", "different")},
    ),
    "a field too many": (
        lambda data: edit(data[VENDORS], 1, lambda d: d.update(new=None)),
        {(oid(1), VENDORS, "new", "different")},
    ),
    "a missing document": (
        lambda data: data[VENDORS].delete_one({"_id": oid(2)}),
        {(oid(2), VENDORS, "", "missing")},
    ),
    "an _id of another type": (
        lambda data: edit(data[BASE], 2, lambda d: d.update(_id=str(oid(2)))),
        {(oid(2), BASE, "", "missing"), (str(oid(2)), BASE, "", "ghost")},
    ),
    "a ghost in the range": (
        lambda data: extra(data[VENDORS], oid(0), userId=oid(0)),
        {(oid(0), VENDORS, "", "ghost")},
    ),
    "a ghost of a type nobody ranges over": (
        lambda data: extra(data[BASE], None),
        {(None, BASE, "", "ghost")},
    ),
    "a stray that names a user": (
        lambda data: extra(data[LETTERS], oid(0), userId=oid(4)),
        {(oid(4), LETTERS, "userId", "ghost")},
    ),
    "a part of somebody who is no vendor": (
        lambda data: extra(data[VENDORS], oid(4), userId=oid(4)),
        {(oid(4), VENDORS, "", "ghost")},
    ),
    "an owner taken away": (
        lambda data: data[LETTERS].update_one({"_id": oid(1)}, {"$unset": {"userId": 1}}),
        {(oid(1), LETTERS, "", "missing")},
    ),
}


@pytest.fixture
def at(begin: Begin) -> OpenRun:
    """Three vendors who subscribe and one user who does neither, migrated."""
    reader = user(4, {"isVendor": False, "kontakt.mailNewsletter": False})
    run = begin([*users(3), reader], chunk_size=2)
    migrated_all(run)
    return run


@pytest.mark.parametrize("independent", [False, True], ids=["pipeline", "reference"])
def test_what_was_migrated_is_verified(at: OpenRun, independent: bool) -> None:
    before = {name: stored(at, name) for name in TARGETS}
    outcome = verified(at, 1, independent=independent)
    assert (outcome.did, outcome.state, outcome.docs) == ("verified", "verified", 2)
    assert (ledger_row(at)["checked"], ledger_row(at)["mismatches"]) == (1, 0)
    assert verified_all(at, independent=independent) == 0
    assert {name: stored(at, name) for name in TARGETS} == before
    assert set(tally.totals(at.ledger, at.run.id)) == {"verified"}


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_damage_is_found_exactly_and_gone_when_it_is_mended(at: OpenRun, kind: str) -> None:
    assert verified_all(at) == 0
    sound = {name: stored(at, name) for name in TARGETS}
    damage, expected = DAMAGES[kind]
    damage(at.data)
    for number, independent in ((2, False), (3, True)):
        assert verified_all(at, number=number, independent=independent) == len(expected)
        assert found(at) == expected
    spoiled = chunks.numbers(at.ledger, at.run.id, {"mismatches": {"$gt": 0}})
    assert {state_of(at, n) for n in spoiled} == {ChunkState.MIGRATED}

    for name, documents in sound.items():
        unchecked(at.data[name]).delete_many({})
        at.data[name].insert_many([bson.decode(document) for document in documents])
    assert (verified_all(at, number=4), found(at)) == (0, set())
    assert set(tally.totals(at.ledger, at.run.id)) == {"verified"}


def test_what_differs_is_listed_without_a_value(at: OpenRun) -> None:
    edit(at.data[LETTERS], 1, lambda d: d.update(name="geheim"))
    verified_all(at)
    [row] = at.ledger["mismatches"].find({}, {"_id": 0, "at": 0})
    whose = {"run": at.run.id, "chunk": 1, "id": oid(1)}
    assert row == {**whose, "target": LETTERS, "field": "name", "kind": "different"}


def test_subscribers_without_an_owner_are_never_compared(at: OpenRun) -> None:
    foreign = [{"_id": oid(0), "email": "a"}, {"_id": 1.5, "email": "b", "userId": None}]
    at.data[LETTERS].insert_many([*foreign, {"_id": oid(88), "email": "c", "x": {"y": 1}}])
    assert (verified_all(at), found(at)) == (0, set())


@pytest.mark.parametrize("state", ["pending", "failed", "rolled_back"])
def test_a_chunk_that_is_not_applied_must_have_no_parts(begin: Begin, state: Any) -> None:
    at = begin(users(3))
    put_state(at, state)
    assert verified(at).mismatches == 0
    put_state(at, ChunkState.PENDING)
    migrated(at)
    put_state(at, state)
    outcome = verified(at)
    assert (outcome.did, outcome.state, found(at)) == ("compared", state, PARTS)


def test_a_wrong_pipeline_is_caught_by_the_independent_way_only(begin: Begin) -> None:
    at = begin(users(3))
    wrong = copy.deepcopy(at.split_row)
    wrong["a"]["isAdmin"] = {"$toBool": {"$literal": 1}}
    vars(at)["split_row"] = wrong
    migrated(at)
    assert verified(at).mismatches == 0
    assert verified(at, number=2, independent=True).mismatches == 3
    assert found(at) == {(oid(n), BASE, "isAdmin", "different") for n in (1, 2, 3)}


@contextmanager
def touched(at: OpenRun, url: str, times: int) -> Iterator[OpenRun]:
    """The run, where a chunk's fence moves so many times while its targets are being read."""

    class Touching(CommandListener):
        left = times

        def started(self, event: Any) -> None:
            if event.command.get("find") == VENDORS and self.left:
                self.left -= 1
                at.ledger["chunks"].update_many({}, {"$inc": {"fence": 1, "written": 1}})

        def succeeded(self, event: Any) -> None: ...
        def failed(self, event: Any) -> None: ...

    with MongoClient[Document](url, event_listeners=[Touching()]) as client:
        ledger = Ledger.at(client, at.ledger.database.name)
        yield OpenRun(client, ledger, at.run, at.migration)


def test_a_chunk_that_is_touched_meanwhile_is_read_again(at: OpenRun, mongo_url: str) -> None:
    with touched(at, mongo_url, 1) as watched:
        assert verified(watched).did == "verified"
    assert ledger_row(at)["fence"] == 2


def test_a_chunk_that_is_touched_each_time_is_not_marked(at: OpenRun, mongo_url: str) -> None:
    with (
        touched(at, mongo_url, TRIES) as watched,
        pytest.raises(TransientError, match="written each time it was compared"),
    ):
        verified(watched)
    assert (state_of(at), "checked" in ledger_row(at)) == (ChunkState.MIGRATED, False)
    assert claims.attempts(at.ledger, WORK, at.run.id, 1) == 1


def test_a_snapshot_that_is_not_there_yet_is_worth_another_try(at: OpenRun, client: Client) -> None:
    with failing(client, "aggregate", errorCode=246), pytest.raises(TransientError):
        verified(at)
    with failing(client, "aggregate", times=1, errorCode=246):
        assert verified(at).did == "verified"
