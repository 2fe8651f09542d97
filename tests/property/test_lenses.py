"""Lenses: both halves agree on a real server for any value, and the laws hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bson.errors import InvalidBSON
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from mongosplit import raw
from mongosplit.lens import FALSE, TRUE, Custom, Lens
from mongosplit.lenses import Constant, Copy, Default, Equals, NotNull, Presence
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import Value
from tests.property.hostile import UNWRITABLE, VALUES, document, steady, values
from tests.property.stored import Raw, cut, refill

Maybe = Value | None

flipped = Custom(
    get_with=lambda source: {"$cond": [_is_bool(source), {"$not": [source]}, source]},
    get_python=lambda value: not value if isinstance(value, bool) else value,
    put_with=lambda part, _: {"$cond": [_is_bool(part), {"$not": [part]}, part]},
    put_python=lambda part, _: not part if isinstance(part, bool) else part,
)


def _is_bool(expression: Any) -> dict[str, Any]:
    return {"$eq": [{"$type": expression}, "bool"]}


def _is_blank(value: Maybe) -> bool:
    return value is not None and value.type_name in ("string", "symbol") and len(value.data) == 5


def _is_any(part: Maybe, of: Maybe) -> bool:
    return True


def _is_set(part: Maybe, of: Maybe) -> bool:
    return part is not None and not part.is_null


def _is_not_blank(part: Maybe, of: Maybe) -> bool:
    return _is_set(part, of) and not _is_blank(part)


def _is_not_null(part: Maybe, of: Maybe) -> bool:
    return part is None or not part.is_null


def _is_flag(part: Maybe, of: Maybe) -> bool:
    return part in (TRUE, FALSE)


LENSES: dict[str, tuple[Lens, Callable[[Maybe, Maybe], bool]]] = {
    "copy": (Copy(), _is_any),
    "default": (Default("general"), _is_set),
    "default false": (Default(False), _is_set),
    "default int": (Default(1), _is_set),
    "default list": (Default([]), _is_set),
    "default document": (Default({}), _is_set),
    "default $": (Default("$s"), _is_set),
    "default blank $": (Default("$s", blank=True), _is_not_blank),
    "default blank": (Default("general", blank=True), _is_not_blank),
    "not null": (NotNull(), _is_not_null),
    "equals": (Equals("aktiv", otherwise="inaktiv"), _is_flag),
    "equals $": (Equals("$username", otherwise="$s"), _is_flag),
    "presence": (Presence(of="of"), lambda part, of: part in (None, of)),
    "constant": (
        Constant({"a": [], "b": 1}),
        lambda part, _: part == raw.encode({"a": [], "b": 1}),
    ),
    "constant $": (Constant("$s"), lambda part, _: part == raw.encode("$s")),
    "custom": (flipped, _is_any),
}
"""Each lens, and whether it can represent a part, given the value at the path `of`."""

FEW: list[Maybe] = [None, TRUE, FALSE, *UNWRITABLE[:3]]
FEW += [
    raw.encode(each)
    for each in (None, "", "aktiv", "general", 1, 1.0, [], {}, {"a": [], "b": 1}, "$s")
]
CASES = [(s, p, of) for s in (None, *VALUES) for p in FEW for of in (None, raw.encode("date"))]
CASES += [(s, p, TRUE) for s in FEW for p in (None, *VALUES)]

anything = st.one_of(st.none(), values())
cases = st.lists(st.tuples(anything, anything, anything), min_size=1, max_size=8)


def user_of(n: int, source: Maybe, part: Maybe, of: Maybe) -> bytes:
    return document({"_id": raw.encode(n), "s": source, "p": part, "of": of})


def survives_pymongo(user: bytes) -> bool:
    """Whether a lens of one's own, which sees decoded values, can hand the values back."""
    try:
        return all(raw.encode(value.decode()) == value for _, value in raw.elements(user))
    except InvalidBSON:
        return False


def assert_halves_agree(collection: Raw, lenses: dict[str, Lens], documents: list[bytes]) -> None:
    row = {
        name: {"get": lens.get_expression("$s"), "put": lens.put_expression("$p", "$s")}
        for name, lens in lenses.items()
    }
    stored = refill(collection, documents)
    stages = [{"$sort": {"_id": 1}}, {"$replaceRoot": {"newRoot": row}}]
    found = cut(collection.aggregate_raw_batches(stages, collation=SIMPLE))
    for user, answer in zip(stored, found, strict=True):
        for name, lens in lenses.items():
            said = raw.field(answer, name)
            assert said is not None
            wanted = both_halves(lens, user)
            assert said.data == wanted, f"{name}: {[*raw.elements(user)]} gives {said.data!r}"


def both_halves(lens: Lens, user: bytes) -> bytes:
    source, part = raw.field(user, "s"), raw.field(user, "p")
    return document({"get": lens.get(source, user), "put": lens.put(part, source, user)})


STOCK = {name: lens for name, (lens, _) in LENSES.items() if lens is not flipped}


def test_each_lens_is_the_same_on_the_server_for_every_awkward_value(
    database: Database[Any],
) -> None:
    all_users = [user_of(n, *case) for n, case in enumerate(CASES)]
    assert_halves_agree(database.users, STOCK, all_users)
    assert_halves_agree(database.users, {"custom": flipped}, [*filter(survives_pymongo, all_users)])


@steady
@given(some=cases)
def test_each_lens_is_the_same_on_the_server_for_any_value(
    database: Database[Any], some: list[tuple[Maybe, Maybe, Maybe]]
) -> None:
    some_users = [user_of(n, *case) for n, case in enumerate(some)]
    assert_halves_agree(database.users, STOCK, some_users)
    if fit := [*filter(survives_pymongo, some_users)]:
        assert_halves_agree(database.users, {"custom": flipped}, fit)


@pytest.mark.parametrize("name", LENSES)
def test_putting_back_what_a_lens_got_changes_nothing(name: str) -> None:
    lens, _ = LENSES[name]
    for n, case in enumerate(CASES):
        user, source = user_of(n, *case), case[0]
        if lens is not flipped or survives_pymongo(user):
            assert lens.put(lens.get(source, user), source, user) == source


@pytest.mark.parametrize("name", LENSES)
def test_a_lens_gets_what_was_put_where_it_can_represent_the_part(name: str) -> None:
    """Copy represents any part; Default all but null, missing and (blank) the empty text; NotNull
    all but null; Equals the two booleans; Presence missing, and the value at `of`, if there is
    one; Constant itself."""
    lens, represents = LENSES[name]
    held = 0
    for n, (source, part, of) in enumerate(CASES):
        user = user_of(n, source, part, of)
        if represents(part, of) and (lens is not flipped or survives_pymongo(user)):
            back = lens.put(part, source, user)
            assert lens.get(back, user_of(n, back, part, of)) == part
            held += 1
    assert held > 20
