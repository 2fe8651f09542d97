"""The schema read in Python refuses exactly what a server refuses under the same schema."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from mongosplit import raw, reference, schema
from mongosplit.pipelines import validator
from mongosplit.raw import Value
from mongosplit.users import migration
from tests.property.hostile import IN_RANGE, VALUES, base, numbered, steady, users, values
from tests.property.judged import (
    assert_agree,
    refused_by_python,
    refused_by_server,
    with_id,
    with_value,
)

split = partial(reference.split, migration)


VALID = split(numbered(0, base(vendor=True, subscriber=True)))
VALID["b"] = with_value(VALID["b"], "addresses", raw.encode([{"plz": "1"}, {"plz": 2}]))
DEEP = {"a": [], "c": ["preferences.frequency"]}
DEEP["b"] = [
    "socialMedia.facebook",
    "addresses.0",
    "addresses.1.plz",
    "addresses.0.ort",
    "location.deliveryAreas",
]
DEEP["b"] += ["businessDetails.certifications", "location.coordinates", "location.deliveryRadius"]
DEEP["b"] += ["operationalInfo.seasonal", "pendingBooking.createdAt", "pendingBooking.packageData"]
DEEP["b"] += ["tags.0", "kategorien.0", "oeffnungszeiten.montag", "unknown"]


@pytest.mark.parametrize("key", migration.keys)
def test_every_field_of_a_part_is_judged_alike_with_every_awkward_value(
    database: Database[Any], key: str
) -> None:
    target = migration.keys[key]
    paths = [f.name for f in migration.fields[target.collection] if f.name != "_id"]
    parts = [
        with_value(VALID[key], path, value)
        for path in (*paths, *DEEP[key])
        for value in (None, *VALUES)
    ]
    assert not any(schema.problems(target.schema_of_documents(), Value(3, VALID[key])))
    assert_agree(database, target, [with_id(part, n) for n, part in enumerate(parts)])


@steady
@given(
    key=st.sampled_from([*migration.keys]),
    some=st.lists(
        st.tuples(
            users(kinds=IN_RANGE),
            st.dictionaries(st.integers(0, 40), st.one_of(st.none(), values()), max_size=4),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_any_mutated_part_is_judged_alike(
    database: Database[Any], key: str, some: list[tuple[bytes, dict[int, Value | None]]]
) -> None:
    target = migration.keys[key]
    paths = [f.name for f in migration.fields[target.collection] if f.name != "_id"] + DEEP[key]
    parts = []
    for n, (user, changes) in enumerate(some):
        part = split(user).get(key, VALID[key])
        for place, value in changes.items():
            head = paths[place % len(paths)].partition(".")[0]
            part = with_value(part, head, value)
        parts.append(with_id(part, n))
    assert_agree(database, target, parts)


@pytest.mark.parametrize("key", migration.keys)
def test_the_validator_refuses_what_the_schema_refuses_in_every_part(
    database: Database[Any], key: str
) -> None:
    target = migration.keys[key]
    database.create_collection("guarded", validator=validator(target))
    names = [f.name for f in migration.fields[target.collection] if f.path != "_id"]
    parts: list[bytes] = []
    for name in names:
        for value in (None, *VALUES[::4]):
            own_id = raw.encode(len(parts))
            owned = with_value(VALID[key], target.owner, own_id)
            parts.append(with_value(with_value(owned, "_id", own_id), name, value))
    collection = database.get_collection("guarded", raw.EXACT)
    assert refused_by_server(collection, parts) == refused_by_python(target, parts) != set()
    if target.adopt_by is not None:
        for owner in (None, raw.encode(None), raw.encode("somebody")):
            theirs = [with_value(part, target.owner, owner) for part in parts]
            assert refused_by_server(collection, theirs) == set()
