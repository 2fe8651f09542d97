"""The split of `users` as a good engineer writes it by hand: plain dicts, no library.

It takes decoded users and gives the same bytes as the declaration in `mongosplit.users`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Document = dict[str, Any]
Split = tuple[list[Document], list[Document], list[Document]]
"""Documents for `base_users`, `vendors` and `newsletter_subscribers`."""

NOTHING: Document = {}
LOGIN = ("username", "password")
PROFILE_TOP = ("unternehmen", "beschreibung", "slogan")
PROFILE: tuple[str, ...] = (
    "profilBild",
    "bannerBild",
    "oeffnungszeiten",
    "website",
    "socialMedia",
    "tags",
)
PROFILE += ("products", "businessDetails", "location", "operationalInfo")
TRIAL = ("registrationStatus", "registrationDate", "trialStartDate", "trialEndDate")
STAMPS = ("createdAt", "updatedAt")


def split(users: Iterable[Document]) -> Split:
    """The documents of all three targets."""
    logins: list[Document] = []
    vendors: list[Document] = []
    subscribers: list[Document] = []
    for user in users:
        kontakt = user["kontakt"]
        logins.append(_login(user, kontakt))
        if user.get("isVendor") is True:
            vendors.append(_vendor(user, kontakt))
        if kontakt.get("mailNewsletter") is True:
            subscribers.append(_subscriber(user, kontakt))
    return logins, vendors, subscribers


def _copy(to: Document, names: tuple[str, ...], source: Document) -> None:
    for name in names:
        if name in source:
            to[name] = source[name]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _login(user: Document, kontakt: Document) -> Document:
    made: Document = {"_id": user["_id"]}
    _copy(made, LOGIN, user)
    made["email"] = kontakt["email"]
    made["isAdmin"] = _or(user.get("isAdmin"), False)
    made["isActive"] = kontakt.get("status") == "aktiv"
    _copy(made, ("lastLogin", *STAMPS), user)
    return made


def _vendor(user: Document, kontakt: Document) -> Document:
    profile = user.get("vendorProfile", NOTHING)
    made: Document = {"_id": user["_id"], "userId": user["_id"]}
    _copy(made, PROFILE_TOP, profile)
    made["kategorien"] = _or(profile.get("kategorien"), [])
    _copy(made, PROFILE, profile)
    made["verifyStatus"] = _or(profile.get("verifyStatus"), "unverified")
    _copy(made, ("featured",), profile)
    made["businessEmail"] = kontakt["email"]
    if "telefon" in kontakt:
        made["businessPhone"] = kontakt["telefon"]
    made["addresses"] = _or(user.get("adressen"), [])
    _copy(made, TRIAL, user)
    made["isPubliclyVisible"] = _or(user.get("isPubliclyVisible"), False)
    _copy(made, ("pendingBooking", *STAMPS), user)
    return made


def _subscriber(user: Document, kontakt: Document) -> Document:
    made: Document = {"_id": user["_id"], "email": kontakt["email"]}
    _copy(made, ("name",), kontakt)
    made["type"] = kontakt.get("newslettertype") or "general"
    made["isSubscribed"] = True
    if kontakt.get("newsletterConfirmed") is True and "updatedAt" in user:
        made["confirmedAt"] = user["updatedAt"]
    for name in ("confirmationToken", "tokenExpires"):
        if kontakt.get(name) is not None:
            made[name] = kontakt[name]
    made["userId"] = user["_id"]
    made["preferences"] = {"frequency": "monthly", "categories": []}
    made["source"] = "user-account"
    _copy(made, STAMPS, user)
    return made
