"""What the shipped mapping leaves behind, refuses and indexes, by DESIGN §4."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, MinKey, Regex
from bson.timestamp import Timestamp

from mongosplit import raw, reference, schema
from mongosplit.pipelines import index_documents
from mongosplit.raw import Value
from mongosplit.users import BaseUser, NewsletterSubscriber, Vendor, migration
from tests.unit.plain_users import LEAST, MISSING, USER, WHOLE, split, user

RESIDUAL = {
    "isFullAccount": False,
    "email": "other@example.de",
    "__v": 9,
    "kontakt__usrID": "u-8",
    "vendorProfile__isPubliclyVisible": False,
    "unknown": {"deep": [1]},
    "kontakt__unknown": 1,
    "vendorProfile__unknown": 1,
}


def problems_of(source: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Collection, field and class word of each thing the targets would refuse in a user's parts."""
    parts = reference.split(migration, bson.encode(source, codec_options=raw.EXACT))
    return [
        (migration.keys[key].collection, ".".join(problem.path), problem.reason)
        for key, part in parts.items()
        for problem in schema.problems(migration.keys[key].schema_of_documents(), Value(3, part))
    ]


def test_each_target_has_its_collection_its_owner_and_its_condition() -> None:
    assert [
        (each.collection, each.owner, each.when and each.when.path, each.adopt_by)
        for each in migration.targets
    ] == [
        ("base_users", "_id", None, None),
        ("vendors", "userId", "isVendor", None),
        ("newsletter_subscribers", "userId", "kontakt.mailNewsletter", "email"),
    ]
    assert migration.source == "users"


def test_the_indexes_are_those_of_the_design() -> None:
    at_least_any_text = {"username": {"$gte": ""}}
    assert index_documents(BaseUser) == [
        {
            "key": {"username": 1},
            "name": "username_1",
            "unique": True,
            "partialFilterExpression": at_least_any_text,
        },
        {"key": {"email": 1}, "name": "email_1"},
    ]
    assert index_documents(Vendor) == [{"key": {"userId": 1}, "name": "userId_1", "unique": True}]
    email, owner = index_documents(NewsletterSubscriber)
    assert email == {"key": {"email": 1}, "name": "email_1", "unique": True}
    assert (owner["key"], owner["unique"]) == ({"userId": 1}, True)
    assert "partialFilterExpression" in owner


@pytest.mark.parametrize("path", RESIDUAL)
def test_everything_else_is_residual(path: str) -> None:
    assert split(user(**{path: RESIDUAL[path]})) == split(WHOLE)


def test_addresses_and_phone_of_a_user_who_is_no_vendor_are_residual() -> None:
    plain = user(isVendor=False)
    assert split(plain) == split(user(plain, adressen=MISSING, kontakt__telefon=MISSING))


@pytest.mark.parametrize("path", RESIDUAL)
def test_what_is_residual_is_still_served_by_the_join(path: str) -> None:
    archived = bson.encode(user(**{path: RESIDUAL[path]}))
    parts = reference.split(migration, archived)
    changed = bson.encode({**bson.decode(parts["a"]), "isAdmin": False})
    joined = bson.decode(reference.join(migration, archived, {**parts, "a": changed}))
    assert joined == {**bson.decode(archived), "isAdmin": False}


@pytest.mark.parametrize("least", [WHOLE, LEAST, user(LEAST, isVendor=True)])
def test_a_plain_user_has_no_problems(least: dict[str, Any]) -> None:
    assert problems_of(least) == []
    assert problems_of(user(least, kontakt__mailNewsletter=True)) == []


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        (MISSING, "missing"),
        (None, "missing"),
        ("", "missing"),
        (5, "wrong-type"),
        ([], "wrong-type"),
    ],
)
def test_no_usable_email_is_refused_by_every_target(email: Any, reason: str) -> None:
    assert problems_of(user(kontakt__email=email)) == [
        ("base_users", "email", reason),
        ("vendors", "businessEmail", reason),
        ("newsletter_subscribers", "email", reason),
    ]


@pytest.mark.parametrize("kontakt", [None, "anna@example.de", [{"email": "anna@example.de"}]])
def test_contact_data_that_is_no_document_holds_no_usable_email(kontakt: Any) -> None:
    assert [each[:2] for each in problems_of(user(LEAST, kontakt=kontakt))] == [
        ("base_users", "email")
    ]


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("username", 5, ("base_users", "username")),
        ("password", b"x", ("base_users", "password")),
        ("isAdmin", "yes", ("base_users", "isAdmin")),
        ("lastLogin", "2020-01-01", ("base_users", "lastLogin")),
        ("vendorProfile__tags", ["x"], ("vendors", "tags.0")),
        ("vendorProfile__products", USER, ("vendors", "products")),
        ("vendorProfile__kategorien", "obst", ("vendors", "kategorien")),
        ("vendorProfile__socialMedia", {"facebook": 1}, ("vendors", "socialMedia.facebook")),
        ("vendorProfile__location", [1, 2], ("vendors", "location")),
        ("vendorProfile__featured", 1, ("vendors", "featured")),
        ("adressen", {"ort": "x"}, ("vendors", "addresses")),
        ("adressen", [{"ort": "x"}, {"ort": 5}], ("vendors", "addresses.1.ort")),
        ("trialEndDate", 0, ("vendors", "trialEndDate")),
        ("pendingBooking", "soon", ("vendors", "pendingBooking")),
        ("kontakt__telefon", 891, ("vendors", "businessPhone")),
        ("kontakt__name", {}, ("newsletter_subscribers", "name")),
        ("kontakt__newslettertype", 1, ("newsletter_subscribers", "type")),
        ("kontakt__tokenExpires", "soon", ("newsletter_subscribers", "tokenExpires")),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_where_it_stands(
    path: str, value: Any, where: tuple[str, str]
) -> None:
    assert problems_of(user(**{path: value})) == [(*where, "wrong-type")]


def test_package_data_and_fields_nobody_knows_may_be_anything() -> None:
    odd = [None, Regex("x"), Code("f()"), MinKey(), {"$ref": "x"}, [[]]]
    for value in odd:
        booking = {"packageData": value, "status": "new", "unknown": value}
        assert problems_of(user(pendingBooking=booking, vendorProfile__unknown=value)) == []


IDS = [USER, "anna", 5, Int64(5), 5.5, Decimal128("5.5"), Binary(b"x" * 16, 4), True]
IDS += [datetime(2020, 1, 1), Timestamp(1, 1), Binary.from_uuid(UUID(int=1))]


@pytest.mark.parametrize("own_id", IDS)
def test_an_id_of_any_type_that_is_ranged_over_is_taken_as_it_is(own_id: Any) -> None:
    source = user(_id=own_id)
    assert problems_of(source) == []
    parts = reference.split(migration, bson.encode(source))
    kept = {
        raw.field(part, target.owner)
        for part, target in zip(parts.values(), migration.targets, strict=True)
    }
    assert kept | {raw.field(part, "_id") for part in parts.values()} == {raw.encode(own_id)}


@pytest.mark.parametrize("own_id", [{"a": 1}, [1], None, Regex("x"), MinKey()])
def test_an_id_of_another_type_is_refused(own_id: Any) -> None:
    refused = {each[:2] for each in problems_of(user(_id=own_id))}
    assert ("base_users", "_id") in refused
    assert ("vendors", "userId") in refused
    assert ("newsletter_subscribers", "userId") in refused
