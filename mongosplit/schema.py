"""The `$jsonSchema` of a target, made from its pydantic model, and the same schema read in Python.

The server enforces the schema; `problems` says in words what the server would refuse. Both read the
one schema, so they cannot drift apart (a property test holds them together on a real server).
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import BaseMetadata, GroupedMetadata, MinLen
from bson import Binary, Decimal128, Int64, ObjectId
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mongosplit import raw
from mongosplit.errors import DefinitionError
from mongosplit.raw import Value

Schema = dict[str, Any]


@dataclass(frozen=True)
class BsonType:
    """Annotation for a field that may hold any of these BSON types, by the server's names."""

    names: tuple[str, ...]


ID_TYPES = (
    *("int", "long", "double", "decimal"),
    *("string", "binData", "objectId", "bool", "date", "timestamp"),
)
Id = Annotated[Any, BsonType(ID_TYPES)]
"""Any `_id` mongosplit ranges over."""
Number = Annotated[Any, BsonType(("int", "long", "double", "decimal"))]
"""Any BSON number."""

_SCALARS: dict[Any, tuple[str, ...]] = {
    str: ("string",),
    bool: ("bool",),
    int: ("int", "long"),
    Int64: ("long",),
    float: ("double",),
    datetime: ("date",),
    ObjectId: ("objectId",),
    Decimal128: ("decimal",),
    bytes: ("binData",),
    Binary: ("binData",),
    type(None): ("null",),
}


@dataclass(frozen=True)
class Problem:
    """One place where a document breaks its schema: field path inside it, class word, sentence."""

    path: tuple[str, ...]
    reason: str
    found: str
    wanted: str


def bson_name(field_name: str) -> str:
    """The field's name in BSON: a model spells `_id` as `id`."""
    return "_id" if field_name == "id" else field_name


def stored_name(field_name: str, info: FieldInfo) -> str:
    """The name a model's field has in BSON: its alias, where it has one."""
    return info.alias or bson_name(field_name)


def of_model(model: type[BaseModel]) -> Schema:
    """The `$jsonSchema` of a pydantic model: types, required fields, nested models, lists.

    Raises:
        DefinitionError: an annotation says what the schema would not hold the server to.
    """
    properties: Schema = {}
    required: list[str] = []
    for name, info in model.model_fields.items():
        properties[stored_name(name, info)] = _of_type(info.annotation, info.metadata)
        if info.is_required():
            required.append(stored_name(name, info))
    schema: Schema = {"bsonType": ["object"]}
    if required:
        schema["required"] = required
    if kept := {name: rule for name, rule in properties.items() if rule}:
        schema["properties"] = kept
    return schema


def _of_type(annotation: Any, metadata: Iterable[Any]) -> Schema:
    marks = list(_marks(metadata))
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _of_type(inner, (*more, *marks))
    for mark in marks:
        if isinstance(mark, BsonType):
            return {"bsonType": list(mark.names)}
    if origin in (Union, types.UnionType):
        return _of_union([_of_type(member, marks) for member in get_args(annotation)])
    schema = _of_plain(annotation, origin)
    lengths = [mark.min_length for mark in marks if isinstance(mark, MinLen)]
    if lengths and annotation is str:
        schema["minLength"] = max(lengths)
    elif lengths and annotation is not type(None):
        raise DefinitionError(f"a least length on a field of type {annotation!r} is not checked")
    return schema


def _marks(metadata: Iterable[Any]) -> Iterator[Any]:
    """The annotations one by one; one the server would not be asked to hold is refused."""
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from _marks(mark.metadata)
        elif isinstance(mark, GroupedMetadata):
            yield from _marks(mark)
        elif isinstance(mark, BaseMetadata) and not isinstance(mark, MinLen):
            raise DefinitionError(
                f"the constraint {mark!r} is not checked by the collection's validator",
                hint="leave it out, or say it as a type, a Literal or min_length on a str",
            )
        else:
            yield mark


