"""The hostile documents are as hostile as they claim: the other property tests reach every trap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import Phase, given, settings

from mongosplit import raw
from tests.property.hostile import PARENTS, batches, steady


def _is(kind: str, *paths: str) -> Callable[[bytes], bool]:
    """Whether a user has a value of that type, or "missing", at one of the paths."""

    def holds(user: bytes) -> bool:
        found = (raw.lookup(user, path) for path in paths)
        return any(("missing" if each is None else each.type_name) == kind for each in found)

    return holds


def _is_vendor_and(holds: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    return lambda user: raw.field(user, "isVendor") == raw.encode(True) and holds(user)


def _names(user: bytes) -> list[str]:
    return [name for name, _ in raw.elements(user)]


TRAPS: dict[str, Callable[[bytes], bool]] = {
    "a parent is absent": _is_vendor_and(_is("missing", *PARENTS)),
    "a parent is null": _is_vendor_and(_is("null", *PARENTS)),
    "a parent is a scalar": _is_vendor_and(_is("string", *PARENTS)),
    "a path leads through an array": _is("array", "kontakt.email", "vendorProfile.kategorien"),
    "null where a default stands": _is_vendor_and(_is("null", "isAdmin", "adressen")),
    "undefined where a default stands": _is_vendor_and(_is("undefined", "isAdmin", "adressen")),
    "nothing where a default stands": _is_vendor_and(_is("missing", "vendorProfile.kategorien")),
    "a field is literally named a.b": lambda user: "kontakt.email" in _names(user),
    "1 where true is asked": _is("int", "isVendor", "kontakt.mailNewsletter"),
    "1.0 where true is asked": _is("double", "isVendor", "kontakt.mailNewsletter"),
    "a symbol where a text is asked": _is("symbol", "kontakt.status"),
    "fields in another order": lambda user: _names(user)[1:2] not in ([], ["username"]),
}


def test_hostile_users_reach_every_trap_of_the_aggregation_language() -> None:
    seen: Counter[str] = Counter()

    @settings(parent=steady, max_examples=150, derandomize=True, phases=[Phase.generate])
    @given(batch=batches())
    def look(batch: list[bytes]) -> None:
        seen.update(name for user in batch for name, holds in TRAPS.items() if holds(user))

    look()
    assert {name: seen[name] for name in TRAPS if seen[name] < 5} == {}
