"""A model says only what the collection's validator can hold, and a problem is told in words."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import bson
import pytest
from annotated_types import Len
from bson import ObjectId
from pydantic import Field, create_model

from mongosplit import schema
from mongosplit.definition import Part
from mongosplit.errors import DefinitionError
from mongosplit.raw import Value

Text = Annotated[str, Field(min_length=1)]


class Inner(Part):
    name: Text
    id: ObjectId | None = None


class Other(Part):
    name: str


def schema_of(annotation: Any) -> schema.Schema:
    model = create_model("Model", __base__=Part, field=(annotation, ...))
    found: schema.Schema = schema.of_model(model).get("properties", {}).get("field", {})
    return found


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (str, {"bsonType": ["string"]}),
        (bool, {"bsonType": ["bool"]}),
        (int, {"bsonType": ["int", "long"]}),
        (datetime | None, {"bsonType": ["date", "null"]}),
        (Any, {}),
        (Any | None, {}),
        (list[Any], {"bsonType": ["array"]}),
        (dict[str, Any] | None, {"bsonType": ["object", "null"]}),
        (Text, {"bsonType": ["string"], "minLength": 1}),
        (Text | None, {"bsonType": ["string", "null"], "minLength": 1}),
        (
            Annotated[Text | None, Field(min_length=3)],
            {"bsonType": ["string", "null"], "minLength": 3},
        ),
        (Annotated[str, Len(2)], {"bsonType": ["string"], "minLength": 2}),
        (list[Text], {"bsonType": ["array"], "items": {"bsonType": ["string"], "minLength": 1}}),
        (Literal["a", 1], {"bsonType": ["string", "int"], "enum": ["a", 1]}),
        (Literal["a"] | None, {"bsonType": ["string", "null"], "enum": ["a", None]}),
        (schema.Number | int, {"bsonType": ["int", "long", "double", "decimal"]}),
    ],
)
def test_an_annotation_becomes_its_rule(annotation: Any, wanted: schema.Schema) -> None:
    assert schema_of(annotation) == wanted


@pytest.mark.parametrize(
    "annotation",
    [
        complex,
        list,
        tuple[str, ...],
        dict[str, int],
        dict[int, Any],
        Annotated[int, Field(ge=3)],
        Annotated[str, Field(max_length=3)],
        Annotated[str, Field(pattern="x")],
        Annotated[list[str], Field(min_length=1)],
        Annotated[Any, Field(min_length=1)],
        list[Annotated[str, Field(max_length=3)]],
        Annotated[int, Field(gt=3)] | None,
        list[str] | list[int],
        Inner | Other,
        Inner | dict[str, Any],
        Literal["a"] | int,
        Literal["a"] | Literal["b"] | Text,
    ],
)
def test_an_annotation_the_server_would_not_be_held_to_is_refused(annotation: Any) -> None:
    with pytest.raises(DefinitionError):
        schema_of(annotation)


def problems(annotation: Any, document: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    model = create_model("Model", __base__=Part, field=(annotation, ...))
    found = schema.problems(schema.of_model(model), Value(3, bson.encode(document)))
    return [(".".join(each.path), each.reason, each.found, each.wanted) for each in found]


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (str, 1, ("field", "wrong-type", "is of type int", "string")),
        (str, None, ("field", "missing", "is null", "string")),
        (str | bool | None, 1, ("field", "wrong-type", "is of type int", "string or bool")),
        (Text, "", ("field", "missing", "is empty", "string")),
        (Annotated[str, Len(2)], "a", ("field", "wrong-type", "is too short", "string")),
        (Inner, {}, ("field.name", "missing", "is missing", "string")),
        (Inner, {"name": "a", "_id": 1}, ("field._id", "wrong-type", "is of type int", "objectId")),
        (list[Inner], [{"name": "a"}, 1], ("field.1", "wrong-type", "is of type int", "object")),
        (Literal["a"], "b", ("field", "wrong-type", "is not one of the allowed values", "string")),
    ],
)
def test_a_problem_says_where_and_what(
    annotation: Any, value: Any, wanted: tuple[str, str, str, str]
) -> None:
    assert problems(annotation, {"field": value}) == [wanted]


def test_a_missing_field_is_told_with_what_was_wanted() -> None:
    assert problems(str, {}) == [("field", "missing", "is missing", "string")]
    assert problems(Any, {}) == [("field", "missing", "is missing", "value")]


def test_every_problem_of_a_document_is_told() -> None:
    found = problems(list[Inner], {"field": [{}, {"name": ""}, {"name": "a"}, 5]})
    assert [each[0] for each in found] == ["field.0.name", "field.1.name", "field.3"]
