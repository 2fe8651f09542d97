"""The schema read in Python refuses exactly what a server refuses under the same schema."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from mongosplit import raw, reference, schema
from mongosplit.definition import From, Part, Target
from mongosplit.raw import Value
from mongosplit.schema import Id, Number
from mongosplit.users import Text, migration
from tests.property.hostile import (
    IN_RANGE,
    VALUES,
    base,
    document,
    numbered,
    steady,
    text,
    users,
    values,
)
from tests.property.stored import Raw

DOCUMENT_FAILED_VALIDATION = 121

split = partial(reference.split, migration)


def refused_by_server(collection: Raw, documents: list[bytes]) -> set[int]:
    """Which of the documents the collection's validator refuses."""
    collection.delete_many({})
    failed: list[Any] = []
    try:
        collection.insert_many([RawBSONDocument(each) for each in documents], ordered=False)
    except BulkWriteError as error:
        failed = (error.details or {})["writeErrors"]
    assert {each["code"] for each in failed} <= {DOCUMENT_FAILED_VALIDATION}
    return {each["index"] for each in failed}


def refused_by_python(target: type[Target], documents: list[bytes]) -> set[int]:
    rules = target.schema_of_documents()
    return {n for n, each in enumerate(documents) if any(schema.problems(rules, Value(3, each)))}


def guarded(database: Database[Any], target: type[Target]) -> Raw:
    if target.collection not in database.list_collection_names():
        database.create_collection(
            target.collection, validator={"$jsonSchema": target.schema_of_documents()}
        )
    # A refusal quotes the value, which may be a date beyond the year 9999.
    return database.get_collection(target.collection, raw.EXACT)


def assert_agree(database: Database[Any], target: type[Target], documents: list[bytes]) -> None:
    said = refused_by_python(target, documents)
    done = refused_by_server(guarded(database, target), documents)
    for n in sorted(said ^ done):
        raise AssertionError(f"only one refuses {[*raw.elements(documents[n])]}: {n in said=}")


def with_id(part: bytes, n: int) -> bytes:
    return document({**dict(raw.elements(part)), "_id": raw.encode(n)})


def with_value(part: bytes, path: str, value: Value | None) -> bytes:
    head, _, rest = path.partition(".")
    fields: dict[str, Any] = dict(raw.elements(part))
    if rest:
        inner = fields.get(head, raw.encode({}))
        below = with_value(inner.data, rest, value)
        fields[head] = Value(inner.kind, below)
    else:
        fields[head] = value
    return document(fields)


VALID = split(numbered(0, base(vendor=True, subscriber=True)))
VALID["b"] = with_value(VALID["b"], "addresses", raw.encode([{"plz": "1"}, {"plz": 2}]))
DEEP = {"a": [], "c": ["preferences.frequency"]}
DEEP["b"] = ["socialMedia.facebook", "addresses.0", "addresses.1.plz", "addresses.0.ort"]
DEEP["b"] += ["businessDetails.certifications", "location.coordinates", "location.deliveryRadius"]
DEEP["b"] += ["operationalInfo.seasonal", "pendingBooking.createdAt", "pendingBooking.packageData"]
DEEP["b"] += [
    "tags.0",
    "kategorien.0",
    "oeffnungszeiten.montag",
    "unknown",
    "location.deliveryAreas",
]


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


class Inner(Part):
    least: Text
    id: ObjectId | None = None
    more: list[Text] | None = None