def _of_plain(annotation: Any, origin: Any) -> Schema:
    if annotation is Any:
        return {}
    if origin is Literal:
        values = list(get_args(annotation))
        return {"bsonType": _names(values), "enum": values}
    if origin is list:
        items = _of_type(get_args(annotation)[0], ())
        return {"bsonType": ["array"], **({"items": items} if items else {})}
    if annotation is dict or (origin is dict and get_args(annotation) == (str, Any)):
        return {"bsonType": ["object"]}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return of_model(annotation)
    if annotation in _SCALARS:
        return {"bsonType": list(_SCALARS[annotation])}
    raise DefinitionError(
        f"a target field of type {annotation!r} has no BSON type",
        hint="use str, bool, int, datetime, ObjectId, list[...], dict[str, Any], a model or Any",
    )


def _names(values: list[Any]) -> list[str]:
    return list(dict.fromkeys(raw.encode(value).type_name for value in values))


def _of_union(members: list[Schema]) -> Schema:
    if not all(members):
        return {}
    times = Counter(name for member in members for name in member["bsonType"])
    merged: Schema = {"bsonType": list(times)}
    for member in members:
        narrowed = {key: rule for key, rule in member.items() if key != "bsonType"}
        if narrowed and any(times[name] > 1 for name in member["bsonType"]):
            raise DefinitionError("a union of two lists, two models or two literals is unclear")
        merged |= narrowed
    if "enum" in merged:
        merged["enum"] = [*merged["enum"], *_beside_literal(members)]
    return merged


def _beside_literal(members: list[Schema]) -> list[None]:
    others = [member["bsonType"] for member in members if "enum" not in member]
    if any(names != ["null"] for names in others):
        raise DefinitionError("a union of a literal and anything but None is unclear")
    return [None for _ in others]


def problems(schema: Schema, value: Value) -> Iterator[Problem]:
    """Every place where the server would refuse this value under this schema, by field path."""
    return _problems(schema, value, ())


def _problems(schema: Schema, value: Value | None, path: tuple[str, ...]) -> Iterator[Problem]:
    if not schema:
        return
    wanted = " or ".join(name for name in schema["bsonType"] if name != "null")
    if value is None:
        yield Problem(path, "missing", "is missing", wanted)
    elif value.type_name not in schema["bsonType"]:
        yield Problem(path, *_refusal(value), wanted)
    elif value.type_name == "string" and _code_points(value) < schema.get("minLength", 0):
        yield Problem(path, *_shortness(value), wanted)
    elif "enum" in schema and not _is_one_of(value, schema["enum"]):
        yield Problem(path, "wrong-type", "is not one of the allowed values", wanted)
    elif value.is_object:
        yield from _object_problems(schema, value, path)
    elif value.is_array and "items" in schema:
        for index, item in raw.elements(value.data):
            yield from _problems(schema["items"], item, (*path, index))


def _is_one_of(value: Value, allowed: list[Any]) -> bool:
    # The server equates 1 and NumberLong(1), but neither with true.
    if value.type_name in ("int", "long"):
        return any(type(item) is int and item == value.decode() for item in allowed)
    return any(raw.encode(item) == value for item in allowed)


def _code_points(text: Value) -> int:
    # The server counts code points, and a continuation byte begins none.
    return sum(byte & 0xC0 != 0x80 for byte in text.data[4:-1])


def _shortness(text: Value) -> tuple[str, str]:
    return ("wrong-type", "is too short") if _code_points(text) else ("missing", "is empty")


def _refusal(value: Value) -> tuple[str, str]:
    if value.is_null:
        return "missing", f"is {value.type_name}"
    return "wrong-type", f"is of type {value.type_name}"


def _object_problems(schema: Schema, value: Value, path: tuple[str, ...]) -> Iterator[Problem]:
    required = schema.get("required", ())
    rules = schema.get("properties", {})
    fields = dict(reversed(list(raw.elements(value.data))))
    for name in dict.fromkeys((*required, *rules)):
        found = fields.get(name)
        if found is not None:
            yield from _problems(rules.get(name, {}), found, (*path, name))
        elif name in required:
            wanted = rules.get(name, {}).get("bsonType", ["value"])
            yield Problem((*path, name), "missing", "is missing", " or ".join(wanted))
