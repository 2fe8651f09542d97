"""Bytes are cut and built again without a change, and a path is read as the server reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import bson
import pytest
from bson import DatetimeMS, Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from mongosplit import raw
from mongosplit.raw import Value
from tests.property.hostile import DB_POINTER, UNDEFINED, VALUES, steady, text, users, values

USER = bson.encode(
    {
        "_id": 1,
        "a": {"b": {"c": "deep"}, "none": None},
        "list": [{"b": 1}, "scalar", [{"b": 2}], {"b": [3]}, {"x": 4}, {"b": None}],
        "twice": [{"b": [{"c": 1}, {"c": 2}]}, {"b": {"c": 3}}],
        "text": "x",
        "a.b": "a literal name",
    }
)


def read(path: str) -> Any:
    found = raw.lookup(USER, path)
    return "missing" if found is None else found.decode()


def test_a_path_leads_into_documents() -> None:
    assert read("a.b.c") == "deep"
    assert read("a.none") is None
    assert read("a.none.more") == "missing"
    assert read("a.unknown") == "missing"


def test_a_path_through_a_scalar_finds_nothing() -> None:
    assert read("text.b") == "missing"


def test_a_path_through_an_array_gathers_from_its_documents_and_skips_nested_arrays() -> None:
    assert read("list.b") == [1, [3], None]
    assert read("twice.b.c") == [[1, 2], 3]
    assert read("list.unknown") == []
    assert read("list.0") == []


def test_a_name_with_a_dot_is_never_read_by_a_path() -> None:
    assert read("a.b") == {"c": "deep"}


def test_the_first_of_two_fields_of_one_name_is_read() -> None:
    document = raw.build([("x", raw.encode(1)), ("x", raw.encode(2))])
    assert raw.field(document, "x") == raw.encode(1)


_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(),
    st.binary(),
    st.integers(-(2**63), 2**63 - 1).map(DatetimeMS),
)
_names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
_documents = st.dictionaries(
    _names,
    st.recursive(
        _leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
        max_leaves=10,
    ),
)


@settings(parent=steady, max_examples=100)
@given(document=_documents)
def test_what_pymongo_encodes_is_cut_and_built_again_to_the_byte(document: dict[str, Any]) -> None:
    encoded = bson.encode(document)
    fields = list(raw.elements(encoded))
    assert raw.build(fields) == encoded
    assert {name for name, _ in fields} == set(document)
    for name, value in document.items():
        assert raw.field(encoded, name) == raw.encode(value)


@settings(parent=steady, max_examples=200)
@given(user=users())
def test_a_hostile_user_is_cut_and_built_again_to_the_byte(user: bytes) -> None:
    assert raw.build(raw.elements(user)) == user


@given(batch=st.lists(_documents.map(bson.encode), max_size=5))
@steady
def test_a_batch_is_cut_into_its_documents(batch: list[bytes]) -> None:
    assert list(raw.documents(b"".join(batch))) == batch


def test_every_type_of_bson_is_measured_and_named() -> None:
    kinds = {value.kind for value in VALUES} | {UNDEFINED.kind, DB_POINTER.kind}
    assert kinds == set(raw.KINDS)
    document = raw.build((str(n), value) for n, value in enumerate(VALUES))
    assert [value for _, value in raw.elements(document)] == VALUES
    assert raw.encode("x").type_name == "string"
    assert UNDEFINED.type_name == "undefined"


def test_a_byte_that_is_no_type_of_bson_is_refused() -> None:
    document = b"\x08\0\0\0\x20a\0\0"
    with pytest.raises(ValueError, match="0x20"):
        list(raw.elements(document))


def test_a_field_name_that_is_not_utf8_keeps_its_bytes() -> None:
    document = b"\x09\0\0\0\x0a\xff\xfe\0\0"
    assert raw.build(raw.elements(document)) == document


def test_null_and_undefined_are_null_and_nothing_else_is() -> None:
    assert [each for each in VALUES if each.is_null] == [raw.encode(None), UNDEFINED]


@settings(parent=steady, max_examples=60)
@given(items=st.lists(values(), max_size=12))
def test_an_array_is_built_as_pymongo_builds_it(items: list[Value]) -> None:
    built = raw.array(items)
    names = [name for name, _ in raw.elements(built.data)]
    assert built.is_array
    assert names == [str(n) for n in range(len(items))]
    assert [value for _, value in raw.elements(built.data)] == items


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": "x"},
        {"$id": 1, "$ref": "users"},
        [{"$ref": "users", "$id": 1, "$db": "d", "more": {"$ref": "y", "$id": 2}}],
        DatetimeMS(2**63 - 1),
        DatetimeMS(-(2**63)),
        datetime(1901, 1, 1),
        Int64(1),
        -0.0,
    ],
)
def test_a_decoded_value_encodes_to_the_same_bytes(value: Any) -> None:
    encoded = raw.encode(value)
    assert raw.encode(encoded.decode()) == encoded


def test_a_symbol_equals_the_text_as_it_does_on_the_server() -> None:
    assert raw.is_string(raw.encode("aktiv"), "aktiv")
    assert raw.is_string(text(b"aktiv", 0x0E), "aktiv")
    assert not raw.is_string(text(b"aktiv", 0x0D), "aktiv")
    assert not raw.is_string(raw.encode("Aktiv"), "aktiv")
    assert not raw.is_string(None, "aktiv")
