"""The shipped mapping, value by value of DESIGN §4, on plain users through the reference."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.plain_users import (
    CREATED,
    LEAST,
    LOGIN,
    MISSING,
    PROFILE,
    REGISTERED,
    TAG,
    TRIAL,
    TRIAL_END,
    UPDATED,
    USER,
    WHOLE,
    base,
    in_order,
    split,
    subscriber,
    user,
    vendor,
)


def test_a_login_has_these_fields_in_this_order() -> None:
    assert in_order(base(WHOLE)) == [
        ("_id", USER),
        ("username", "anna"),
        ("password", "$2b$10$hash"),
        ("email", "anna@example.de"),
        ("isAdmin", True),
        ("isActive", True),
        ("lastLogin", LOGIN),
        ("createdAt", CREATED),
        ("updatedAt", UPDATED),
    ]


def test_every_user_has_exactly_one_login_and_maybe_nothing_else() -> None:
    assert split(LEAST) == {
        "base_users": {
            "_id": USER,
            "email": "anna@example.de",
            "isAdmin": False,
            "isActive": False,
        }
    }


def test_a_vendor_has_these_fields_in_this_order() -> None:
    assert in_order(vendor(WHOLE)) == [
        ("_id", USER),
        ("userId", USER),
        ("unternehmen", "Hof Lindner"),
        ("beschreibung", "Gemüse"),
        ("slogan", "frisch"),
        ("kategorien", ["gemüse", "obst"]),
        ("profilBild", "p.png"),
        ("bannerBild", "b.png"),
        ("oeffnungszeiten", PROFILE["oeffnungszeiten"]),
        ("website", "https://x.de"),
        ("socialMedia", PROFILE["socialMedia"]),
        ("tags", [TAG]),
        ("products", [USER, TAG]),
        ("businessDetails", PROFILE["businessDetails"]),
        ("location", PROFILE["location"]),
        ("operationalInfo", PROFILE["operationalInfo"]),
        ("verifyStatus", "verified"),
        ("featured", True),
        ("businessEmail", "anna@example.de"),
        ("businessPhone", "089 1"),
        ("addresses", WHOLE["adressen"]),
        ("registrationStatus", "trial_active"),
        ("registrationDate", REGISTERED),
        ("trialStartDate", TRIAL),
        ("trialEndDate", TRIAL_END),
        ("isPubliclyVisible", True),
        ("pendingBooking", WHOLE["pendingBooking"]),
        ("createdAt", CREATED),
        ("updatedAt", UPDATED),
    ]


def test_a_vendor_without_a_profile_is_legal_and_has_only_what_has_a_default() -> None:
    part = vendor(user(LEAST, isVendor=True))
    assert part == {
        "_id": USER,
        "userId": USER,
        "kategorien": [],
        "verifyStatus": "unverified",
        "businessEmail": "anna@example.de",
        "addresses": [],
        "isPubliclyVisible": False,
    }


def test_a_subscriber_has_these_fields_in_this_order() -> None:
    assert in_order(subscriber(WHOLE)) == [
        ("_id", USER),
        ("email", "anna@example.de"),
        ("name", "Anna Beispiel"),
        ("type", "vendors"),
        ("isSubscribed", True),
        ("confirmedAt", UPDATED),
        ("confirmationToken", "t0ken"),
        ("tokenExpires", TRIAL_END),
        ("userId", USER),
        ("preferences", {"frequency": "monthly", "categories": []}),
        ("source", "user-account"),
        ("createdAt", CREATED),
        ("updatedAt", UPDATED),
    ]


@pytest.mark.parametrize("flag", [False, None, 1, 1.0, "true", [True], MISSING])
def test_only_true_makes_a_vendor_or_a_subscriber(flag: Any) -> None:
    assert list(split(user(isVendor=flag, kontakt__mailNewsletter=flag))) == ["base_users"]
    assert "vendors" not in split(user(isVendor=flag))
    assert "newsletter_subscribers" not in split(user(kontakt__mailNewsletter=flag))


@pytest.mark.parametrize("name", ["username", "password", "lastLogin", "createdAt", "updatedAt"])
def test_a_copied_login_field_stays_missing_or_null(name: str) -> None:
    assert name not in base(user(**{name: MISSING}))
    assert base(user(**{name: None}))[name] is None


COPIED = ["unternehmen", "beschreibung", "slogan", "profilBild", "bannerBild", "oeffnungszeiten"]
COPIED += ["website", "socialMedia", "tags", "products", "businessDetails", "location"]
COPIED += ["operationalInfo", "featured"]
TOP = ["registrationStatus", "registrationDate", "trialStartDate", "trialEndDate"]
TOP += ["pendingBooking", "createdAt", "updatedAt"]


@pytest.mark.parametrize("name", COPIED)
def test_a_copied_profile_field_stays_missing_or_null(name: str) -> None:
    assert name not in vendor(user(**{f"vendorProfile__{name}": MISSING}))
    assert vendor(user(**{f"vendorProfile__{name}": None}))[name] is None
    assert name not in vendor(user(**{name: "top level", f"vendorProfile__{name}": MISSING}))


@pytest.mark.parametrize("name", TOP)
def test_a_copied_vendor_field_of_the_top_level_stays_missing_or_null(name: str) -> None:
    assert name not in vendor(user(**{name: MISSING}))
    assert vendor(user(**{name: None}))[name] is None


@pytest.mark.parametrize(
    ("path", "collection", "name", "default"),
    [
        ("isAdmin", "base_users", "isAdmin", False),
        ("vendorProfile__kategorien", "vendors", "kategorien", []),
        ("vendorProfile__verifyStatus", "vendors", "verifyStatus", "unverified"),
        ("adressen", "vendors", "addresses", []),
        ("isPubliclyVisible", "vendors", "isPubliclyVisible", False),
        ("kontakt__newslettertype", "newsletter_subscribers", "type", "general"),
    ],
)
def test_a_default_stands_for_missing_and_for_null(
    path: str, collection: str, name: str, default: Any
) -> None:
    assert split(user(**{path: MISSING}))[collection][name] == default
    assert split(user(**{path: None}))[collection][name] == default


def test_an_empty_text_is_a_value_everywhere_but_in_the_newsletter_type() -> None:
    assert subscriber(user(kontakt__newslettertype=""))["type"] == "general"
    assert vendor(user(vendorProfile__verifyStatus=""))["verifyStatus"] == ""
    assert base(user(username=""))["username"] == ""


@pytest.mark.parametrize("status", ["inaktiv", "pending", "AKTIV", "aktiv ", "", None, 1, MISSING])
def test_only_the_status_aktiv_is_active(status: Any) -> None:
    assert base(user(kontakt__status="aktiv"))["isActive"] is True
    assert base(user(kontakt__status=status))["isActive"] is False


@pytest.mark.parametrize("confirmed", [False, None, 1, "true", MISSING])
def test_confirmed_at_is_the_last_update_of_a_confirmed_user_else_absent(confirmed: Any) -> None:
    assert subscriber(WHOLE)["confirmedAt"] == UPDATED
    assert "confirmedAt" not in subscriber(user(kontakt__newsletterConfirmed=confirmed))
    assert "confirmedAt" not in subscriber(user(updatedAt=MISSING))


@pytest.mark.parametrize("name", ["confirmationToken", "tokenExpires"])
def test_a_confirmation_is_copied_only_when_it_is_not_null(name: str) -> None:
    assert name not in subscriber(user(**{f"kontakt__{name}": None}))
    assert name not in subscriber(user(**{f"kontakt__{name}": MISSING}))


@pytest.mark.parametrize("name", ["name", "createdAt", "updatedAt"])
def test_a_copied_subscriber_field_stays_missing_or_null(name: str) -> None:
    path = "kontakt__name" if name == "name" else name
    assert name not in subscriber(user(**{path: MISSING}))
    assert subscriber(user(**{path: None}))[name] is None


def test_the_phone_of_a_vendor_stays_missing_or_null() -> None:
    assert "businessPhone" not in vendor(user(kontakt__telefon=MISSING))
    assert vendor(user(kontakt__telefon=None))["businessPhone"] is None
