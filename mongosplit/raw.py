"""BSON as bytes: cut, look up, build; no value is decoded and encoded again on its way through.

Layout of every type: the BSON specification 1.1, https://bsonspec.org/spec.html.
A value that is not there is `None`; a BSON null is a `Value` of kind null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import bson
from bson import Binary, ObjectId, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion

# Dates beyond the year 9999 must survive a decode.
EXACT: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024

KINDS: dict[int, str] = {
    0x01: "double",
    0x02: "string",
    0x03: "object",
    0x04: "array",
    0x05: "binData",
    0x06: "undefined",
    0x07: "objectId",
    0x08: "bool",
    0x09: "date",
    0x0A: "null",
    0x0B: "regex",
    0x0C: "dbPointer",
    0x0D: "javascript",
    0x0E: "symbol",
    0x0F: "javascriptWithScope",
    0x10: "int",
    0x11: "timestamp",
    0x12: "long",
    0x13: "decimal",
    0x7F: "maxKey",
    0xFF: "minKey",
}
LEAST: dict[str, Any] = {
    **dict.fromkeys(("int", "long", "double", "decimal"), float("-inf")),
    "string": "",
    "binData": Binary(b""),
    "objectId": ObjectId(bytes(12)),
    "bool": False,
    "date": datetime.min,
    "timestamp": Timestamp(0, 0),
}
"""The least value of each type that an index may be restricted to.

The least date is the year 1: a driver that lists indexes must be able to read it.
"""

_FIXED = {
    1: 8,
    6: 0,
    7: 12,
    8: 1,
    9: 8,
    0x0A: 0,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    0x13: 16,
    0x7F: 0,
    0xFF: 0,
}
_OBJECT, _ARRAY, _NULLISH = 3, 4, (0x06, 0x0A)


class Value(NamedTuple):
    """One BSON value: its type byte and its bytes, without the field name."""

    kind: int
    data: bytes

    @property
    def digest(self) -> str:
        """40 hexadecimal digits that stand for the value where a short name is needed."""
        return hashlib.sha256(bytes((self.kind,)) + self.data).hexdigest()[:40]

    @property
    def type_name(self) -> str:
        """The server's `$type` word for this value."""
        return KINDS[self.kind]

    @property
    def is_null(self) -> bool:
        """True for null and for the deprecated undefined, which the server treats alike."""
        return self.kind in _NULLISH

    @property
    def is_object(self) -> bool:
        """True for an embedded document."""
        return self.kind == _OBJECT

    @property
    def is_array(self) -> bool:
        """True for an array."""
        return self.kind == _ARRAY

    def decode(self) -> Any:
        """The Python value, as pymongo decodes it; a document stays a dict though it have `$ref`.

        Raises:
            bson.errors.InvalidBSON: a string is not UTF-8.
        """
        # pymongo would make a DBRef of it, which encodes to other bytes.
        if self.is_object:
            return {name: value.decode() for name, value in elements(self.data)}
        if self.is_array:
            return [value.decode() for _, value in elements(self.data)]
        return bson.decode(build([("", self)]), EXACT)[""]


def _int32(buffer: bytes, at: int) -> int:
    return int.from_bytes(buffer[at : at + 4], "little", signed=True)


def _value_size(kind: int, buffer: bytes, at: int) -> int:
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    if kind in (0x02, 0x0D, 0x0E):
        return 4 + _int32(buffer, at)
    if kind in (0x03, 0x04, 0x0F):
        return _int32(buffer, at)
    if kind == 0x05:
        return 5 + _int32(buffer, at)
    if kind == 0x0B:
        return buffer.index(0, buffer.index(0, at) + 1) + 1 - at
    if kind == 0x0C:
        return 16 + _int32(buffer, at)
    raise ValueError(f"unknown BSON type 0x{kind:02x} at byte {at}")


def documents(buffer: bytes) -> Iterator[bytes]:
    """Cut back-to-back BSON documents (a server batch) by their length prefix."""
    at, end = 0, len(buffer)
    while at < end:
        size = _int32(buffer, at)
        yield buffer[at : at + size]
        at += size


def elements(document: bytes) -> Iterator[tuple[str, Value]]:
    """Name and value of each field, in order; a name that is not UTF-8 keeps its bytes."""
    at = 4
    while kind := document[at]:
        stop = document.index(0, at + 1)
        size = _value_size(kind, document, stop + 1)
        name = document[at + 1 : stop].decode("utf-8", "surrogateescape")
        at = stop + 1 + size
        yield name, Value(kind, document[stop + 1 : at])


def field(document: bytes, name: str) -> Value | None:
    """The first field of that name, as the server reads it, or None."""
    return _by_name(document).get(name)


# One user is asked for many fields, of itself and of a document or two inside it.
@lru_cache(maxsize=8)
def _by_name(document: bytes) -> dict[str, Value]:
    return dict(reversed([*elements(document)]))


def lookup(document: bytes, path: str) -> Value | None:
    """What the aggregation expression `"$path"` yields.

    Through an array it yields the array of what its documents hold, through a scalar nothing
    (MongoDB manual, field paths; nested arrays are skipped, measured on 6.0.5).
    """
    head, _, rest = path.partition(".")
    value = field(document, head)
    if value is None or not rest:
        return value
    if value.is_object:
        return lookup(value.data, rest)
    if value.is_array:
        inner = (lookup(item.data, rest) for _, item in elements(value.data) if item.is_object)
        return array([item for item in inner if item is not None])
    return None


def build(fields: Iterable[tuple[str, Value]]) -> bytes:
    """A BSON document of these fields, in this order."""
    parts = [
        bytes((value.kind,)) + name.encode("utf-8", "surrogateescape") + b"\0" + value.data
        for name, value in fields
    ]
    body = b"".join(parts)
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"


def array(items: Iterable[Value]) -> Value:
    """A BSON array of these values."""
    return Value(_ARRAY, build((str(index), item) for index, item in enumerate(items)))


def subdocument(fields: Iterable[tuple[str, Value]]) -> Value:
    """An embedded document of these fields."""
    return Value(_OBJECT, build(fields))


def encode(value: Any) -> Value:
    """A Python value as BSON."""
    return next(elements(bson.encode({"": value}, codec_options=EXACT)))[1]


def is_string(value: Value | None, text: str) -> bool:
    """Whether `$eq` with this text holds; the server equates a symbol with a string."""
    return value is not None and value.kind in (0x02, 0x0E) and value.data == encode(text).data
