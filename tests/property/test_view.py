"""The pipeline of the compat view serves, byte for byte, what the Python reference joins."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from mongosplit import raw, reference
from mongosplit.pipelines import index_documents
from mongosplit.raw import Value
from mongosplit.reference import Parts
from mongosplit.users import migration
from mongosplit.view_pipeline import keys, view_pipeline
from tests.property.hostile import IN_RANGE, batches, steady
from tests.property.stored import Raw, assert_same, cut, refill
from tests.property.test_pipelines import EDITS, Edit, edited, in_every_shape

Fields = list[tuple[str, Value]]

split = partial(reference.split, migration)


def served(database: Database[Any], parts: list[Parts]) -> list[bytes]:
    for key, target in migration.keys.items():
        if not database[target.collection].index_information():
            database.command({"createIndexes": target.collection, "indexes": _indexes(key)})
        refill(database[target.collection], [each[key] for each in parts if key in each])
    stages = [*view_pipeline(migration, "users"), {"$sort": {"_id": 1}}]
    return cut(database.users.aggregate_raw_batches(stages))


def _indexes(key: str) -> list[dict[str, Any]]:
    # Unique ones would refuse the users that hypothesis repeats.
    return [{**index, "unique": False} for index in index_documents(migration.keys[key])]


def wanted(user: bytes, parts: Parts) -> bytes:
    """What the reference joins, with the keys as archived; the archive itself in an odd shape."""
    kontakt = raw.field(user, "kontakt")
    if kontakt is None or not kontakt.is_object:
        return user
    if "a" in parts:
        fields = dict(raw.elements(parts["a"]))
        for path, name in keys(migration).items():
            fields.pop(name, None)
            if (value := raw.lookup(user, path)) is not None:
                fields[name] = value
        return reference.join(migration, user, {**parts, "a": raw.build(fields.items())})
    # Who has no login is not split: that a part is not there says nothing.
    joined = list(raw.elements(reference.join(migration, user, parts)))
    whole = as_before(joined, "isVendor", raw.field(user, "isVendor"))
    mail = raw.lookup(user, "kontakt.mailNewsletter")
    return raw.build(
        (name, raw.subdocument(as_before(list(raw.elements(value.data)), "mailNewsletter", mail)))
        if name == "kontakt"
        else (name, value)
        for name, value in whole
    )


def as_before(fields: Fields, name: str, value: Value | None) -> Fields:
    return [
        (other, found if other != name or value is None else value)
        for other, found in fields
        if other != name or value is not None
    ]


def test_the_keys_of_users_are_the_login_and_the_address() -> None:
    assert keys(migration) == {"username": "username", "kontakt.email": "email"}


def test_every_path_in_every_shape_is_served_as_it_was(database: Database[Any]) -> None:
    stored = refill(database.users, in_every_shape())
    assert_same(served(database, [split(user) for user in stored]), stored)


@steady
@given(batch=batches(kinds=IN_RANGE))
def test_untouched_users_are_served_as_they_were(
    database: Database[Any], batch: list[bytes]
) -> None:
    stored = refill(database.users, batch)
    assert_same(served(database, [split(user) for user in stored]), stored)


@steady
@given(batch=batches(kinds=IN_RANGE), some=st.lists(EDITS, min_size=1, max_size=8))
def test_after_any_edit_the_view_serves_what_the_reference_joins(
    database: Database[Any], batch: list[bytes], some: list[list[Edit]]
) -> None:
    stored = refill(database.users, batch)
    parts = [
        edited(split(user), user, edits) for user, edits in zip(stored, cycle(some), strict=False)
    ]
    assert_same(served(database, parts), map(wanted, stored, parts))


@pytest.mark.parametrize("path", ["_id", "username", "kontakt.email"])
def test_a_filter_on_a_key_reaches_the_index_of_the_archive(
    database: Database[Any], path: str
) -> None:
    source: Raw = database.users
    for indexed in keys(migration):
        source.create_index(indexed)
    refill(source, in_every_shape())
    served(database, [])
    stages = [*view_pipeline(migration, "users"), {"$match": {path: "anna"}}]
    asked = {"aggregate": "users", "pipeline": stages, "cursor": {}}
    plan = str(database.command("explain", asked, verbosity="queryPlanner"))
    assert "IXSCAN" in plan or "IDHACK" in plan
    assert "COLLSCAN" not in plan


def test_a_user_without_an_id_is_not_joined_with_the_subscribers_of_nobody(
    database: Database[Any],
) -> None:
    user = raw.build([("_id", raw.encode(None)), ("kontakt", raw.encode({"email": "a@x.de"}))])
    assert refill(database.users, [user]) == [user]
    nobody = raw.build([("email", raw.encode("b@x.de")), ("name", Value(2, raw.encode("B").data))])
    refill(database.newsletter_subscribers, [nobody])
    found = cut(database.users.aggregate_raw_batches(view_pipeline(migration, "users")))
    assert found == [user]
