"""Whatever an annotation says, a server enforces, and the schema read in Python says the same."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from pydantic import Field
from pymongo.database import Database

from mongosplit import raw, schema
from mongosplit.definition import From, Part, Target
from mongosplit.schema import Id, Number
from mongosplit.users import Text
from tests.property.hostile import VALUES, document, text
from tests.property.judged import (
    assert_agree,
    guarded,
    refused_by_python,
    refused_by_server,
    with_id,
    with_value,
)


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
    valid = document({"_id": raw.encode(0), "anything": raw.encode(1)})
    parts = [with_value(valid, "two", raw.encode(each)) for each in (*of_two, *of_one)]
    documents = [with_id(part, n) for n, part in enumerate(parts)]
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
