"""What an operator types as an `_id` or a range is read as meant, or not at all."""

from __future__ import annotations

import math
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId
from bson.timestamp import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from mongosplit.errors import UsageError
from mongosplit.id_text import from_text, to_text
from mongosplit.keyspace import Bracket, Range, bracket_of, sort_key
from mongosplit.range_text import range_text, read_range, split_range

B = Bracket
OID = "64f0a1b2c3d4e5f601234567"
UUID_TEXT = "01234567-89ab-cdef-0123-456789abcdef"
ACCEPTED = [bracket for bracket in Bracket if bracket.accepted]
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(alphabet='.="{}\\ a1\n', max_size=8),
    st.sampled_from([OID, UUID_TEXT, "42", "true", "NaN", "null", "2024-05-06", "above a", "\0"]),
)
VALUES: dict[Bracket, st.SearchStrategy[Any]] = {
    B.NAN: st.sampled_from([math.nan, Decimal128("NaN")]),
    B.NUMBER: st.one_of(
        INT64,
        INT64.map(Int64),
        st.floats(allow_nan=False),
        st.decimals(allow_nan=False, places=3, min_value=-(10**20), max_value=10**20).map(
            Decimal128
        ),
        st.sampled_from([Decimal128("1E400"), Decimal128("-0E10"), 2**53 + 1, -0.0, math.inf]),
    ),
    B.STRING: TEXT,
    B.BIN_DATA: st.one_of(
        st.binary(max_size=20),
        st.uuids().map(Binary.from_uuid),
        st.builds(Binary, st.binary(min_size=16, max_size=16), st.sampled_from([0, 3, 5, 128])),
    ),
    B.OBJECT_ID: st.binary(min_size=12, max_size=12).map(ObjectId),
    B.BOOL: st.booleans(),
    B.DATE: st.one_of(
        INT64.map(DatetimeMS),
        st.integers(-(10**14), 10**14).map(DatetimeMS),
        st.datetimes().map(lambda moment: moment.replace(microsecond=0)),
    ),
    B.TIMESTAMP: st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
}
IDS = st.sampled_from(ACCEPTED).flatmap(VALUES.__getitem__)
MIXES = st.sets(st.sampled_from(ACCEPTED))
calm = settings(max_examples=300, database=None, deadline=None)


@calm
@given(IDS, MIXES)
def test_an_id_shown_is_read_back_as_the_same_id_whatever_else_occurs(
    value: object, others: set[Bracket]
) -> None:
    text = to_text(value)
    assert sort_key(from_text(text, [bracket_of(value)])) == sort_key(value)
    assert "\n" not in text
    mixed = {bracket_of(value), *others}
    assert sort_key(from_text(to_text(value, mixed), mixed)) == sort_key(value)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    bracket = draw(st.sampled_from([found for found in ACCEPTED if not found.whole]))
    bounds = draw(st.lists(VALUES[bracket], min_size=2, max_size=2, unique_by=sort_key))
    lo, hi = (draw(st.sampled_from([x, None])) for x in sorted(bounds, key=sort_key))
    return Range(bracket, lo, hi, upto=hi is not None and draw(st.booleans()))


@calm
@given(ranges(), MIXES)
def test_a_range_shown_is_read_back_as_the_same_range(held: Range, others: set[Bracket]) -> None:
    known = {held.bracket, *others}
    if held.lo is None and held.hi is None:
        known = {held.bracket}
    back = read_range(range_text(held, known), known)
    assert (back.bracket, back.start, back.end) == (held.bracket, held.start, held.end)


@calm
@given(st.one_of(TEXT, st.text(alphabet='{}"$:.0aoid,[]= ')), MIXES)
def test_any_text_is_an_id_that_the_server_takes_or_a_sentence(
    text: str, known: set[Bracket]
) -> None:
    with suppress(UsageError):
        bson.encode({"_id": from_text(text, known)})
    with suppress(UsageError):
        bson.encode(read_range(text, known).query())


