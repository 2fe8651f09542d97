"""The pipelines on a real server yield, byte for byte, what the Python reference says."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import cycle
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from mongosplit import raw, reference
from mongosplit.pipelines import SIMPLE, index_documents, join_pipeline, split_pipeline
from mongosplit.raw import Value
from mongosplit.reference import Parts
from mongosplit.users import migration
from tests.property.hostile import (
    IN_RANGE,
    PATHS,
    VALUES,
    base,
    batches,
    numbered,
    place,
    steady,
    users,
    values,
)
from tests.property.stored import Raw, assert_same, cut, refill

split = partial(reference.split, migration)
join = partial(reference.join, migration)

Edit = tuple[str, str, int, Value]
"""Row key of the part, what is done to it, to which of its fields, and a new value."""


def split_on_server(source: Raw) -> list[bytes]:
    return cut(source.aggregate_raw_batches(split_pipeline(migration, {}), collation=SIMPLE))


def row(user: bytes) -> bytes:
    return raw.build((key, Value(3, part)) for key, part in split(user).items())


def join_on_server(database: Database[Any], parts: list[Parts]) -> list[bytes]:
    """The join view's documents for the archive `users`, with these parts in the targets."""
    for key, target in migration.keys.items():
        database[target.collection].create_index(target.owner)
        refill(database[target.collection], [each[key] for each in parts if key in each])
    stages = [{"$sort": {"_id": 1}}, *join_pipeline(migration)]
    return cut(database.users.aggregate_raw_batches(stages, collation=SIMPLE))


@steady
@given(batch=batches())
def test_the_split_pipeline_yields_what_the_reference_does(
    database: Database[Any], batch: list[bytes]
) -> None:
    stored = refill(database.users, batch)
    assert_same(split_on_server(database.users), map(row, stored))


def in_every_shape() -> list[bytes]:
    """For each path of DESIGN §4 and each awkward value, a vendor who subscribes with it there."""
    made: list[bytes] = []
    for path in PATHS:
        for value in (None, *VALUES):
            user = base(vendor=True, subscriber=True)
            place(user, path, value)
            made.append(numbered(len(made), user))
    return made


def test_every_path_in_every_shape_is_split_alike_and_joined_back(database: Database[Any]) -> None:
    stored = refill(database.users, in_every_shape())
    assert_same(split_on_server(database.users), map(row, stored))
    parts = [split(user) for user in stored]
    assert_same(map(join, stored, parts), stored)
    assert_same(join_on_server(database, parts), stored)


def test_the_split_compares_by_bytes_whatever_the_collation_of_the_source(
    database: Database[Any],
) -> None:
    source = database.create_collection("users", collation={"locale": "de", "strength": 1})
    user = base(vendor=False, subscriber=False)
    place(user, "kontakt.status", raw.encode("ÄKTIV".replace("Ä", "A")))
    [stored] = refill(source, [numbered(0, user)])
    assert split_on_server(source) == [row(stored)]
    careless = cut(source.aggregate_raw_batches(split_pipeline(migration, {})))
    assert careless != [row(stored)], "without SIMPLE the source's collation would decide"


@steady
@given(batch=batches(kinds=IN_RANGE))
def test_joining_untouched_parts_gives_the_user_back(
    database: Database[Any], batch: list[bytes]
) -> None:
    stored = refill(database.users, batch)
    parts = [split(user) for user in stored]
    assert_same(map(join, stored, parts), stored)
    assert_same(join_on_server(database, parts), stored)


FIELDS = {
    key: [f.name for f in migration.fields[target.collection] if f.path != "_id"]
    for key, target in migration.keys.items()
}
_EDIT = st.tuples(
    st.sampled_from([*FIELDS]),
    st.sampled_from(("set", "set", "null", "remove", "lose", "make")),
    st.integers(0, 29),
    values(),
)
EDITS = st.lists(_EDIT, max_size=6)
"""Anything done to parts: a field set, nulled or removed, a part lost or made."""


def edited(parts: Parts, user: bytes, edits: list[Edit]) -> Parts:
    parts = dict(parts)
    for key, verb, n, value in edits:
        if verb == "lose":
            parts.pop(key, None)
        elif verb == "make":
            parts.setdefault(key, new_part(key, user))
        elif key in parts:
            fields = dict(raw.elements(parts[key]))
            present = [name for name in FIELDS[key] if name in fields]
            if verb == "remove" and present:
                del fields[present[n % len(present)]]
            elif verb != "remove":
                name = FIELDS[key][n % len(FIELDS[key])]
                fields[name] = value if verb == "set" else raw.encode(None)
            parts[key] = raw.build(fields.items())
    return parts


