"""An `_id` as text that an operator types or copies.

Extended JSON is always read: `{"$oid": "…"}`, `{"$date": …}`, `"text"`. Plain text is read as a
type that occurs in the run: 24 hex digits, a number, ISO 8601 (UTC unless it says otherwise),
`true`, `false`, `NaN`, `null`, text as it stands. A UUID in its usual form is binary of subtype 4;
other binaries, timestamps and numbers that are neither int64 nor double take extended JSON. Where
booleans occur, `true` is one and the text is `"true"`; so with `null`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import bson
from bson import Binary, DatetimeMS, ObjectId, json_util
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.json_util import JSONMode, JSONOptions

from mongosplit.errors import UsageError
from mongosplit.keyspace import Bracket, bracket_of, sort_key

_JSON = JSONOptions(
    json_mode=JSONMode.CANONICAL,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    tz_aware=False,
)
OPENS_JSON = ("{", '"')
"""Text that begins so is extended JSON and nothing else."""
_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, BSONError)
_BARE_JSON = (Bracket.NULL, Bracket.BOOL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_EXAMPLES = {
    Bracket.NUMBER: '{"$numberLong": "42"}',
    Bracket.STRING: '"text"',
    Bracket.OBJECT: '{"part": 1}',
    Bracket.BIN_DATA: '{"$uuid": "01234567-89ab-cdef-0123-456789abcdef"}',
    Bracket.OBJECT_ID: '{"$oid": "0123456789abcdef01234567"}',
    Bracket.DATE: '{"$date": "2024-05-06T07:08:09Z"}',
    Bracket.TIMESTAMP: '{"$timestamp": {"t": 1714979289, "i": 1}}',
}


def from_text(text: str, brackets: Iterable[Bracket]) -> object:
    """The `_id` that a text means where ids of these brackets occur.

    Raises UsageError when it means none or, being plain, could mean several; the sentence never
    repeats the text.
    """
    if not text.strip():
        raise UsageError("an empty text is no _id", hint='write "" for the empty string')
    if text.strip().startswith(OPENS_JSON):
        return _from_json(text.strip())
    possible = sorted(set(brackets), key=list(Bracket).index)
    found = {bracket: value for bracket in possible for value in _plain_value(bracket, text)}
    # These have no longer form to fall back on; text has its quotes.
    sure = [found[bracket] for bracket in found if len(found) == 1 or bracket in _BARE_JSON]
    if sure:
        return sure[0]
    if found:
        raise UsageError(
            f"plain text could be {any_of(found)} here", hint=f"write {_examples(found)}"
        )
    if not possible:
        raise UsageError("nothing says what type of _id plain text is", hint=_plain_hint(_EXAMPLES))
    raise UsageError(f"the text is no _id of type {any_of(possible)}", hint=_plain_hint(possible))


def to_text(value: object, brackets: Iterable[Bracket] = ()) -> str:
    """The plain text of a decoded `_id`, or its extended JSON where plain text would not be read.

    `from_text` with the same brackets (none: the value's own) gives back an `_id` that the server
    holds equal. One line. Text of invalid UTF-8 cannot be given back. TypeError for what cannot
    be an `_id`.
    """
    bracket = bracket_of(value)
    plain = _TO_PLAIN[bracket](value) if bracket in _TO_PLAIN else ""
    known = tuple(brackets) or (bracket,)
    return plain if plain.isprintable() and _means(plain, value, known) else json_text(value)


def _means(plain: str, value: object, brackets: Iterable[Bracket]) -> bool:
    try:
        return sort_key(from_text(plain, brackets)) == sort_key(value)
    except UsageError:
        return False


def _from_json(text: str) -> object:
    try:
        value: object = json_util.loads(text, json_options=_JSON)
        sort_key(value)
        return _sendable(value)
    except _UNREADABLE:
        raise no_json() from None


def no_json() -> UsageError:
    """The error for text that begins like extended JSON and cannot be read."""
    return UsageError(
        "it begins like extended JSON and is no _id in it",
        hint=f"write {_examples(_EXAMPLES)}; text that begins with {{ or a quote goes in quotes",
    )


def json_text(value: Any) -> str:
    """The extended JSON of a decoded `_id`, which is read whatever types occur. One line."""
    is_plain = isinstance(value, str) and value.isprintable()
    text: str = json_util.dumps(value, json_options=_JSON, ensure_ascii=not is_plain)
    return text


def _sendable(value: object) -> object:
    bson.encode({"": value})
    return value


def _plain_value(bracket: Bracket, text: str) -> list[object]:
    """The value in a list, which is empty when the text is none of that bracket."""
    try:
        return [_sendable(_FROM_PLAIN[bracket](text))]
    except _UNREADABLE:
        return []


def any_of(brackets: Iterable[Bracket]) -> str:
    """The names of types as in a sentence: `objectId or string`."""
    return " or ".join(sorted(brackets))


def _examples(brackets: Iterable[Bracket]) -> str:
    return " or ".join(_EXAMPLES[found] for found in brackets if found in _EXAMPLES)


def _plain_hint(brackets: Iterable[Bracket]) -> str:
    examples = _examples(brackets)
    return f"extended JSON is always read: {examples or _EXAMPLES[Bracket.OBJECT_ID]}"


def _number(text: str) -> int | float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text.strip().lower()):
        raise ValueError
    number = int(text) if re.fullmatch(r"[+-]?[0-9]+", text.strip()) else float(text)
    if isinstance(number, float) and math.isinf(number):
        raise OverflowError
    return number


def _object_id(text: str) -> ObjectId:
    return ObjectId(text.strip())


def _uuid(text: str) -> Binary:
    found = UUID(text.strip())
    if str(found) != text.strip().lower():
        raise ValueError
    return Binary.from_uuid(found)


def _date(text: str) -> DatetimeMS:
    moment = datetime.fromisoformat(text.strip())
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    if since % _MILLISECOND:
        raise ValueError
    return DatetimeMS(since // _MILLISECOND)


def _date_text(value: Any) -> str:
    _, (milliseconds,) = sort_key(value)
    try:
        moment: datetime = _EPOCH + milliseconds * _MILLISECOND
    except OverflowError:
        return ""
    timespec = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def _word(words: dict[str, object]) -> Callable[[str], object]:
    return lambda text: words[text.strip()]


_FROM_PLAIN: dict[Bracket, Callable[[str], object]] = {
    Bracket.NULL: _word({"null": None}),
    Bracket.NAN: _word({"NaN": math.nan}),
    Bracket.NUMBER: _number,
    Bracket.STRING: str,
    Bracket.BIN_DATA: _uuid,
    Bracket.OBJECT_ID: _object_id,
    Bracket.BOOL: _word({"true": True, "false": False}),
    Bracket.DATE: _date,
}
_TO_PLAIN: dict[Bracket, Callable[[Any], str]] = {
    Bracket.NULL: lambda _: "null",
    Bracket.NAN: lambda _: "NaN",
    Bracket.NUMBER: lambda value: repr(value) if isinstance(value, float) else str(value),
    Bracket.STRING: str,
    Bracket.BIN_DATA: lambda value: str(UUID(bytes=value)) if len(value) == 16 else "",
    Bracket.OBJECT_ID: str,
    Bracket.BOOL: lambda value: str(value).lower(),
    Bracket.DATE: _date_text,
}
