"""Brackets, the order of ids and ranges over them, as far as no server is needed."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex
from bson.dbref import DBRef
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp

from mongosplit.keyspace import EXACT_IDS, Bracket, Range, bracket_of, sort_key, union_query

BRACKETS: list[tuple[object, Bracket]] = [
    (MinKey(), Bracket.MIN_KEY),
    (None, Bracket.NULL),
    (math.nan, Bracket.NAN),
    (Decimal128("NaN"), Bracket.NAN),
    (Decimal128("sNaN"), Bracket.NAN),
    (1, Bracket.NUMBER),
    (Int64(1), Bracket.NUMBER),
    (-math.inf, Bracket.NUMBER),
    (Decimal128("1E400"), Bracket.NUMBER),
    ("", Bracket.STRING),
    ({}, Bracket.OBJECT),
    (bson.SON(), Bracket.OBJECT),
    (RawBSONDocument(bson.encode({"a": 1})), Bracket.OBJECT),
    (DBRef("a", 1), Bracket.OBJECT),
    (b"", Bracket.BIN_DATA),
    (Binary.from_uuid(uuid.UUID(int=1)), Bracket.BIN_DATA),
    (ObjectId(), Bracket.OBJECT_ID),
    (False, Bracket.BOOL),
    (datetime(2020, 1, 1), Bracket.DATE),
    (DatetimeMS(2**62), Bracket.DATE),
    (Timestamp(1, 1), Bracket.TIMESTAMP),
    (Code("x"), Bracket.JAVASCRIPT),
    (Code("x", {}), Bracket.JAVASCRIPT_WITH_SCOPE),
    (MaxKey(), Bracket.MAX_KEY),
]

# Neighbours in the order of the server's index.
ASCENDING: list[object] = [
    *(MinKey(), None, math.nan, -math.inf, Decimal128("-1E400"), -(2**63), -1.5, 0, 5e-324),
    *(0.1, 1, Int64(2**53), 2**53 + 1, 2**63 - 1, float(2**63), Decimal128("1E400"), math.inf),
    *("", "A", "Z", "a", "a\0", "a\0b", "aa", "é", "\uffff", "\U00010000", "😀"),
    *(
        {},
        {"a": math.nan},
        {"a": 1},
        {"b": math.nan},
        {"b": -1},
        {"a": ""},
        {"a": "", "b": None},
        {"a": {}},
        {"a": []},
    ),
    *({"a": [1]}, {"a": [1, 2]}, {"a": Timestamp(1, 1)}, {"a": Regex("b")}, {"a": Regex("b", "i")}),
    *(b"", Binary(b"", 5), b"\xff", Binary(b"\0", 128), b"aa", Binary(b"", 2), b"\0" * 5),
    *(ObjectId(b"a" * 12), ObjectId(b"b" * 12), False, True),
    *(DatetimeMS(-(2**63)), datetime(1969, 1, 1), DatetimeMS(0), datetime(2020, 1, 1)),
    *(DatetimeMS(2**63 - 1), Timestamp(0, 2**32 - 1), Timestamp(1, 0), Timestamp(2**32 - 1, 0)),
    *(Code(""), Code("b"), Code("", {}), Code("a", {}), Code("a", {"x": 1}), MaxKey()),
]


@pytest.mark.parametrize(("value", "bracket"), BRACKETS)
def test_a_value_is_in_the_bracket_of_its_bson_type(value: object, bracket: Bracket) -> None:
    assert bracket_of(value) is bracket


def test_dates_text_numbers_and_what_ids_usually_are_can_be_migrated() -> None:
    assert [bracket.value for bracket in Bracket if bracket.accepted] == [
        *("nan", "number", "string", "binData", "objectId", "bool", "date", "timestamp")
    ]


@pytest.mark.parametrize("value", [[1], Regex("a"), uuid.UUID(int=1), object()])
def test_what_cannot_be_an_id_or_lost_its_type_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=f"^{type(value).__name__} is not the type of an _id$"):
        sort_key(value)


def test_ids_sort_as_in_the_index() -> None:
    wrong = [(a, b) for a, b in pairwise(ASCENDING) if not sort_key(a) < sort_key(b)]
    assert wrong == []


@pytest.mark.parametrize(
    "same",
    [
        (1, Int64(1), 1.0, Decimal128("1.0")),
        (0, -0.0, Decimal128("-0E10")),
        (math.inf, Decimal128("Infinity")),
        (math.nan, Decimal128("NaN"), Decimal128("-NaN")),
        (b"a", Binary(b"a", 0)),
        (datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC), DatetimeMS(1577836800000)),
        (
            {"$ref": "a", "$id": 1},
            DBRef("a", 1),
            RawBSONDocument(bson.encode(DBRef("a", 1).as_doc())),
        ),
    ],
)
def test_ids_that_the_server_holds_equal_have_one_sort_key(same: tuple[object, ...]) -> None:
    assert len({sort_key(value) for value in same}) == 1


def test_numbers_a_double_cannot_tell_apart_stay_apart() -> None:
    assert sort_key(2**53 + 1) > sort_key(float(2**53))
    assert sort_key(0.1) > sort_key(Decimal128("0.1"))
    assert not Range(Bracket.NUMBER, lo=2**53 + 1).contains(float(2**53))


LETTERS = "abc"


@pytest.mark.parametrize(
    ("part", "inside", "query"),
    [
        (Range(Bracket.STRING), "abc", {"$gte": ""}),
        (Range(Bracket.STRING, "b"), "bc", {"$gte": "b"}),
        (Range(Bracket.STRING, "b", above=True), "c", {"$gt": "b"}),
        (Range(Bracket.STRING, None, "b"), "a", {"$lt": "b"}),
        (Range(Bracket.STRING, None, "b", upto=True), "ab", {"$lte": "b"}),
        (Range(Bracket.STRING, "a", "c"), "ab", {"$gte": "a", "$lt": "c"}),
        (Range(Bracket.STRING, "a", "c", above=True, upto=True), "bc", {"$gt": "a", "$lte": "c"}),
        (Range(Bracket.NULL), "", {"$type": "null"}),
    ],
)
def test_a_range_contains_what_its_query_asks_for(
    part: Range, inside: str, query: dict[str, Any]
) -> None:
    assert "".join(letter for letter in LETTERS if part.contains(letter)) == inside
    assert part.query("userId") == {"userId": query}


def test_a_range_holds_no_value_of_another_type() -> None:
    everything = [Range(bracket) for bracket in Bracket]
    for value, bracket in BRACKETS:
        assert [part.bracket for part in everything if part.contains(value)] == [bracket]


@pytest.mark.parametrize(
    ("bracket", "bound"),
    [
        (Bracket.NUMBER, "a"),
        (Bracket.NUMBER, math.nan),
        (Bracket.NUMBER, True),
        (Bracket.NAN, math.nan),
    ],
)
def test_a_bound_of_another_bracket_is_refused(bracket: Bracket, bound: object) -> None:
    for bounds in ({"lo": bound}, {"hi": bound}):
        with pytest.raises(ValueError, match=f"cannot bound a {bracket} range"):
            Range(bracket, **bounds)  # type: ignore[arg-type]


def test_one_range_needs_no_or_and_none_matches_nothing() -> None:
    one, two = Range(Bracket.NUMBER, lo=5), Range(Bracket.STRING)
    assert union_query([one]) == {"_id": {"$gte": 5}}
    assert union_query([one, two], "userId") == {
        "$or": [{"userId": {"$gte": 5}}, {"userId": {"$gte": ""}}]
    }
    assert union_query([]) == {"_id": {"$in": []}}


def test_the_ledger_keeps_no_open_bound_and_no_false_flag() -> None:
    lo, hi = ObjectId(), ObjectId()
    assert Range(Bracket.NULL).to_document() == {"bracket": "null"}
    assert Range(Bracket.BOOL, False).to_document() == {"bracket": "bool", "lo": False}
    assert Range(Bracket.OBJECT_ID, lo, hi, above=True, upto=True).to_document() == {
        "bracket": "objectId",
        "lo": lo,
        "hi": hi,
        "above": True,
        "upto": True,
    }


@pytest.mark.parametrize(
    "bound",
    [
        *(0, Int64(1), 2**53 + 1, Decimal128("1E400"), "ü", Binary(b"a", 128), False),
        *(DatetimeMS(5), Timestamp(1, 2), Code("x"), Code("x", {"$ref": "a", "$id": 1})),
        bson.decode(
            bson.encode({"_id": {"$id": 1, "$ref": "a", "d": DatetimeMS(2**60)}}), EXACT_IDS
        )["_id"],
    ],
)
def test_a_bound_comes_back_from_the_ledger_with_the_same_bytes(bound: object) -> None:
    part = Range(bracket_of(bound), bound, above=True)
    restored = Range.from_document(bson.decode(bson.encode(part.to_document())))
    assert bson.encode(restored.query()) == bson.encode(part.query())
    assert (restored.start, restored.end) == (part.start, part.end)


@pytest.mark.parametrize(
    ("document", "error"), [({"lo": 1}, KeyError), ({"bracket": "array"}, ValueError)]
)
def test_a_document_that_is_no_range_is_refused(
    document: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Range.from_document(document)
