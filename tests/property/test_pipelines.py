"""The pipelines on a real server yield, byte for byte, what the Python reference says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from bson import ObjectId
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pymongo.database import Database

from mongosplit import raw, reference
from mongosplit.pipelines import (
    SIMPLE,
    index_documents,
    join_pipeline,
    split_pipeline,
)
from mongosplit.raw import Value
from mongosplit.reference import Parts
from mongosplit.users import migration
from tests.property.hostile import (
    ID_KINDS,
    PATHS,
    Raw,
    assert_same,
    base,
    batches,
    cut,
    in_every_shape,
    numbered,
    place,
    refill,
    steady,
    users,
    values,
)

split = partial(reference.split, migration)
join = partial(reference.join, migration)

IN_RANGE = len(ID_KINDS) - 1
Edit = tuple[str, str | None, Value | None]
"""Row key, field (none: the part itself) and new value (none: removed)."""


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


_FIELDS = [
    (key, field.name)
    for key, target in migration.keys.items()
    for field in migration.fields[target.collection]
    if field.name not in ("_id", target.owner)
]
_NULL = st.just(raw.encode(None))
_FIELD_EDIT = st.builds(
    lambda where, value: (*where, value),
    st.sampled_from(_FIELDS),
    st.one_of(values(), st.none(), _NULL),
)
_PART_EDIT = st.tuples(st.sampled_from([*migration.keys]), st.none(), st.one_of(st.none(), _NULL))
EDITS = st.lists(st.one_of(_FIELD_EDIT, _FIELD_EDIT, _FIELD_EDIT, _PART_EDIT), max_size=6)
"""Anything done to parts: a field changed, nulled or removed, a part removed or added."""


def edited(parts: Parts, user: bytes, changes: list[Edit]) -> Parts:
    parts = dict(parts)
    for key, field, value in changes:
        if field is None and value is None:
            parts.pop(key, None)
        elif field is None:
            parts.setdefault(key, new_part(key, user))
        elif key in parts:
            kept = [(name, old) for name, old in raw.elements(parts[key]) if name != field]
            parts[key] = raw.build(kept if value is None else [*kept, (field, value)])
    return parts


def new_part(key: str, user: bytes) -> bytes:
    own_id = raw.lookup(user, "_id")
    assert own_id is not None
    return raw.build(dict.fromkeys(("_id", migration.keys[key].owner), own_id).items())


@steady
@given(data=st.data(), batch=batches(kinds=IN_RANGE))
def test_the_join_pipeline_yields_what_the_reference_does_after_any_edit(
    database: Database[Any], data: st.DataObject, batch: list[bytes]
) -> None:
    stored = refill(database.users, batch)
    parts = [edited(split(user), user, data.draw(EDITS)) for user in stored]
    joined = [join(user, each) for user, each in zip(stored, parts, strict=True)]
    assert_same(join_on_server(database, parts), joined)


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


def test_subscribers_without_an_owner_do_not_share_the_unique_index(
    database: Database[Any],
) -> None:
    target = migration.keys["c"]
    database.command({"createIndexes": target.collection, "indexes": index_documents(target)})
    foreign: list[dict[str, Any]] = [{"userId": None}, {"userId": None}, {}, {}]
    subscribers = [{**each, "email": str(n)} for n, each in enumerate(foreign)]
    database[target.collection].insert_many(subscribers)
    assert database[target.collection].count_documents({}) == 4


def _is(kind: str, *paths: str) -> Callable[[bytes], bool]:
    """Whether a user has a value of that type, or "missing", at one of the paths."""

    def holds(user: bytes) -> bool:
        found = (raw.lookup(user, path) for path in paths)
        return any(("missing" if each is None else each.type_name) == kind for each in found)

    return holds


def _is_vendor_and(holds: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    return lambda user: raw.field(user, "isVendor") == raw.encode(True) and holds(user)


def _names(user: bytes) -> list[str]:
    return [name for name, _ in raw.elements(user)]


PARENTS = ("kontakt", "vendorProfile")
TRAPS: dict[str, Callable[[bytes], bool]] = {
    "a parent is absent": _is_vendor_and(_is("missing", *PARENTS)),
    "a parent is null": _is_vendor_and(_is("null", *PARENTS)),
    "a parent is a scalar": _is_vendor_and(_is("string", *PARENTS)),
    "a path leads through an array": _is("array", "kontakt.email", "vendorProfile.kategorien"),
    "null where a default stands": _is_vendor_and(_is("null", "isAdmin", "adressen")),
    "undefined where a default stands": _is_vendor_and(_is("undefined", "isAdmin", "adressen")),
    "nothing where a default stands": _is_vendor_and(_is("missing", "vendorProfile.kategorien")),
    "a field is literally named a.b": lambda user: "kontakt.email" in _names(user),
    "1 where true is asked": _is("int", "isVendor", "kontakt.mailNewsletter"),
    "1.0 where true is asked": _is("double", "isVendor", "kontakt.mailNewsletter"),
    "a symbol where a text is asked": _is("symbol", "kontakt.status"),
    "fields in another order": lambda user: _names(user)[1:2] not in ([], ["username"]),
}


def test_hostile_users_reach_every_trap_of_the_aggregation_language() -> None:
    seen: Counter[str] = Counter()

    @settings(parent=steady, max_examples=300, derandomize=True, phases=[Phase.generate])
    @given(batch=batches())
    def look(batch: list[bytes]) -> None:
        seen.update(name for user in batch for name, holds in TRAPS.items() if holds(user))

    look()
    assert [name for name in TRAPS if seen[name] < 5] == []


def test_edits_reach_the_removal_of_a_field_and_of_a_part_and_the_making_of_one() -> None:
    seen: Counter[str] = Counter()

    @settings(parent=steady, max_examples=100, derandomize=True, phases=[Phase.generate])
    @given(user=users(kinds=IN_RANGE), changes=EDITS)
    def look(user: bytes, changes: list[Edit]) -> None:
        before = split(user)
        after = edited(before, user, changes)
        seen.update(lost=len(before.keys() - after.keys()), made=len(after.keys() - before.keys()))
        for key in before.keys() & after.keys():
            seen.update(removed=len({*_names(before[key])} - {*_names(after[key])}))

    look()
    assert min(seen["lost"], seen["made"], seen["removed"]) >= 5


@steady
@given(batch=batches(), path=st.sampled_from((*PATHS, "kontakt.a.b", "adressen.plz.0")))
def test_lookup_reads_what_a_field_path_reads(
    database: Database[Any], batch: list[bytes], path: str
) -> None:
    stored = refill(database.users, batch)
    stages = [{"$sort": {"_id": 1}}, {"$replaceRoot": {"newRoot": {"found": f"${path}"}}}]
    found = [raw.field(each, "found") for each in cut(database.users.aggregate_raw_batches(stages))]
    assert found == [raw.lookup(user, path) for user in stored]