PLAIN: list[tuple[str, Bracket, object]] = [
    (OID, B.OBJECT_ID, ObjectId(OID)),
    (f" {OID.upper()} ", B.OBJECT_ID, ObjectId(OID)),
    ("9007199254740993", B.NUMBER, 2**53 + 1),
    ("-1.5", B.NUMBER, -1.5),
    ("1e3", B.NUMBER, 1000.0),
    ("a b..c", B.STRING, "a b..c"),
    (" padded ", B.STRING, " padded "),
    (OID, B.STRING, OID),
    ("2024-05-06", B.DATE, DatetimeMS(1714953600000)),
    ("1965-01-01T01:00:00+01:00", B.DATE, DatetimeMS(-157766400000)),
    (UUID_TEXT, B.BIN_DATA, Binary.from_uuid(uuid.UUID(UUID_TEXT))),
    ("true", B.BOOL, True),
    ("NaN", B.NAN, math.nan),
    ("null", B.NULL, None),
]


@pytest.mark.parametrize(("text", "bracket", "value"), PLAIN)
def test_plain_text_is_read_as_the_only_type_there_is(
    text: str, bracket: Bracket, value: object
) -> None:
    assert sort_key(from_text(text, [bracket])) == sort_key(value)


JSON: list[tuple[str, object]] = [
    (f'{{"$oid": "{OID}"}}', ObjectId(OID)),
    ('{"$numberLong": "5"}', Int64(5)),
    ('{"$numberDecimal": "0.1"}', Decimal128("0.1")),
    ('{"$date": "1965-01-01T00:00:00Z"}', datetime(1965, 1, 1, tzinfo=UTC)),
    ('{"$date": {"$numberLong": "9223372036854775807"}}', DatetimeMS(2**63 - 1)),
    ('{"$timestamp": {"t": 1, "i": 2}}', Timestamp(1, 2)),
    (f'{{"$uuid": "{UUID_TEXT}"}}', Binary.from_uuid(uuid.UUID(UUID_TEXT))),
    ('"a..b"', "a..b"),
    ('""', ""),
    ('{"a": {"b": 1}}', {"a": {"b": 1}}),
]


@pytest.mark.parametrize(("text", "value"), JSON)
@pytest.mark.parametrize("known", [[], [B.OBJECT_ID], [B.STRING, B.NUMBER]])
def test_extended_json_is_read_whatever_types_occur(
    text: str, value: object, known: list[Bracket]
) -> None:
    assert sort_key(from_text(text, known)) == sort_key(value)


NOT_IDS = [
    *("", "  ", "{", '"open', '{"$oid": "zz"}', '{"$oid": 5}', '{"$oid": "' + OID + '", "a": 1}'),
    *('{"$numberLong": "99999999999999999999"}', '{"$numberDecimal": "x"}', '"\\ud800"'),
    *('{"$regularExpression": {"pattern": "a", "options": ""}}', '{"a":' * 100_000),
]


@pytest.mark.parametrize("text", NOT_IDS, ids=range(len(NOT_IDS)))
def test_text_that_is_no_id_of_any_type_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        from_text(text, [B.STRING])
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "bracket"),
    [
        ("64f0", B.OBJECT_ID),
        ("99999999999999999999", B.NUMBER),
        ("1e999", B.NUMBER),
        ("1_000", B.NUMBER),
        ("٣", B.NUMBER),
        ("nan", B.NUMBER),
        ("2024-05-06T07:08:09.1234567", B.DATE),
        ("0123456789abcdef0123456789abcdef", B.BIN_DATA),
        ("True", B.BOOL),
        ("1", B.TIMESTAMP),
        ("not utf-8 \udcff", B.STRING),
    ],
)
def test_plain_text_of_another_type_is_refused_and_not_repeated(text: str, bracket: B) -> None:
    with pytest.raises(UsageError, match=f"^the text is no _id of type {bracket}$") as refused:
        from_text(text, [bracket])
    assert refused.value.hint.startswith("extended JSON is always read: ")
    assert "64f0" not in refused.value.hint


