"""The compat view serves the old documents, is known to its run, and is never somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from mongosplit import compat, compat_explain, raw
from mongosplit.compat import Standing
from mongosplit.errors import Refused
from mongosplit.ledger import runs
from mongosplit.mongo import raw_documents
from mongosplit.open_run import OpenRun
from tests.integration.conftest import (
    ABSENT,
    TARGETS,
    Begin,
    found,
    migrated,
    migrated_all,
    oid,
    stored,
    user,
    verified_all,
)

VIEW = "users_compat"
VENDORS = TARGETS[1]
COMMAND_NOT_SUPPORTED_ON_VIEW = 166
NOT_IN_A_TRANSACTION = 263


@pytest.fixture
def at(begin: Begin) -> OpenRun:
    """Seven users in two chunks: of each kind one, and two in quarantine."""
    opened = begin(
        [
            user(1),
            user(2, {"isVendor": False, "vendorProfile": ABSENT}),
            user(3, {"kontakt.mailNewsletter": False, "note": {"b": 1, "a": [2]}}),
            user(4, {"kontakt.email": None}),
            user(5, {"kontakt": ["odd"]}),
            {"zuerst": 1, **user(6, {"kontakt.status": "pending", "isAdmin": ABSENT})},
            user(7, {"username": ABSENT}),
        ],
        chunk_size=4,
    )
    migrated_all(opened)
    return opened


def read(at: OpenRun, name: str = VIEW, match: Any = None) -> list[bytes]:
    stages = [{"$match": match or {}}, {"$sort": {"_id": 1}}]
    return list(raw_documents(at.data[name].aggregate_raw_batches(stages)))


def names(at: OpenRun) -> set[str]:
    return {*at.data.list_collection_names()} - {"system.views"}


def test_every_user_is_served_byte_for_byte_those_in_quarantine_too(at: OpenRun) -> None:
    assert at.data[TARGETS[0]].count_documents({}) == 5
    assert compat.create(at, VIEW)
    assert read(at) == stored(at, "users")
    assert len(read(at)) == 7


def test_what_the_targets_hold_is_served_in_the_old_place(at: OpenRun) -> None:
    compat.create(at, VIEW)
    [before] = read(at, match={"_id": oid(6)})
    at.data[TARGETS[0]].update_one({"_id": oid(6)}, {"$set": {"isActive": True}})
    at.data[VENDORS].update_one({"userId": oid(6)}, {"$set": {"website": "hof.example"}})
    [after] = read(at, match={"username": "käthe6"})
    assert raw.lookup(after, "kontakt.status") == raw.encode("aktiv")
    assert raw.lookup(after, "vendorProfile.website") == raw.encode("hof.example")
    assert [name for name, _ in raw.elements(after)] == [name for name, _ in raw.elements(before)]
    assert next(raw.elements(after))[0] == "_id"


def test_users_not_migrated_yet_are_served_from_the_source(begin: Begin) -> None:
    at = begin([user(n) for n in range(1, 7)], chunk_size=3)
    migrated(at, 1)
    assert compat.create(at, VIEW)
    assert at.data[TARGETS[0]].count_documents({}) == 3
    assert read(at) == stored(at, "users")


def test_creating_it_again_makes_nothing(at: OpenRun) -> None:
    assert compat.create(at, VIEW)
    assert not compat.create(at, VIEW)
    assert compat.look(at, VIEW) == Standing(VIEW, "view", ours=True, current=True)
    assert [view.name for view in compat.standing(at)] == [VIEW]


def test_an_older_view_of_ours_is_renewed(at: OpenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(compat, "view_pipeline", lambda *_: [{"$match": {"old": True}}])
        compat.create(at, VIEW)
    assert compat.look(at, VIEW) == Standing(VIEW, "view", ours=True, current=False)
    assert compat.create(at, VIEW)
    assert compat.look(at, VIEW) == Standing(VIEW, "view", ours=True, current=True)
    assert read(at) == stored(at, "users")


def test_of_a_run_that_has_migrated_nothing_no_view_is_made(begin: Begin) -> None:
    at = begin([user(1)])
    with pytest.raises(Refused, match="users-1 is running: a view would find nothing to join"):
        compat.create(at, VIEW)
    assert VIEW not in names(at)


@pytest.mark.parametrize("kind", ["collection", "view of another", "view of the source"])
def test_what_somebody_else_has_made_is_neither_replaced_nor_dropped(
    at: OpenRun, kind: str
) -> None:
    if kind == "collection":
        at.data[VIEW].insert_one({"mine": True})
    else:
        on = "users" if kind == "view of the source" else VENDORS
        at.data.create_collection(VIEW, viewOn=on, pipeline=[{"$match": {"mine": True}}])
    before = list(at.data.list_collections(filter={"name": VIEW}))
    sentence = f"{VIEW} is a {kind.split()[0]} that no run of {at.run.source} has made"
    for refused in (compat.create, compat.drop):
        with pytest.raises(Refused, match=sentence):
            refused(at, VIEW)
    runs.note(at.ledger, at.run.id, views=[{"name": VIEW, "digest": "of the one we had made"}])
    assert compat.take_away(at) == []
    assert compat.standing(at) == []
    assert list(at.data.list_collections(filter={"name": VIEW})) == before


def test_it_is_dropped_once(at: OpenRun) -> None:
    compat.create(at, VIEW)
    compat.create(at, "another")
    assert compat.drop(at, VIEW)
    assert not compat.drop(at, VIEW)
    assert [view.name for view in compat.standing(at)] == ["another"]
    assert names(at) == {"users", "another", *TARGETS}


def test_taking_away_what_the_run_made_leaves_no_view(at: OpenRun) -> None:
    compat.create(at, VIEW)
    assert compat.take_away(at) == [VIEW]
    assert compat.take_away(at) == []
    assert names(at) == {"users", *TARGETS}


@pytest.mark.parametrize("write", ["insert", "update", "delete"])
def test_a_write_to_the_view_fails(at: OpenRun, write: str) -> None:
    compat.create(at, VIEW)
    writes: dict[str, Callable[[], object]] = {
        "insert": lambda: at.data[VIEW].insert_one({"_id": 1}),
        "update": lambda: at.data[VIEW].update_one({}, {"$set": {"a": 1}}),
        "delete": lambda: at.data[VIEW].delete_many({}),
    }
    with pytest.raises(OperationFailure) as failed:
        writes[write]()
    assert failed.value.code == COMMAND_NOT_SUPPORTED_ON_VIEW


def test_a_change_stream_and_a_transaction_are_refused(at: OpenRun) -> None:
    compat.create(at, VIEW)
    with pytest.raises(OperationFailure) as failed:
        at.data[VIEW].watch().close()
    assert failed.value.code == COMMAND_NOT_SUPPORTED_ON_VIEW
    with at.client.start_session() as session, pytest.raises(OperationFailure) as failed:  # noqa: PT012
        session.start_transaction()
        list(at.data[VIEW].find({}, session=session))
    assert failed.value.code == NOT_IN_A_TRANSACTION


def test_verify_lists_whom_the_view_serves_otherwise(at: OpenRun) -> None:
    compat.create(at, VIEW)
    assert verified_all(at) == 0
    at.data[VENDORS].update_one({"userId": oid(3)}, {"$set": {"website": "x"}})
    assert verified_all(at, number=2) == 2
    compared = {(row[0], *row[1:]) for row in found(at)}
    assert compared == {
        (oid(3), VENDORS, "website", "different"),
        (oid(3), VIEW, "", "compat"),
    }
    compat.drop(at, VIEW)
    assert verified_all(at, number=3) == 1


def test_point_reads_use_the_indexes_and_a_field_without_one_scans(at: OpenRun) -> None:
    for path in ("username", "kontakt.email"):
        at.source.create_index(path)
    compat.create(at, VIEW)
    assert compat_explain.fields(at) == ["_id", "username", "kontakt.email"]
    for field in compat_explain.fields(at):
        value = compat_explain.example(at, field)
        assert value is not None
        told = compat_explain.explain(at, VIEW, field, value)
        assert not told.scans, field
        assert {"_id_", "userId_1"} <= set(told.indexes)
        assert field == "_id" or f"{field}_1" in told.indexes
        assert told.examined <= 6
    scanned = compat_explain.explain(at, VIEW, "kontakt.name", raw.encode("Käthe 1"))
    assert scanned.scans
    assert scanned.examined > 7
    assert compat_explain.example(at, "nowhere") is None
