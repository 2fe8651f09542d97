"""What the customers of the marketplace do, how often, and how strangely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "login": 40,
        "profile": 20,
        "newsletter": 8,
        "sign-up": 6,
        "e-mail": 5,
        "vendor": 5,
        "replace": 5,
        "delete": 5,
        "re-insert": 3,
    }
)
"""How often each is meant: newsletter opts in or out, vendor begins or stops being one."""


@dataclass(frozen=True)
class Habits:
    """What is done to users besides and instead of the usual.

    `hot`: so many users of each thread get nine tenths of the operations. `toggling`: values come
    from a small set and `updatedAt` stays, so that a user returns to a state it was in before.
    `bad`: share of operations that take `kontakt.email` away; half as often again one of those
    users is mended. `swap`: share of operations that exchange the e-mail addresses or usernames of
    two users, in three plain writes by way of a third value. `spared`: so many users, evenly spread
    over the collection, are left alone.
    """

    hot: int = 0
    toggling: bool = False
    bad: float = 0.0
    swap: float = 0.0
    spared: int = 0
    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
