"""A whole user of DESIGN §4 and the least one, and their parts, decoded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import bson
from bson import ObjectId

from mongosplit import reference
from mongosplit.users import migration

USER = ObjectId("64b000000000000000000001")
TAG = ObjectId("64b000000000000000000002")
CREATED, UPDATED, LOGIN = datetime(2020, 1, 1), datetime(2022, 2, 2), datetime(2023, 3, 3)
TRIAL, TRIAL_END, REGISTERED = datetime(2021, 1, 1), datetime(2021, 2, 1), datetime(2020, 12, 1)

ADDRESS = {"adresstyp": "rechnung", "strasse": "Weg", "hausnummer": "1a", "plz": "80331", "x": 1}
PROFILE: dict[str, Any] = {
    "unternehmen": "Hof Lindner",
    "beschreibung": "Gemüse",
    "profilBild": "p.png",
    "bannerBild": "b.png",
    "oeffnungszeiten": {"montag": "8-12", "sonntag": None},
    "kategorien": ["gemüse", "obst"],
    "tags": [TAG],
    "products": [USER, TAG],
    "businessDetails": {"founded": 1980, "certifications": ["bio"], "farmSize": "10 ha"},
    "location": {"coordinates": [11.5, 48.1], "deliveryRadius": 30, "deliveryAreas": ["80331"]},
    "operationalInfo": {"seasonal": True, "peakSeason": {"start": "Mai", "end": "Juli"}},
    "slogan": "frisch",
    "website": "https://x.de",
    "socialMedia": {"facebook": "f", "instagram": "i"},
    "verifyStatus": "verified",
    "isPubliclyVisible": True,
    "featured": True,
}
KONTAKT: dict[str, Any] = {
    "name": "Anna Beispiel",
    "email": "anna@example.de",
    "telefon": "089 1",
    "newslettertype": "vendors",
    "mailNewsletter": True,
    "newsletterConfirmed": True,
    "confirmationToken": "t0ken",
    "tokenExpires": TRIAL_END,
    "status": "aktiv",
    "usrID": "u-7",
}
WHOLE: dict[str, Any] = {
    "_id": USER,
    "username": "anna",
    "password": "$2b$10$hash",
    "isFullAccount": True,
    "isAdmin": True,
    "isVendor": True,
    "email": "old@example.de",
    "lastLogin": LOGIN,
    "kontakt": KONTAKT,
    "adressen": [ADDRESS, {"ort": "München"}],
    "vendorProfile": PROFILE,
    "registrationDate": REGISTERED,
    "registrationStatus": "trial_active",
    "trialStartDate": TRIAL,
    "trialEndDate": TRIAL_END,
    "isPubliclyVisible": True,
    "pendingBooking": {"packageData": {"a.b": [1, {"$x": 2}]}, "createdAt": TRIAL, "status": "new"},
    "createdAt": CREATED,
    "updatedAt": UPDATED,
    "__v": 3,
}
LEAST: dict[str, Any] = {"_id": USER, "kontakt": {"email": "anna@example.de"}}
MISSING = object()


def user(start: dict[str, Any] = WHOLE, /, **changes: Any) -> dict[str, Any]:
    """The user with values at paths, written with `__` for a dot; `MISSING` takes one away."""
    changed: dict[str, Any] = {
        name: dict(value) if isinstance(value, dict) else value for name, value in start.items()
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = changed
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
        if value is MISSING:
            del place[last]
    return changed


def split(source: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The decoded parts by collection."""
    parts = reference.split(migration, bson.encode(source))
    return {migration.keys[key].collection: bson.decode(part) for key, part in parts.items()}


def base(source: dict[str, Any]) -> dict[str, Any]:
    return split(source)["base_users"]


def vendor(source: dict[str, Any]) -> dict[str, Any]:
    return split(source)["vendors"]


def subscriber(source: dict[str, Any]) -> dict[str, Any]:
    return split(source)["newsletter_subscribers"]


def in_order(part: dict[str, Any]) -> list[tuple[str, Any]]:
    return list(part.items())
