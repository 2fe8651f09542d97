"""The key space of `_id`: its type brackets, the server's order inside them, ranges over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import NoneType
from typing import Any, Self

import bson
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, MaxKey, MinKey, ObjectId, Regex
from bson.codec_options import DatetimeConversion
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from bson.timestamp import Timestamp

# Decodes an `_id` so that encoding it gives the same bytes: documents stay raw (field order, no
# DBRef made of {"$ref"}), dates may lie beyond year 9999, binaries keep their subtype.
EXACT_IDS = DEFAULT_RAW_BSON_OPTIONS.with_options(
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="surrogateescape",
)
Position = tuple[Any, ...]


class Bracket(StrEnum):
    """Values that one `$gte`/`$lt` can select together, in the order of the `_id` index.

    NaN is a number that no comparison with a number finds, hence a bracket of its own. Arrays,
    regular expressions and undefined are missing: the server refuses them as an `_id`.
    """

    MIN_KEY = "minKey"
    NULL = "null"
    NAN = "nan"
    NUMBER = "number"
    STRING = "string"
    OBJECT = "object"
    BIN_DATA = "binData"
    OBJECT_ID = "objectId"
    BOOL = "bool"
    DATE = "date"
    TIMESTAMP = "timestamp"
    DB_POINTER = "dbPointer"
    JAVASCRIPT = "javascript"
    JAVASCRIPT_WITH_SCOPE = "javascriptWithScope"
    MAX_KEY = "maxKey"

    @property
    def accepted(self) -> bool:
        """Whether documents with such an `_id` are migrated; the others go to quarantine."""
        return self in _ACCEPTED

    @property
    def whole(self) -> bool:
        """Whether it is never divided: it is one value or (dbPointer) cannot be written back."""
        return "$gte" not in _EVERYTHING[self]


_ACCEPTED = frozenset(
    map(Bracket, ["nan", "number", "string", "binData", "objectId", "bool", "date", "timestamp"])
)
# The condition for a bracket as a whole: one value, a type, or all from the least value up.
_EVERYTHING: dict[Bracket, dict[str, object]] = {
    Bracket.MIN_KEY: {"$eq": MinKey()},
    Bracket.NULL: {"$type": "null"},  # {field: null} also matches documents without the field
    Bracket.NAN: {"$eq": math.nan},
    Bracket.NUMBER: {"$gte": -math.inf},
    Bracket.STRING: {"$gte": ""},
    Bracket.OBJECT: {"$gte": {}},
    Bracket.BIN_DATA: {"$gte": b""},
    Bracket.OBJECT_ID: {"$gte": ObjectId(bytes(12))},
    Bracket.BOOL: {"$gte": False},
    Bracket.DATE: {"$gte": DatetimeMS(-(2**63))},
    Bracket.TIMESTAMP: {"$gte": Timestamp(0, 0)},
    Bracket.DB_POINTER: {"$type": "dbPointer"},
    Bracket.JAVASCRIPT: {"$gte": Code("")},
    Bracket.JAVASCRIPT_WITH_SCOPE: {"$gte": Code("", {})},
    Bracket.MAX_KEY: {"$eq": MaxKey()},
}
_RANK = {bracket: rank for rank, bracket in enumerate(Bracket)}
_ARRAY, _REGEX = _RANK[Bracket.OBJECT] + 0.5, _RANK[Bracket.TIMESTAMP] + 0.5


def bracket_of(value: object) -> Bracket:
    """The bracket of a decoded `_id`; TypeError for what cannot be one or has lost its BSON type.

    A UUID is refused: whether it was subtype 3 or 4 is lost (decode with `EXACT_IDS`). A DBRef
    counts as a document, which it mostly was; a dbPointer decodes to the same.
    """
    return _place(value)[0]


def sort_key(value: object) -> Position:
    """Orders decoded `_id` values as the `_id` index does (simple collation, any mix of types).

    Exact inside documents too, but for undefined, which is decoded as null. TypeError as above.
    """
    bracket, key = _place(value)
    return _RANK[bracket], key


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one bracket in [lo, hi); None is open: the bottom or the top of the bracket.

    `above` leaves `lo` out, `upto` takes `hi` in. ValueError when a bound is of another bracket.
    """

    bracket: Bracket
    lo: object | None = None
    hi: object | None = None
    above: bool = False
    upto: bool = False

    def __post_init__(self) -> None:
        for bound in (self.lo, self.hi):
            if bound is not None and (self.bracket.whole or bracket_of(bound) != self.bracket):
                raise ValueError(f"a {type(bound).__name__} cannot bound a {self.bracket} range")

    @property
    def start(self) -> Position:
        """Where the range starts, comparable with every start, end and `sort_key`."""
        return _edge(self.lo, past=self.above) or (_RANK[self.bracket],)

    @property
    def end(self) -> Position:
        """Where the range ends, which is the `start` of what follows without a gap."""
        return _edge(self.hi, past=self.upto) or (_RANK[self.bracket] + 1,)

    def contains(self, value: object) -> bool:
        """Whether `query` selects a document whose field has this decoded value."""
        return self.start <= sort_key(value) < self.end

    def query(self, field: str = "_id") -> dict[str, Any]:
        """The filter for the documents whose `field` lies in the range: one index scan."""
        lo = {} if self.lo is None else {"$gt" if self.above else "$gte": self.lo}
        hi = {} if self.hi is None else {"$lte" if self.upto else "$lt": self.hi}
        return {field: lo | hi or dict(_EVERYTHING[self.bracket])}

    def to_document(self) -> dict[str, Any]:
        """The range as the ledger keeps it: open bounds and false flags are absent.

        Bounds that hold documents are kept as bytes, since decoding may change documents. Reading
        a date beyond year 9999 takes `datetime_conversion` DATETIME_AUTO or DATETIME_MS.
        """
        parts = {"lo": _packed(self.lo), "hi": _packed(self.hi)}
        parts |= {"above": self.above or None, "upto": self.upto or None}
        held = {name: part for name, part in parts.items() if part is not None}
        return {"bracket": self.bracket.value, **held}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The range that `to_document` wrote; KeyError or ValueError when it is not one."""
        bracket = Bracket(document["bracket"])
        lo, hi = (_unpacked(bracket, document.get(name)) for name in ("lo", "hi"))
        return cls(bracket, lo, hi, document.get("above", False), document.get("upto", False))


def union_query(ranges: Sequence[Range], field: str = "_id") -> dict[str, Any]:
    """The filter for the documents of all the ranges; without a range it matches nothing."""
    queries = [part.query(field) for part in ranges] or [{field: {"$in": []}}]
    return queries[0] if len(queries) == 1 else {"$or": queries}


def _edge(bound: object | None, *, past: bool) -> Position | None:
    # A longer tuple sorts behind its beginning: past the value, before the next one.
    return None if bound is None else sort_key(bound) + (1,) * past


def _packed(bound: object) -> object:
    holds_document = bracket_of(bound) in (Bracket.OBJECT, Bracket.JAVASCRIPT_WITH_SCOPE)
    return bson.encode({"": bound}) if holds_document else bound


def _unpacked(bracket: Bracket, bound: Any) -> object:
    is_packed = isinstance(bound, bytes) and bracket is not Bracket.BIN_DATA
    return bson.decode(bound, EXACT_IDS)[""] if is_packed else bound


def _place(value: Any) -> tuple[Bracket, Position]:
    # From the most derived type up: a bool is an int, a Code is a str.
    known = next((_TYPES[kind] for kind in type(value).__mro__ if kind in _TYPES), None)
    if known is None:
        raise TypeError(f"{type(value).__name__} is not the type of an _id")
    bracket, key = known[0], known[1](value)
    if bracket is Bracket.NUMBER and _is_nan(*key):
        return Bracket.NAN, ()
    if bracket is Bracket.JAVASCRIPT and value.scope is not None:
        return Bracket.JAVASCRIPT_WITH_SCOPE, (*key, _fields(value.scope))
    return bracket, key


def _is_nan(number: Any) -> bool:
    return number.is_nan() if isinstance(number, Decimal) else math.isnan(number)


def _text(value: str) -> Position:
    return (value.encode("utf-8", "surrogateescape"),)


def _binary(value: bytes) -> Position:
    subtype = value.subtype if isinstance(value, Binary) else 0
    # The old subtype 2 repeats its length inside the data, and the server compares that too.
    data = len(value).to_bytes(4, "little") + value if subtype == 2 else bytes(value)
    return len(data), subtype, data


def _fields(document: Mapping[str, Any]) -> Position:
    return tuple(_field(name, inner) for name, inner in document.items())


def _field(name: str, value: Any) -> Position:
    """Inside documents the type counts first, then the name, then the value."""
    if isinstance(value, list):
        return _ARRAY, _text(name), tuple(_field("", inner) for inner in value)
    if isinstance(value, Regex):
        flags = "".join(flag for bit, flag in enumerate("ilmsux", 1) if value.flags >> bit & 1)
        return _REGEX, _text(name), (*_text(value.pattern), flags)
    bracket, key = _place(value)
    # NaN and the other numbers are one type here, and its empty key is the least.
    return _RANK[Bracket.NUMBER if bracket is Bracket.NAN else bracket], _text(name), key


# Python compares int, float and Decimal with each other exactly; one common type would round.
_TYPES: dict[type, tuple[Bracket, Callable[[Any], Position]]] = {
    MinKey: (Bracket.MIN_KEY, lambda _: ()),
    NoneType: (Bracket.NULL, lambda _: ()),
    int: (Bracket.NUMBER, lambda value: (value,)),
    float: (Bracket.NUMBER, lambda value: (value,)),
    Decimal128: (Bracket.NUMBER, lambda value: (value.to_decimal(),)),
    str: (Bracket.STRING, _text),
    dict: (Bracket.OBJECT, _fields),
    Mapping: (Bracket.OBJECT, _fields),
    DBRef: (Bracket.OBJECT, lambda value: _fields(value.as_doc())),
    bytes: (Bracket.BIN_DATA, _binary),
    ObjectId: (Bracket.OBJECT_ID, lambda value: (value.binary,)),
    bool: (Bracket.BOOL, lambda value: (value,)),
    datetime: (Bracket.DATE, lambda value: (int(DatetimeMS(value)),)),
    DatetimeMS: (Bracket.DATE, lambda value: (int(value),)),
    Timestamp: (Bracket.TIMESTAMP, lambda value: (value.time, value.inc)),
    Code: (Bracket.JAVASCRIPT, _text),
    MaxKey: (Bracket.MAX_KEY, lambda _: ()),
}
