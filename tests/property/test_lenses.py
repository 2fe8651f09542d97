"""Lenses: both halves agree on a server for any value, and the laws hold for them and for `users`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st

from mongosplit import raw, reference
from mongosplit.lens import FALSE, TRUE, Custom, Lens
from mongosplit.lenses import Constant, Copy, Default, Equals, NotNull, Presence
from mongosplit.raw import Value
from mongosplit.users import migration
from tests.property.hostile import (
    UNWRITABLE,
    VALUES,
    document,
    values,
)

Maybe = Value | None

split = partial(reference.split, migration)
join = partial(reference.join, migration)

flipped = Custom(
    get_with=lambda source: {"$cond": [_is_bool(source), {"$not": [source]}, source]},
    get_python=lambda value: not value if isinstance(value, bool) else value,
    put_with=lambda part, source: {"$cond": [_is_bool(part), {"$not": [part]}, part]},
    put_python=lambda part, source: not part if isinstance(part, bool) else part,
)


def _is_bool(expression: Any) -> dict[str, Any]:
    return {"$eq": [{"$type": expression}, "bool"]}


def _is_null(value: Maybe) -> bool:
    return value is not None and value.is_null


def _is_blank(value: Maybe) -> bool:
    return value is not None and value.type_name in ("string", "symbol") and len(value.data) == 5


LENSES: dict[str, tuple[Lens, Callable[[Maybe, Maybe], bool]]] = {
    "copy": (Copy(), lambda part, of: True),
    "default": (Default("general"), lambda part, of: part is not None and not part.is_null),
    "default false": (Default(False), lambda part, of: part is not None and not part.is_null),
    "default int": (Default(1), lambda part, of: part is not None and not part.is_null),
    "default list": (Default([]), lambda part, of: part is not None and not part.is_null),
    "default document": (Default({}), lambda part, of: part is not None and not part.is_null),
    "default $": (Default("$s", blank=True), lambda part, of: False),
    "default blank": (
        Default("general", blank=True),
        lambda part, of: part is not None and not part.is_null and not _is_blank(part),
    ),
    "not null": (NotNull(), lambda part, of: not _is_null(part)),
    "equals": (Equals("aktiv", otherwise="inaktiv"), lambda part, of: part in (TRUE, FALSE)),
    "equals $": (Equals("$username", otherwise="$s"), lambda part, of: part in (TRUE, FALSE)),
    "presence": (Presence(of="of"), lambda part, of: part in (None, of)),
    "constant": (
        Constant({"a": [], "b": 1}),
        lambda part, of: part == raw.encode({"a": [], "b": 1}),
    ),
    "constant $": (Constant("$s"), lambda part, of: part == raw.encode("$s")),
    "custom": (flipped, lambda part, of: True),
}
"""Each lens with the parts it can represent, given the value at the path `of`."""

FEW: list[Maybe] = [None, TRUE, FALSE, *UNWRITABLE[:3]]
FEW += [raw.encode(each) for each in (None, "", "aktiv", "general", 1, 1.0, [], {}, {"a": 1})]
CASES = [(s, p, of) for s in (None, *VALUES) for p in FEW for of in (None, raw.encode("date"))]
CASES += [(s, p, TRUE) for s in FEW for p in (None, *VALUES)]

anything = st.one_of(st.none(), values())
cases = st.lists(st.tuples(anything, anything, anything), min_size=1, max_size=8)


def user_of(source: Maybe, part: Maybe, of: Maybe, n: int = 0) -> bytes:
    return document({"_id": raw.encode(n), "s": source, "p": part, "of": of})


def survives_pymongo(value: Maybe) -> bool:
    """Whether a lens of one's own, which sees decoded values, can hand the value back."""
    try:
        return value is None or raw.encode(value.decode()) == value
    except ValueError:
        return False


def is_fit(lens: Lens, *found: Maybe) -> bool:
    return not isinstance(lens, Custom) or all(map(survives_pymongo, found))


def both_halves(user: bytes) -> bytes:
    source, part = raw.field(user, "s"), raw.field(user, "p")
    fields: dict[str, Any] = {}
    for n, (lens, _) in enumerate(LENSES.values()):
        if is_fit(lens, source, part):
            fields[f"get{n}"] = lens.get(source, user)
            fields[f"put{n}"] = lens.put(part, source, user)
    return document(fields)


def both_expressions(kept: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for n, (lens, _) in enumerate(LENSES.values()):
        fit = not isinstance(lens, Custom) or "$fit"
        fields[f"get{n}"] = {"$cond": [fit, lens.get_expression("$s"), "$$REMOVE"]}
        fields[f"put{n}"] = {"$cond": [fit, lens.put_expression("$p", "$s"), "$$REMOVE"]}
    return fields
