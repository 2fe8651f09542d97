"""The customers of one thread: which of them writes next, and what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import bson

from mongosplit import raw
from ops.load.change import REMOVED, changed
from ops.load.habits import Habits
from ops.load.intent import Intent, update
from ops.load.roster import Roster
from ops.seed_hostile import Draw

FEW_NAMES = ("Hof Anna", "Hof Berta")
FEW_MOMENTS = (datetime(2026, 1, 2, 3, 4, 5, 678000), datetime(2026, 2, 3, 4, 5, 6, 789000))
TRIES = 30
"""How often somebody else is asked before another operation is taken."""

SPOIL, MEND, SWAP = "spoil", "mend", "swap"


class Customers:
    """Draws one intent after the other for the users of a roster.

    `new_key` gives an `_id` larger than any, `fresh` a text that nobody has used.
    """

    def __init__(
        self,
        roster: Roster,
        draw: Draw,
        habits: Habits,
        *,
        new_key: Callable[[], raw.Value],
        fresh: Callable[[], str],
    ) -> None:
        self._roster, self._draw, self._habits = roster, draw, habits
        self._new_key, self._fresh = new_key, fresh
        self._names, self._weights = [*habits.weights], [*habits.weights.values()]
        self._ways: dict[str, Callable[[raw.Value, bytes], Intent | None]] = {
            "login": self._login,
            "profile": self._profile,
            "newsletter": self._newsletter,
            "e-mail": self._email,
            "vendor": self._vendor,
            "replace": self._replace,
            "delete": lambda key, now: Intent("delete", key, now, None) if now else None,
        }

    def next(self) -> list[Intent]:
        """What is written next: one intent, of a swap all three."""
        chance = self._draw.random()
        if chance < self._habits.swap:
            return self._swap() or [self._sign_up()]
        if self._roster.spoiled and chance < self._habits.swap + 1.5 * self._habits.bad:
            return [self._mend() if chance >= self._habits.swap + self._habits.bad else self._bad()]
        if chance < self._habits.swap + self._habits.bad:
            return [self._bad()]
        return [self._usual(self._draw.choices(self._names, self._weights)[0])]

    def _usual(self, name: str) -> Intent:
        if name == "re-insert" and self._roster.deleted:
            return self._re_insert()
        if way := self._ways.get(name):
            for key, now in islice(self._asked(), TRIES):
                if intent := way(key, now):
                    return intent
        return self._sign_up()

    def _asked(self) -> Iterator[tuple[raw.Value, bytes]]:
        """Users at random whose document an update by path can be sent to."""
        while len(self._roster):
            key = self._roster.pick(self._draw, hot=self._habits.hot)
            now = self._roster.states[key]
            if now is not None and key not in self._roster.unsettled and _is_regular(now):
                yield key, now
            else:
                # Nobody may be regular: the caller counts this one, too.
                yield key, b""

    def _now(self) -> dict[str, Any]:
        return {} if self._habits.toggling else {"updatedAt": _moment()}

    def _name(self) -> str:
        return self._draw.pick(FEW_NAMES) if self._habits.toggling else f"Hof {self._fresh()}"

    def _address(self) -> str:
        return f"{self._fresh()}@load.example"

    def _login(self, key: raw.Value, now: bytes) -> Intent | None:
        username = raw.field(now, "username") if now else None
        if username is None or username.type_name != "string":
            return None
        at = self._draw.pick(FEW_MOMENTS) if self._habits.toggling else _moment()
        return update("login", key, now, {"lastLogin": at}, username=username)

    def _profile(self, key: raw.Value, now: bytes) -> Intent | None:
        if not now:
            return None
        vendor = raw.lookup(now, "vendorProfile") is not None
        path = "vendorProfile.slogan" if vendor else "kontakt.name"
        telefon = {} if self._habits.toggling else {"kontakt.telefon": f"+49 {self._fresh()}"}
        return update("profile", key, now, {path: self._name(), **telefon, **self._now()})

    def _newsletter(self, key: raw.Value, now: bytes) -> Intent | None:
        if not now:
            return None
        gets_it = _is_true(now, "kontakt.mailNewsletter")
        changes = {"kontakt.mailNewsletter": not gets_it, "kontakt.newsletterConfirmed": False}
        return update("opt-out" if gets_it else "opt-in", key, now, {**changes, **self._now()})

    def _email(self, key: raw.Value, now: bytes) -> Intent | None:
        if not now or key in self._roster.spoiled:
            return None
        return update("e-mail", key, now, {"kontakt.email": self._address(), **self._now()})

    def _vendor(self, key: raw.Value, now: bytes) -> Intent | None:
        if not now:
            return None
        if _is_true(now, "isVendor"):
            return update("vendor-ends", key, now, {"isVendor": False, **self._now()})
        changes = {"isVendor": True, "vendorProfile.unternehmen": self._name()}
        changes |= {"vendorProfile.verifyStatus": "pending", "registrationStatus": "preregistered"}
        return update("vendor-begins", key, now, {**changes, **self._now()})

    def _replace(self, key: raw.Value, now: bytes) -> Intent | None:
        if not now:
            return None
        address = {"adresstyp": "rechnung", "ort": self._name(), "plz": "01067"}
        after = changed(now, {"adressen": [address], **self._now()})
        identity, *fields = raw.elements(after)
        # Another order of fields is another document, and no update by path makes it.
        return Intent("replace", key, now, raw.build([identity, *fields[1:], *fields[:1]]))

    def _sign_up(self) -> Intent:
        key = self._new_key()
        return Intent("sign-up", key, None, self._newcomer(key))

    def _re_insert(self) -> Intent:
        key = self._draw.pick(self._roster.deleted)
        return Intent("re-insert", key, None, self._newcomer(key))

    def _newcomer(self, key: raw.Value) -> bytes:
        draw, at = self._draw, _moment()
        kontakt: dict[str, Any] = {"name": self._name(), "email": self._address()}
        kontakt |= {
            "telefon": "+49 1",
            "newslettertype": "general",
            "mailNewsletter": draw.chance(0.5),
        }
        kontakt |= {"newsletterConfirmed": False, "status": "aktiv"}
        user: dict[str, Any] = {"username": self._fresh(), "password": f"$2b$10${'x' * 53}"}
        user |= {"isFullAccount": True, "isAdmin": False, "isVendor": draw.chance(0.2)}
        user |= {"kontakt": kontakt, "adressen": [], "registrationDate": at}
        user |= {"createdAt": at, "updatedAt": at, "__v": 0}
        return raw.build([("_id", key), *raw.elements(bson.encode(user))])

    def _bad(self) -> Intent:
        for key, now in islice(self._asked(), TRIES):
            if now and key not in self._roster.spoiled:
                return update(SPOIL, key, now, {"kontakt.email": REMOVED})
        return self._sign_up()

    def _mend(self) -> Intent:
        for key in self._roster.spoiled:
            now = self._roster.states[key]
            if now and key not in self._roster.unsettled and _is_regular(now):
                return update(MEND, key, now, {"kontakt.email": self._address()})
        return self._sign_up()

    def _swap(self) -> list[Intent]:
        path = self._draw.pick(("kontakt.email", "username"))
        able = [
            (key, now, value)
            for key, now in islice(self._asked(), TRIES)
            if now and (value := raw.lookup(now, path)) and value.type_name == "string"
        ]
        if not able or able[0][0] == able[-1][0]:
            return []
        (one, now, value), (other, its, its_value) = able[0], able[-1]
        aside = update(SWAP, one, now, {path: self._address()})
        across = update(SWAP, other, its, {path: value.decode()})
        assert aside.after is not None  # an update leaves a document
        return [aside, across, update(SWAP, one, aside.after, {path: its_value.decode()})]


def _is_regular(document: bytes) -> bool:
    """Whether updates by path find objects on their way."""
    kontakt, profile = raw.field(document, "kontakt"), raw.field(document, "vendorProfile")
    return bool(kontakt and kontakt.is_object) and (profile is None or profile.is_object)


def _is_true(document: bytes, path: str) -> bool:
    value = raw.lookup(document, path)
    return value is not None and value.type_name == "bool" and value.data == b"\x01"


def _moment() -> datetime:
    """Now, in the whole milliseconds that BSON keeps."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return now - timedelta(microseconds=now.microsecond % 1000)