def test_plain_text_is_ambiguous_only_when_it_could_be_several_types_that_occur() -> None:
    both = [B.STRING, B.OBJECT_ID]
    assert from_text("peter", both) == "peter"
    assert from_text(OID, [B.NUMBER, B.OBJECT_ID]) == ObjectId(OID)
    assert from_text("true", [B.STRING, B.BOOL]) is True
    assert from_text('"true"', [B.STRING, B.BOOL]) == from_text("true", [B.STRING]) == "true"
    with pytest.raises(
        UsageError, match=r"^plain text could be objectId or string here$"
    ) as refused:
        from_text(OID, both)
    assert refused.value.hint == 'write "text" or {"$oid": "0123456789abcdef01234567"}'
    with pytest.raises(UsageError, match=r"^nothing says what type of _id plain text is$"):
        from_text(OID, [])


def test_an_id_is_shown_plain_where_that_is_enough() -> None:
    assert to_text(ObjectId(OID)) == OID
    assert to_text(ObjectId(OID), [B.OBJECT_ID, B.STRING]) == f'{{"$oid": "{OID}"}}'
    assert to_text("Käthe") == "Käthe"
    assert to_text("a\nb") == '"a\\nb"'
    assert to_text("{ä}") == '"{ä}"'
    assert to_text(-0.0) == "-0.0"
    assert to_text(Decimal128("0.1")) == '{"$numberDecimal": "0.1"}'
    assert to_text(datetime(1965, 1, 1)) == "1965-01-01T00:00:00Z"
    assert to_text(DatetimeMS(-1)) == "1969-12-31T23:59:59.999Z"
    assert to_text(datetime(1970, 1, 1) + timedelta(days=1)) == "1970-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "lo", "hi", "upto"),
    [
        ("a..b", "a", "b", False),
        ("a..=b", "a", "b", True),
        ("..b", None, "b", False),
        ("..=b", None, "b", True),
        ("a..", "a", None, False),
        ("..", None, None, False),
        ('"a..b".."c..=d"', "a..b", "c..=d", False),
        ('"!"..="=b"', "!", "=b", True),
        ('"a\\"..".."b"', 'a"..', "b", False),
        ('5" disk..6" disk', '5" disk', '6" disk', False),
    ],
)
def test_a_range_is_split_where_quotes_and_braces_allow(
    text: str, lo: str | None, hi: str | None, upto: bool
) -> None:
    assert read_range(text, [B.STRING]) == Range(B.STRING, lo, hi, upto=upto)


@pytest.mark.parametrize(
    "text", ["", "a", "a...b", "a..b..c", "a..=", '"a"b..c', '"a..b', '{"$oid": 1..', "a.. .."]
)
def test_a_range_that_cannot_be_split_in_one_way_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        split_range(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "known", "sentence"),
    [
        ("5..3", [B.NUMBER], "no _id lies in the range"),
        ("5..5", [B.NUMBER], "no _id lies in the range"),
        ("5..x", [B.NUMBER], "upper bound of the range: the text is no _id of type number"),
        (
            '5.."x"',
            [B.NUMBER],
            "the range does not lie within one type of _id: number or string",
        ),
        (
            "..",
            [B.NUMBER, B.STRING],
            "the range does not lie within one type of _id: number or string",
        ),
        ("..", [], "the range does not lie within one type of _id: there is none"),
        ("NaN..", [B.NAN], "a nan _id bounds no range"),
    ],
)
def test_a_range_without_a_meaning_is_refused(text: str, known: list[B], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_range(text, known)
    assert refused.value.message == sentence
    assert refused.value.hint


def test_bounds_are_of_one_type_and_an_open_side_takes_the_type_of_the_other() -> None:
    assert read_range(f"{OID}..", [B.NUMBER, B.OBJECT_ID]) == Range(B.OBJECT_ID, ObjectId(OID))
    assert read_range("5..=5", [B.NUMBER]) == Range(B.NUMBER, 5, 5, upto=True)


def test_a_range_above_a_value_is_shown_as_words_that_are_no_range() -> None:
    assert range_text(Range(B.NUMBER, 5, above=True)) == "above 5"
    assert range_text(Range(B.NUMBER, 5, 7, above=True)) == "above 5 to 7"
    shown = range_text(Range(B.STRING, "a..b", "c", above=True, upto=True))
    assert shown == 'above "a..b" through c'
    with pytest.raises(UsageError):
        read_range("above 5", [B.NUMBER])