def new_part(key: str, user: bytes) -> bytes:
    own_id = raw.lookup(user, "_id")
    assert own_id is not None
    return raw.build(dict.fromkeys(("_id", migration.keys[key].owner), own_id).items())


def _names(part: bytes) -> list[str]:
    return [name for name, _ in raw.elements(part)]


def test_edits_reach_the_removal_of_a_field_and_of_a_part_and_the_making_of_one() -> None:
    seen: Counter[str] = Counter()

    @settings(parent=steady, max_examples=100, derandomize=True, phases=[Phase.generate])
    @given(user=users(kinds=IN_RANGE), edits=EDITS)
    def look(user: bytes, edits: list[Edit]) -> None:
        before = split(user)
        after = edited(before, user, edits)
        seen.update(lost=len(before.keys() - after.keys()), made=len(after.keys() - before.keys()))
        for key in before.keys() & after.keys():
            seen.update(removed=len({*_names(before[key])} - {*_names(after[key])}))

    look()
    assert min(seen["lost"], seen["made"], seen["removed"]) >= 5


@steady
@given(batch=batches(kinds=IN_RANGE), some=st.lists(EDITS, min_size=1, max_size=8))
def test_the_join_pipeline_yields_what_the_reference_does_after_any_edit(
    database: Database[Any], batch: list[bytes], some: list[list[Edit]]
) -> None:
    stored = refill(database.users, batch)
    parts = [
        edited(split(user), user, edits) for user, edits in zip(stored, cycle(some), strict=False)
    ]
    assert_same(join_on_server(database, parts), map(join, stored, parts))


def test_a_user_whose_id_is_null_is_not_joined_with_the_subscribers_of_nobody(
    database: Database[Any],
) -> None:
    database.newsletter_subscribers.insert_many(
        [{"email": "b@x.de", "name": "B"}, {"userId": None}]
    )
    database.vendors.insert_one({"website": "foreign"})
    user = raw.build([("_id", raw.encode(None)), ("username", raw.encode("u"))])
    assert refill(database.users, [user]) == [user]
    joined = cut(database.users.aggregate_raw_batches(join_pipeline(migration), collation=SIMPLE))
    assert joined == [user]


def test_finding_a_part_by_its_owner_and_a_login_by_its_name_uses_an_index(
    database: Database[Any],
) -> None:
    for target in migration.targets:
        if indexes := index_documents(target):
            database.command({"createIndexes": target.collection, "indexes": indexes})
    for target, query in zip(
        migration.targets,
        ({"username": "anna"}, {"userId": ObjectId()}, {"userId": {"$in": [ObjectId()]}}),
        strict=True,
    ):
        plan = str(database[target.collection].find(query).explain()["queryPlanner"])
        assert "IXSCAN" in plan, f"{target.collection} is scanned for {[*query]}"


@pytest.mark.parametrize(("key", "field"), [("a", "username"), ("c", "userId")])
def test_a_unique_index_leaves_out_documents_that_hold_nothing_there(
    database: Database[Any], key: str, field: str
) -> None:
    target = migration.keys[key]
    collection = database[target.collection]
    database.command({"createIndexes": collection.name, "indexes": index_documents(target)})
    nothing: list[dict[str, Any]] = [{field: None}, {field: None}, {}, {}]
    collection.insert_many([{**each, "email": str(n)} for n, each in enumerate(nothing)])
    collection.insert_one({field: "anna", "email": "anna"})
    with pytest.raises(DuplicateKeyError):
        collection.insert_one({field: "anna", "email": "another"})


@steady
@given(batch=batches(), path=st.sampled_from((*PATHS, "kontakt.a.b", "adressen.plz.0")))
def test_lookup_reads_what_a_field_path_reads(
    database: Database[Any], batch: list[bytes], path: str
) -> None:
    stored = refill(database.users, batch)
    stages = [{"$sort": {"_id": 1}}, {"$replaceRoot": {"newRoot": {"found": f"${path}"}}}]
    found = [raw.field(each, "found") for each in cut(database.users.aggregate_raw_batches(stages))]
    assert found == [raw.lookup(user, path) for user in stored]


def test_a_type_is_named_as_the_server_names_it(database: Database[Any]) -> None:
    refill(database.users, [numbered(n, {"x": value}) for n, value in enumerate(VALUES)])
    found = database.users.aggregate([{"$sort": {"_id": 1}}, {"$project": {"x": {"$type": "$x"}}}])
    assert [each["x"] for each in found] == [value.type_name for value in VALUES]