class Everything(Target, collection="everything"):
    """One field for each thing an annotation can say."""

    id: Annotated[Id, From("_id")]
    two: Annotated[str | None, Field(min_length=2), From("a")] = None
    texts: Annotated[list[Text], From("b")] = []  # noqa: RUF012
    perhaps: Annotated[Text | None, From("c")] = None
    word: Annotated[Literal["aktiv", "pending"] | None, From("d")] = None
    number: Annotated[Literal[1, 0, 2147483648], From("e")] = 1
    flag: Annotated[Literal[True, 7, b"x"], From("f")] = True
    inner: Annotated[Inner | None, From("g")] = None
    inners: Annotated[list[Inner | None], From("h")] = []  # noqa: RUF012
    mixed: Annotated[str | list[int] | Inner | None, From("i")] = None
    long: Annotated[Int64 | None, From("j")] = None
    double: Annotated[float | Number | None, From("k")] = None
    decimal: Annotated[Decimal128 | None, From("l")] = None
    data: Annotated[bytes | Binary | None, From("m")] = None
    date: Annotated[datetime | None, From("n")] = None
    anything: Annotated[Any, From("o")]
    dotted: Annotated[dict[str, Any] | None, Field(alias="class"), From("p")] = None


def test_every_kind_of_annotation_is_judged_alike(database: Database[Any]) -> None:
    texts = [
        b"",
        b"a",
        b"ab",
        "🌻".encode(),
        "e\u0301".encode(),
        "é".encode(),
        b"\xff\xfe",
        b"\x80",
    ]
    inner = [{"least": "a"}, {"least": ""}, {}, {"least": "a", "_id": 1}, {"least": 1}]
    inner += [{"least": "a", "more": [""]}, {"least": "a", "more": None}, [{"least": "a"}, None]]
    inner += [[{"least": "a"}, {"more": []}], [1, Int64(2)], [1.0]]
    more = [text(each) for each in texts] + [raw.array([text(each)]) for each in texts]
    more += [raw.encode(each) for each in (*inner, 2**31, 7, Int64(7), Int64(2**31), b"x")]
    names = [schema.stored_name(*each) for each in Everything.model_fields.items()]
    valid = document({"_id": raw.encode(0), "anything": raw.encode(1)})
    assert not refused_by_python(Everything, [valid])
    parts = [
        with_value(valid, name, value)
        for name in (*names[1:], "mixed.least", "inner.least")
        for value in (None, *VALUES, *more)
    ]
    assert_agree(database, Everything, [with_id(part, n) for n, part in enumerate(parts)])


def test_a_least_length_counts_code_points_as_the_server_does(database: Database[Any]) -> None:
    of_two = ["ab", "🌻🌻", "e\u0301", "\0\0", "👩\u200d🌾"]
    of_one = ["a", "🌻", "é", "\0", "𝒳"]
    documents = [
        document({"_id": raw.encode(n), "anything": raw.encode(1), "two": raw.encode(each)})
        for n, each in enumerate((*of_two, *of_one))
    ]
    refused = set(range(len(of_two), len(documents)))
    assert refused_by_python(Everything, documents) == refused
    assert refused_by_server(guarded(database, Everything), documents) == refused


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("two", ["ab", None], ["a", "", 2]),
        ("texts", [[], ["a"]], [[""], ["a", ""], ["a", None]]),
        ("perhaps", ["a", None], [""]),
        ("word", ["aktiv", "pending", None], ["inaktiv", ""]),
        ("number", [1, 0, Int64(1), 2**31], [True, 1.0, 2, None]),
        ("flag", [True, 7, b"x"], [False, 1, b"y", Binary(b"x", 5)]),
        ("inner", [{"least": "a"}, None], [{"least": ""}, {}, {"least": "a", "more": [""]}]),
        ("mixed", ["", [1], {"least": "a"}], [["a"], {"least": ""}]),
        ("class", [{}, {"x": 1}, None], [[], "x"]),
        ("anything", [None, 1], []),
    ],
)
def test_the_server_enforces_what_an_annotation_says(
    database: Database[Any], name: str, accepted: list[Any], refused: list[Any]
) -> None:
    valid = document({"_id": raw.encode(0), "anything": raw.encode(1)})
    parts = [with_value(valid, name, raw.encode(each)) for each in (*accepted, *refused)]
    found = refused_by_server(
        guarded(database, Everything), [with_id(part, n) for n, part in enumerate(parts)]
    )
    assert found == set(range(len(accepted), len(parts)))
