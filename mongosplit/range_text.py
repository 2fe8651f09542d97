"""A range of ids as text that an operator types or copies: `LO..HI`, `LO..=HI`, `LO..`, `..HI`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mongosplit.errors import UsageError
from mongosplit.id_text import OPENS_JSON, any_of, from_text, json_text, no_json, to_text
from mongosplit.keyspace import Bracket, Range, bracket_of

_HINT = "write LO..HI (without HI), LO..=HI (with it), LO.. or ..HI"
_OPEN = object()


def read_range(text: str, brackets: Iterable[Bracket]) -> Range:
    """The range that `LO..HI` or `LO..=HI` means; a side left out is open.

    Raises UsageError when a bound is no `_id`, the bounds are of two types, nothing lies between
    them, or no bound says of which of several types the range is.
    """
    known = tuple(brackets)
    low, high, upto = split_range(text)
    lo, hi = _bound("lower", low, known), _bound("upper", high, known)
    kinds = {bracket_of(bound) for bound in (lo, hi) if bound is not _OPEN} or set(known)
    if len(kinds) != 1:
        raise UsageError(
            f"the range does not lie within one type of _id: {any_of(kinds) or 'there is none'}",
            hint="give bounds of one type, or --chunks",
        )
    bracket = kinds.pop()
    if bracket.whole and (low or high):
        raise UsageError(f"a {bracket} _id bounds no range", hint="give --chunks")
    least, most = (None if bound is _OPEN else bound for bound in (lo, hi))
    held = Range(bracket, least, most, upto=upto)
    if held.start >= held.end:
        raise UsageError("no _id lies in the range", hint=f"lower bound first: {_HINT}")
    return held


def range_text(held: Range, brackets: Iterable[Bracket] = ()) -> str:
    """The text that `read_range` reads as this range where ids of these brackets occur.

    A range above a value has no such text; it is shown as `above LO`, which `read_range` refuses.
    """
    known = tuple(brackets) or (held.bracket,)
    lo, hi = (None if x is None else _bound_text(x, known) for x in (held.lo, held.hi))
    if held.above and lo is not None:
        upper = "" if hi is None else f" {'through' if held.upto else 'to'} {hi}"
        return f"above {lo}{upper}"
    return f"{lo or ''}..{'=' if held.upto and hi else ''}{hi or ''}"


def split_range(text: str) -> tuple[str, str, bool]:
    """The texts of both bounds, empty when left out, and whether the upper one is in.

    Raises UsageError when it is no range or could be split in several places.
    """
    low, high = _low_and_rest(text.strip())
    upto = high.startswith("=")
    high = high.removeprefix("=")
    if upto and not high:
        raise UsageError("nothing follows ..= in the range", hint=_HINT)
    if not high.startswith(OPENS_JSON) and (".." in high or high.startswith(".")):
        raise UsageError(
            "the range could be split in several places", hint='put text in quotes: "a..b".."c"'
        )
    return low, high, upto


def _low_and_rest(text: str) -> tuple[str, str]:
    end = 0
    if text.startswith(OPENS_JSON):
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            raise no_json() from None
    low, dots, rest = text[end:].partition("..")
    if not dots or (end and low.strip()):
        raise UsageError("it is not a range of ids", hint=_HINT)
    return text[:end] + low, rest


def _bound(side: str, text: str, brackets: tuple[Bracket, ...]) -> object:
    if not text:
        return _OPEN
    try:
        return from_text(text, brackets)
    except UsageError as error:
        raise UsageError(f"{side} bound of the range: {error}", hint=error.hint) from None


def _bound_text(value: object, brackets: tuple[Bracket, ...]) -> str:
    text = to_text(value, brackets)
    # Spaces at the ends and dots beside the dots would be read as part of something else.
    is_safe = text.strip(" .") == text and ".." not in text and not text.startswith("=")
    return text if is_safe or text.startswith(OPENS_JSON) else json_text(value)
