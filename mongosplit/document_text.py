"""A stored document as extended JSON, though it hold text that is no UTF-8 or dates far away.

Text that is no UTF-8 keeps its bytes as lone surrogates (Python's `surrogateescape`), which JSON
writes as escapes; whoever reads it back in the same way has the bytes again.
"""

from __future__ import annotations

from typing import Any

import bson
from bson import json_util
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.json_util import JSONMode, JSONOptions

from mongosplit import raw
from mongosplit.raw import Value

_READABLE: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="surrogateescape",
)
CANONICAL = JSONOptions(
    json_mode=JSONMode.CANONICAL,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    tz_aware=False,
    unicode_decode_error_handler="surrogateescape",
)


def readable(value: Value) -> Any:
    """The Python value, whatever is stored; a document stays a dict though it have `$ref`."""
    if value.is_object:
        return {name: readable(inner) for name, inner in raw.elements(value.data)}
    if value.is_array:
        return [readable(inner) for _, inner in raw.elements(value.data)]
    return bson.decode(raw.build([("", value)]), _READABLE)[""]


def canonical(value: Value) -> str:
    """Canonical extended JSON, in ASCII, on one line: every type and every digit."""
    text: str = json_util.dumps(readable(value), json_options=CANONICAL)
    return text
