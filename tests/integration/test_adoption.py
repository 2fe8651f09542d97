"""A subscriber of the application with a user's email becomes the user's part, as it stands."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo.database import Database

from tests.integration.conftest import (
    Begin,
    Document,
    found,
    ids,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    put_state,
    reasons,
    state_of,
    stored,
    user,
    users,
    verified,
    verified_all,
)

LETTERS = "newsletter_subscribers"
EMAIL = "kontakt.email"
SHAPE = {"type": "kunde", "isSubscribed": False, "preferences": {}, "source": "messe"}
FAR, NEAR = oid(2**40), oid(2)


def subscriber(_id: Any, n: int, more: Document | None = None) -> Document:
    """A document of the application with the email of user `n`, as the validator wants it."""
    return {"_id": _id, "email": f"k{n}@example.org", **SHAPE, **(more or {})}


@pytest.fixture
def letters(database: Database[Document]) -> Any:
    return database[LETTERS]


@pytest.mark.parametrize("_id", [FAR, NEAR, oid(1), "x"], ids=["far", "near", "same", "text"])
@pytest.mark.parametrize("owner", [{}, {"userId": None}], ids=["missing", "null"])
def test_it_gets_its_owner_its_own_values_stand_and_its_pre_image_is_kept(
    begin: Begin, letters: Any, _id: Any, owner: Document
) -> None:
    foreign = subscriber(_id, 1, owner | {"note": "vom Stand"})
    letters.insert_one(foreign)
    at = begin([user(1), user(3)])
    assert migrated(at).quarantined == 0

    # Setting the owner writes in place where it was null, and at the end where it was missing.
    after = bson.encode(foreign | {"userId": oid(1)})
    assert [row for row in stored(at, LETTERS) if bson.decode(row)["_id"] == _id] == [after]
    assert len(ids(at, LETTERS)) == 2
    rows = at.ledger["kept"].with_options(codec_options=DEFAULT_RAW_BSON_OPTIONS)
    [kept] = list(rows.find())
    assert kept["document"].raw == bson.encode(foreign)
    assert (kept["collection"], kept["document_id"], kept["source_id"]) == (LETTERS, _id, oid(1))
    assert (kept["run"], kept["chunk"], kept["reason"]) == (at.run.id, 1, "adopted")
    assert (ledger_row(at)["adopted"], ledger_row(at)["parts"][LETTERS]) == (1, 1)
    assert (verified_all(at), found(at)) == (0, set())
    assert verified_all(at, independent=True) == 0


def test_what_was_adopted_is_accepted_in_whatever_chunk_its_own_id_lies(
    begin: Begin, letters: Any
) -> None:
    letters.insert_many([subscriber(oid(25), 1), subscriber(oid(15), 3), subscriber(oid(5), 2)])
    at = begin([user(n) for n in (1, 2, 3, 10, 20, 30)], chunk_size=2)
    migrated_all(at)
    assert (verified_all(at), found(at), len(ids(at, LETTERS))) == (0, set(), 6)


def test_a_second_user_with_its_email_is_a_duplicate(begin: Begin, letters: Any) -> None:
    letters.insert_one(subscriber(FAR, 1))
    same = {EMAIL: "k1@example.org"}
    at = begin([user(1), user(2, same), user(3, same)], chunk_size=2)
    assert [outcome.quarantined for outcome in migrated_all(at)] == [1, 1]
    assert reasons(at) == dict.fromkeys((oid(2), oid(3)), ("duplicate", EMAIL))
    assert verified_all(at) == 0


def test_one_with_the_id_of_a_user_and_another_email_is_no_adoption(
    begin: Begin, letters: Any
) -> None:
    foreign = subscriber(oid(2), 77)
    letters.insert_one(foreign)
    at = begin(users(3))
    assert migrated(at).quarantined == 1
    assert reasons(at) == {oid(2): ("duplicate", "_id")}
    assert bson.encode(foreign) in stored(at, LETTERS)
    assert ids(at, "base_users") == [oid(1), oid(3)]
    assert verified_all(at) == 0


def test_one_of_another_shape_is_adopted_too_and_the_application_may_go_on_changing_it(
    begin: Begin, letters: Any
) -> None:
    foreign = {"_id": FAR, "email": "k2@example.org", "note": "geheim"}
    letters.insert_one(foreign)
    at = begin(users(3))
    assert migrated(at).quarantined == 0
    assert letters.find_one({"_id": FAR}) == {**foreign, "userId": oid(2)}
    assert verified_all(at) == 0
    letters.update_one({"_id": FAR}, {"$set": {"note": "anders"}})
    assert verified_all(at) == 0


def test_one_of_another_shape_under_the_id_of_its_user_is_left_alone(
    begin: Begin, letters: Any
) -> None:
    foreign = {"_id": oid(2), "email": "k2@example.org", "note": "geheim"}
    letters.insert_one(foreign)
    at = begin(users(3))
    assert migrated(at).quarantined == 1
    assert reasons(at) == {oid(2): ("not-adoptable", "_id")}
    [row] = at.ledger["quarantine"].find()
    assert row["message"] == (
        f"{LETTERS} has a document with its _id and email that cannot be adopted: its type "
        "is missing"
    )
    assert bson.encode(foreign) in stored(at, LETTERS)
    assert (verified_all(at), at.ledger["kept"].count_documents({})) == (0, 0)


def test_one_that_has_an_owner_is_not_adopted(begin: Begin, letters: Any) -> None:
    letters.insert_one(subscriber(FAR, 1, {"userId": oid(99)}))
    at = begin(users(2))
    assert migrated(at).quarantined == 1
    assert reasons(at) == {oid(1): ("duplicate", EMAIL)}
    assert letters.find_one({"_id": FAR})["userId"] == oid(99)


def test_one_whose_user_does_not_subscribe_is_not_adopted(begin: Begin, letters: Any) -> None:
    letters.insert_one(subscriber(FAR, 1))
    at = begin([user(1, {"kontakt.mailNewsletter": False}), user(2)])
    assert (migrated(at).quarantined, ledger_row(at)["adopted"]) == (0, 0)
    assert "userId" not in letters.find_one({"_id": FAR})
    assert verified_all(at) == 0


def test_its_own_values_may_change_and_its_owner_may_not(begin: Begin, letters: Any) -> None:
    letters.insert_one(subscriber(NEAR, 1))
    at = begin([user(1), user(3)])
    migrated(at)
    letters.update_one({"_id": NEAR}, {"$set": {"isSubscribed": True, "new": 1}})
    assert verified_all(at) == 0
    gone = (oid(1), LETTERS, "userId", "missing")
    damages: list[tuple[Document, set[tuple[Any, ...]]]] = [
        ({"$unset": {"userId": 1}}, {gone}),
        ({"$set": {"userId": None}}, {gone}),
        ({"$set": {"userId": oid(9)}}, {gone, (oid(9), LETTERS, "userId", "ghost")}),
    ]
    for damage, expected in damages:
        letters.update_one({"_id": NEAR}, damage)
        verified_all(at)
        assert (found(at), state_of(at)) == (expected, "migrated")
        letters.update_one({"_id": NEAR}, {"$set": {"userId": oid(1)}})
        assert (verified_all(at), state_of(at)) == (0, "verified")
    letters.delete_one({"_id": NEAR})
    verified_all(at)
    assert found(at) == {gone}


def test_it_is_a_ghost_when_its_user_no_longer_subscribes(begin: Begin, letters: Any) -> None:
    letters.insert_one(subscriber(FAR, 1))
    at = begin(users(2))
    migrated(at)
    at.source.update_one({"_id": oid(1)}, {"$set": {"kontakt.mailNewsletter": False}})
    verified_all(at)
    assert found(at) == {(oid(1), LETTERS, "userId", "ghost")}
    put_state(at, "failed")
    assert verified(at).mismatches == 6  # two parts and a part of each user, and the adopted
