"""Owns what is odd in the seeded collection: the quirks of clean users and the hostile kinds."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial, reduce
from operator import getitem
from typing import Any, TypeVar

from bson import Binary, Decimal128, Int64

from mongosplit.errors import UsageError

T = TypeVar("T")
Document = dict[str, Any]
Earlier = Mapping[str, list[str]]

PLAIN = "plain"
"""The kind name of a document that was not made hostile."""


class Draw(random.Random):
    """Random values from a seed, each the cheapest way: most of the time goes into these."""

    def pick(self, items: Sequence[T]) -> T:
        """Return one of them."""
        return items[int(self.random() * len(items))]

    def below(self, limit: int) -> int:
        """Return a whole number from 0 up to, not including, the limit."""
        return int(self.random() * limit)

    def chance(self, share: float) -> bool:
        """Return true that often."""
        return self.random() < share

    def some(self, items: Sequence[T], most: int) -> list[T]:
        """Return up to `most` neighbours, possibly none."""
        first = int(self.random() * len(items))
        return list(items[first : first + int(self.random() * (most + 1))])


# Right to left, emoji (one joined), a decomposed umlaut, direction marks: legal, and easily broken.
ODD_NAMES = ["محمد العلي", "דוד כהן", "Zoë 🌻 Schäfer", "👩\u200d🌾 Hof Lindner", "田中 さくら"]
ODD_NAMES += ["Ju\u0308rgen Mu\u0308ller", "\u202bنور\u202c Schmidt", "Ольга Иванова", "O'Brien"]
UNKNOWN: tuple[Document, ...] = (
    {"notizen": "ruft lieber an", "punkte": 125},
    {"utm": {"source": "flyer", "medium": "print", "campaign": None}},
    {"letzteRechnung": datetime(2022, 11, 30, 23, 59, 59, 999000), "bewertung": 4.5},
    {"abTest": [{"name": "startseite", "arm": "b"}, {"name": "preise", "arm": 2}]},
    {"isActive": True, "source": "messe"},  # names that targets use for values of their own
)
LATE = ["isAdmin", "isVendor", "lastLogin", "adressen", "createdAt", "updatedAt", "__v"]
LATE += ["registrationDate", "registrationStatus", "isPubliclyVisible"]
LATE_KONTAKT = ["name", "telefon", "newslettertype", "mailNewsletter", "newsletterConfirmed"]
LATE_KONTAKT += ["status", "usrID"]
LATE_PROFILE = ["oeffnungszeiten", "kategorien", "tags", "products", "businessDetails", "slogan"]
LATE_PROFILE += ["operationalInfo", "location", "website", "socialMedia", "verifyStatus"]


def add_quirks(draw: Draw, document: Document, *, old: bool) -> None:
    """Give a clean document now and then a field nobody knows, and an old one fewer fields."""
    if draw.chance(0.03):
        document |= deepcopy(draw.pick(UNKNOWN))
    if old and draw.chance(0.5):
        parts = (document, LATE), (document["kontakt"], LATE_KONTAKT)
        for part, late in (*parts, (document.get("vendorProfile", {}), LATE_PROFILE)):
            for name in draw.some(late, 3):
                part.pop(name, None)


@dataclass(frozen=True, slots=True)
class Kind:
    """One way in which a document is hostile.

    A `bad` document belongs in quarantine; the others are odd but legal and must be split. `make`
    changes a clean document in place. `repeats` names what it takes from an earlier document
    (`username` or `email`); the very first document is never of such a kind.
    """

    name: str
    bad: bool
    make: Callable[[Document, Draw, Earlier], None]
    repeats: str = ""


ABSENT = object()


def _odd(name: str, changes: Document, *, bad: bool = False, repeats: str = "") -> Kind:
    """Return a kind that changes values by path, in order.

    `ABSENT` removes, a tuple offers its values, a function is called for the value.
    """

    def make(document: Document, draw: Draw, earlier: Earlier) -> None:
        for path, value in changes.items():
            *parents, last = path.split(".")
            part = reduce(getitem, parents, document)
            if isinstance(value, tuple):
                part[last] = draw.pick(value)
            elif value is ABSENT:
                part.pop(last, None)
            else:
                part[last] = value(document, draw, earlier) if callable(value) else value

    return Kind(name, bad, make, repeats)


def _bad(name: str, changes: Document, repeats: str = "") -> Kind:
    return _odd(name, changes, bad=True, repeats=repeats)


def _id_int(document: Document, draw: Draw, _: Earlier) -> int:
    born, counter = document["_id"].binary[:4], document["_id"].binary[9:]
    return int.from_bytes(draw.pick((counter, born + counter)))


def _id_uuid(_: Document, draw: Draw, __: Earlier) -> Binary:
    return Binary.from_uuid(uuid.UUID(int=draw.getrandbits(128), version=4))


def _repeated(what: str, _: Document, draw: Draw, earlier: Earlier) -> str:
    """Return the latest half of the time: both may fall into one chunk, or into two."""
    return earlier[what][-1] if draw.chance(0.5) else draw.pick(earlier[what])


def _before_1970(_: Document, draw: Draw, __: Earlier) -> datetime:
    return datetime(1901, 1, 1) + timedelta(milliseconds=draw.below(68 * 365 * 86_400_000))


def _rare_types(_: Document, draw: Draw, __: Earlier) -> Document:
    return {
        "guthaben": Decimal128(f"{draw.below(10**6)}.{draw.below(100):02d}"),
        "bytes": Int64(2**53 + draw.below(2**20)),
        "siegel": Binary(draw.randbytes(24), 0x80),
        "abdruck": draw.randbytes(16),
    }


def _rare_booking(*given: Any) -> Document:
    return {"packageData": _rare_types(*given), "status": "pending"}


def _odd_names(_: Document, draw: Draw, __: Earlier) -> Document:
    names: Document = {"$preis": draw.below(5000), "kontakt.email": "nicht-hier@post.example"}
    return names | {"$set": {"isAdmin": True, "a.b": {"$c": None}}}


_EMAIL, _TYPE, _PROFILE = "kontakt.email", "kontakt.newslettertype", "vendorProfile"
_MEMBER, _READER = {"isFullAccount": True}, {"kontakt.mailNewsletter": True}
_VENDOR = _MEMBER | {"isVendor": True, _PROFILE: lambda user, *_: user.get(_PROFILE, {})}
_DATES = {"registrationDate": _before_1970, "createdAt": _before_1970}
_TYPES = {"punkte": Int64(7), "guthaben": Decimal128("-9.90"), "karte": _rare_types}

KINDS: tuple[Kind, ...] = (
    _bad("email_missing", {_EMAIL: ABSENT}),
    _bad("email_null", {_EMAIL: None}),
    _bad("email_empty", {_EMAIL: ""}),
    _bad("email_number", {_EMAIL: (4930123456, 0, 17.5)}),
    _bad("kontakt_missing", {"kontakt": ABSENT}),
    _bad("kontakt_null", {"kontakt": None}),
    _bad("kontakt_string", {"kontakt": ("siehe Karteikarte", "")}),
    _bad("kontakt_array", {"kontakt": lambda user, *_: [user["kontakt"]]}),
    _bad("username_duplicate", _MEMBER | {"username": partial(_repeated, "username")}, "username"),
    _bad("email_duplicate", _READER | {_EMAIL: partial(_repeated, "email")}, "email"),
    _bad("last_login_string", {"lastLogin": ("2021-05-04T10:11:12.000Z", "gestern", "")}),
    _bad("is_admin_string", {"isAdmin": ("false", "ja", "")}),
    _bad("tags_string", _VENDOR | {"vendorProfile.tags": ("obst,gemüse", "")}),
    _odd("id_string", {"_id": lambda user, *_: f"alt-{user['_id']}"}),
    _odd("id_int", {"_id": _id_int}),
    _odd("id_uuid", {"_id": _id_uuid}),
    _odd("newslettertype_null", _READER | {_TYPE: None}),
    _odd("newslettertype_empty", _READER | {_TYPE: ""}),
    _odd("newslettertype_missing", _READER | {_TYPE: ABSENT}),
    _odd("adressen_missing", _VENDOR | {"adressen": ABSENT}),
    _odd("vendor_profile_missing", _VENDOR | {_PROFILE: ABSENT}),
    _odd("vendor_profile_null", _VENDOR | {_PROFILE: None}),
    _odd("dates_before_1970", _DATES),
    _odd("rare_types", _TYPES),
    _odd("rare_types_in_package", _VENDOR | {"pendingBooking": _rare_booking}),
    _odd("dollar_and_dot_names", {"legacy": _odd_names}),
)


class Planting:
    """Makes a share of the passing documents hostile, every kind equally often.

    Its random source is its own, so the documents it leaves alone are the same at every share.
    """

    def __init__(self, count: int, seed: int, hostile: float) -> None:
        if count < 0 or not 0 <= hostile <= 1:
            wrong = f"cannot make {count} users with a hostile share of {hostile}"
            raise UsageError(wrong, hint="a count of 0 or more, a share from 0 to 1")
        self._draw = Draw(f"hostile {seed} {count}")
        self._places = set(self._draw.sample(range(count), round(count * hostile)))
        self._due: list[Kind] = []
        self._earlier: dict[str, list[str]] = {"username": [], "email": []}

    def plant(self, number: int, document: Document) -> str:
        """Make the document hostile if its number was drawn, and return its kind's name."""
        kind = self._next_kind() if number in self._places else None
        if kind:
            kind.make(document, self._draw, self._earlier)
        if not (kind and kind.bad):
            self._remember(document)
        return kind.name if kind else PLAIN

    def _next_kind(self) -> Kind:
        """Return the next kind of the lap, passing over one that has nothing to repeat yet."""
        while True:
            for kind in self._due:
                if not kind.repeats or self._earlier[kind.repeats]:
                    self._due.remove(kind)
                    return kind
            self._due += self._draw.sample(KINDS, len(KINDS))

    def _remember(self, document: Document) -> None:
        """Keep some usernames and e-mail addresses to repeat, never both of one document.

        A document repeated twice over could lose to the one and make room for the other, and
        fewer would be quarantined than were planted.
        """
        what = "username" if "username" in document else "email"
        if self._earlier[what] and not self._draw.chance(0.02):
            return
        if what == "username":
            self._earlier[what].append(document[what])
        elif document["kontakt"].get("mailNewsletter"):
            self._earlier[what].append(document["kontakt"][what])
