"""Hostile `users` documents as bytes, for Hypothesis.

Everything a server stores is here but two things that no application writes: an array whose keys
are not 0, 1, 2, … (an aggregation renumbers it in some places), and two fields of one name (the
server reads the first, or the second where a projection it chose to push down drops the first).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Any

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex
from bson.timestamp import Timestamp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mongosplit import raw
from mongosplit.raw import Value

Tree = dict[str, Any]
"""Fields by name, in order: each a `Value`, a `Tree`, or `None` for missing."""

steady = settings(
    deadline=None,
    max_examples=40,
    derandomize="CI" in os.environ,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# DESIGN §4, spelled out here once more so that a path the declaration forgets is still reached.
TOP = "username password isFullAccount isAdmin isVendor email lastLogin kontakt adressen"
TOP += " vendorProfile registrationDate registrationStatus trialStartDate trialEndDate"
TOP += " isPubliclyVisible pendingBooking createdAt updatedAt __v"
KONTAKT = "name email telefon newslettertype mailNewsletter newsletterConfirmed"
KONTAKT += " confirmationToken tokenExpires status usrID"
PROFILE = "unternehmen beschreibung profilBild bannerBild oeffnungszeiten kategorien tags products"
PROFILE += " businessDetails location operationalInfo slogan website socialMedia verifyStatus"
PROFILE += " isPubliclyVisible featured"
ADDRESS = "adresstyp strasse hausnummer plz ort telefon email anrede name1 name2"
PATHS: tuple[str, ...] = (
    *TOP.split(),
    *(f"kontakt.{name}" for name in KONTAKT.split()),
    *(f"vendorProfile.{name}" for name in PROFILE.split()),
    *(f"vendorProfile.oeffnungszeiten.{day}" for day in ("montag", "sonntag")),
    *(f"vendorProfile.socialMedia.{name}" for name in ("facebook", "instagram")),
    *(f"vendorProfile.location.{name}" for name in ("coordinates", "deliveryAreas")),
    "vendorProfile.operationalInfo.peakSeason.start",
    *(f"pendingBooking.{name}" for name in ("packageData", "createdAt", "status")),
)


def text(data: bytes, kind: int = 0x02) -> Value:
    """A string of these bytes, UTF-8 or not; with another kind, a symbol or code."""
    return Value(kind, (len(data) + 1).to_bytes(4, "little", signed=True) + data + b"\0")


UNDEFINED = Value(0x06, b"")
DB_POINTER = Value(0x0C, text(b"users").data + bytes(12))
UNWRITABLE = [UNDEFINED, text(b"aktiv", 0x0E), text(b"", 0x0E), DB_POINTER, text(b"\xff\xfe")]
UNWRITABLE += [Value(0x01, b"\1\0\0\0\0\0\xf8\x7f"), Value(0x0B, b"a\0zi\0")]
"""What pymongo does not write itself."""

NUMBERS = [0, 1, -1, 2**31 - 1, Int64(0), Int64(1), 2**63 - 1, 0.0, -0.0, 1.0, float("nan")]
NUMBERS += [float("-inf"), Decimal128("1"), Decimal128("1.0"), Decimal128("NaN")]
TEXTS = ["", "aktiv", "AKTIV", "inaktiv", "pending", "general", "unverified", "monthly", " "]
TEXTS += [
    "$username",
    "$$REMOVE",
    "a\0b",
    "🌻👩\u200d🌾",
    "\u202bمحمد\u202c",
    "Ju\u0308rgen",
    "é@x.de",
]
DATES = [datetime(2020, 2, 29), datetime(1901, 1, 1), DatetimeMS(-(2**63)), DatetimeMS(2**63 - 1)]
OTHERS = [None, True, False, ObjectId(b"twelve bytes"), Timestamp(0, 1), Timestamp(2**32 - 1, 1)]
OTHERS += [Binary(b"x", kind) for kind in (0, 2, 3, 4, 5, 6, 0x80)]
OTHERS += [Regex("^a", "im"), Code("f()"), Code("f()", {}), Code("f()", {"x": 1})]
OTHERS += [MinKey(), MaxKey(), Decimal128("-1E-6176")]
CONTAINERS: list[Any] = [{}, [], [[]], [{}], [None], {"$ref": "x"}, {"$id": 1, "$ref": "x"}]
CONTAINERS += [{"$ref": "users", "$id": 1, "$db": "d", "more": 2}, {"a.b": {"$x": 1}, "": 1}]
CONTAINERS += [
    ["a", "🌻"],
    [1, "a", None],
    [ObjectId(bytes(12))],
    {"0": "zero", "$in": [Timestamp(0, 0)]},
]
CONTAINERS += [{"montag": None}, {"facebook": 1}, {"seasonal": "no"}, {"createdAt": "soon"}]
CONTAINERS += [[{"plz": 1, "ort": 2}, "a"], {"coordinates": [9.1, "x"], "deliveryRadius": "far"}]

SCALARS = [raw.encode(value) for value in (*NUMBERS, *TEXTS, *DATES, *OTHERS)] + UNWRITABLE
VALUES = SCALARS + [raw.encode(value) for value in CONTAINERS]
VALUES += [raw.subdocument([("packageData", value), ("$set", value)]) for value in UNWRITABLE]
VALUES += [raw.array([value, raw.subdocument([("email", value)])]) for value in UNWRITABLE[:3]]

NAMES = (*TOP.split(), *KONTAKT.split(), *PROFILE.split(), *ADDRESS.split(), "montag", "facebook")
NAMES += ("a.b", "kontakt.email", "vendorProfile.website", "$x", "$ref", "$id", "", "0", "ü🌻") * 4

NUMBER_ID = 2
ID_KINDS: tuple[Callable[[int], Any], ...] = (
    lambda n: ObjectId(n.to_bytes(12, "big")),
    lambda n: f"{'🌻' * (n % 2)}{n:03}",
    lambda n: n,
    lambda n: Int64(n + 1_000),
    lambda n: float(n) + 0.5,
    lambda n: Decimal128(f"{n}.25"),
    lambda n: Binary(n.to_bytes(16, "big"), 4),
    lambda n: DatetimeMS(n * 10**15),
    lambda n: n == 1 if n < 2 else Timestamp(n, 1),
    lambda n: {"a.b": [n], "n": n},
)
"""Makers of an `_id` from a number that is unique in its collection."""
IN_RANGE = len(ID_KINDS) - 1
"""How many of them make an `_id` of a type that mongosplit ranges over; the rest come after."""


def values() -> st.SearchStrategy[Value]:
    """Any value at all: one known to be awkward, or a new one, in documents and arrays."""
    fresh = st.one_of(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1), st.floats())
    leaves = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), fresh.map(raw.encode))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(raw.array),
            st.dictionaries(st.sampled_from(NAMES), inner, max_size=3).map(
                lambda fields: raw.subdocument(fields.items())
            ),
        ),
        max_leaves=4,
    )


def base(*, vendor: bool = False, subscriber: bool = False) -> Tree:
    """A user as the application writes one."""
    when = {"createdAt": datetime(2020, 1, 1), "updatedAt": datetime(2021, 1, 1)}
    user: Tree = {"username": "anna", "password": "x", "isFullAccount": True, "isVendor": vendor}
    user["kontakt"] = {"name": "Anna", "email": "a@x.de", "telefon": "1", "status": "pending"}
    user["kontakt"] |= {"mailNewsletter": subscriber, "newsletterConfirmed": subscriber, "usrID": 7}
    if vendor:
        user["vendorProfile"] = {"unternehmen": "Hof", "socialMedia": {"facebook": "f"}, "tags": []}
    return _tree(user | when)


def _copy(tree: Tree) -> Tree:
    return {
        name: _copy(value) if isinstance(value, dict) else value for name, value in tree.items()
    }


def _tree(fields: Mapping[str, Any]) -> Tree:
    return {
        name: _tree(value) if isinstance(value, Mapping) else raw.encode(value)
        for name, value in fields.items()
    }


def place(tree: Tree, path: str, value: Value | Tree | None) -> None:
    """Put a value at a path, or with `None` take it away; a parent that is no tree wins."""
    *parents, last = path.split(".")
    for name in parents:
        tree = tree.setdefault(name, {}) if value is not None else tree.get(name, {})
        if not isinstance(tree, dict):
            return
    tree[last] = value


def document(tree: Tree) -> bytes:
    """The tree as BSON."""
    return raw.build(
        (name, raw.Value(3, document(value)) if isinstance(value, dict) else value)
        for name, value in tree.items()
        if value is not None
    )


FLAGS = ("isVendor", "kontakt.mailNewsletter", "kontakt.newsletterConfirmed", "kontakt.status")
SWITCH = [None, UNDEFINED, *(raw.encode(each) for each in (True, False, None, 1, 1.0, "aktiv"))]
SWITCH += [text(b"aktiv", 0x0E), raw.encode("inaktiv"), raw.encode([True])]
DEFAULTED = ("isAdmin", "adressen", "isPubliclyVisible", "kontakt.newslettertype")
DEFAULTED += ("vendorProfile.kategorien", "vendorProfile.verifyStatus", "kontakt.tokenExpires")
BLANK = [None, UNDEFINED, *(raw.encode(each) for each in (None, "", [], False))]
PARENTS = ("kontakt", "vendorProfile")
BROKEN = [None, *(raw.encode(each) for each in (None, "x", 5, [], {}, [{"email": "a"}, [{}]]))]
BROKEN += [raw.encode([{"kategorien": 1, "email": 2}, "a", {"kategorien": [2]}]), UNDEFINED]
ODDITIES = [(PATHS, VALUES), (PATHS, VALUES), (PATHS, [None]), (FLAGS, SWITCH)]
ODDITIES += [(DEFAULTED, BLANK), (PARENTS, BROKEN)]
"""What is done to a plain user: one of these values at one of these paths."""

BASES: list[Tree] = [{}, base(), base(vendor=True), base(subscriber=True)]
BASES += [base(vendor=True, subscriber=True)] * 2

Change = tuple[str, Value | None]


def changed(user: Tree, changes: list[Change], unknown: list[Change], turn: int) -> Tree:
    """The user with the changes made, fields of unknown names, and its fields in another order."""
    user = _copy(user)
    for path, value in changes:
        place(user, path, value)
    for n, (name, value) in enumerate(unknown):
        inner = user.get(PARENTS[0])
        (inner if n and isinstance(inner, dict) else user).setdefault(name, value)
    turn %= len(user) or 1
    return dict([*user.items()][turn:] + [*user.items()][:turn])


def seeded(seed: int) -> Tree:
    """A user from a seed: it cannot be made simpler, but reaches evenly what is rare."""
    dice = Random(seed)
    tables = dice.choices(ODDITIES, k=dice.randrange(12))
    changes = [(dice.choice(paths), dice.choice(found)) for paths, found in tables]
    unknown = [(dice.choice(NAMES), dice.choice(VALUES)) for _ in range(dice.choice((0, 0, 2)))]
    return changed(dice.choice(BASES), changes, unknown, dice.choice((0, 0, dice.randrange(20))))


_CHANGE = st.one_of(st.tuples(st.sampled_from(p), st.sampled_from(found)) for p, found in ODDITIES)
_CHANGES = st.lists(st.one_of(_CHANGE, st.tuples(st.sampled_from(PATHS), values())), max_size=8)
_UNKNOWN = st.lists(st.tuples(st.sampled_from(NAMES), values()), max_size=2)
_DRAWN = st.builds(changed, st.sampled_from(BASES), _CHANGES, _UNKNOWN, st.integers(0, 20))
# Beyond 24 bits Hypothesis prefers small numbers, and the same users would come again and again.
_SEED = st.integers(0, 2**20)


def users(kinds: int = len(ID_KINDS)) -> st.SearchStrategy[bytes]:
    """One hostile user, `_id` first."""
    trees = st.one_of(_DRAWN, _SEED.map(seeded))
    return st.builds(numbered, st.integers(0, 99), trees, st.integers(0, kinds - 1))


def batches(kinds: int = len(ID_KINDS)) -> st.SearchStrategy[list[bytes]]:
    """Hostile users with different `_id`s, for one trip to the server."""

    def batch(drawn: list[Tree], seeds: list[int]) -> list[bytes]:
        trees = [*drawn, *(seeded(seed * 16 + n) for seed in seeds for n in range(16))]
        return [numbered(n, tree, (n + len(drawn)) % kinds) for n, tree in enumerate(trees)]

    return st.builds(batch, st.lists(_DRAWN, max_size=6), st.lists(_SEED, min_size=1, max_size=2))


def numbered(n: int, tree: Tree, kind: int = NUMBER_ID) -> bytes:
    """The tree as a document with an `_id`, the n-th of its collection."""
    return document({"_id": raw.encode(ID_KINDS[kind](n)), **tree})
