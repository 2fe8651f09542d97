"""Targets are made once as declared; what stands in the way is refused, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import WriteError

from mongosplit import pipelines, raw
from mongosplit.errors import Refused
from mongosplit.provision import obstacles, provision
from mongosplit.users import BaseUser, NewsletterSubscriber, Vendor, migration
from tests.integration.conftest import TARGETS, Document, oid

Data = Database[Document]
BASE, VENDORS, LETTERS = TARGETS
LOGIN = {"_id": oid(1), "email": "a@b.c", "isAdmin": False, "isActive": True}
STRING = {"username": {"$gte": ""}}


def indexes(data: Data, name: str) -> dict[str, Document]:
    """The indexes by name; the driver's own list cannot read dates as early as theirs."""
    found = data.command("listIndexes", name, codec_options=raw.EXACT)["cursor"]["firstBatch"]
    return {index["name"]: index for index in found}


def everything(data: Data) -> dict[str, Any]:
    """Options and indexes of every collection."""
    return {
        found["name"]: (found["options"], indexes(data, found["name"]))
        for found in data.list_collections(filter={"type": "collection"})
    }


def test_targets_are_made_with_validators_and_indexes(database: Data) -> None:
    made = provision(database, migration)
    assert made == [
        {
            "collection": target.collection,
            "created": True,
            "validator": True,
            "indexes": [index.name for index in target.indexes],
        }
        for target in (BaseUser, Vendor, NewsletterSubscriber)
    ]
    for target in migration.targets:
        options, there = everything(database)[target.collection]
        assert options["validator"] == pipelines.validator(target)
        assert raw.encode([there[index.name] for index in target.indexes]) == raw.encode(
            [{"v": 2, **index.options} for index in target.indexes]
        )


def test_making_them_again_makes_nothing(database: Data) -> None:
    provision(database, migration)
    before = everything(database)
    again = provision(database, migration)
    assert [(row["created"], row["validator"], row["indexes"]) for row in again] == [
        (False, False, [])
    ] * 3
    assert (everything(database), obstacles(database, migration)) == (before, [])


def test_what_the_application_made_is_completed(database: Data) -> None:
    database[LETTERS].create_index("email", unique=True, name="mine")
    database[BASE].create_index(
        "username", unique=True, name="logins", partialFilterExpression=STRING
    )
    assert obstacles(database, migration) == []
    logins, _, letters = provision(database, migration)
    assert (logins["created"], logins["validator"], logins["indexes"]) == (False, True, ["email_1"])
    assert (letters["created"], letters["indexes"]) == (False, ["userId_1"])
    assert set(indexes(database, LETTERS)) == {"_id_", "mine", "userId_1"}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (BASE, {**LOGIN, "email": ""}),
        (BASE, {**LOGIN, "isAdmin": 0}),
        (BASE, {key: value for key, value in LOGIN.items() if key != "isActive"}),
        (BASE, {**LOGIN, "_id": {"a": 1}}),
        (VENDORS, {"_id": oid(1)}),
        (LETTERS, {"_id": oid(1), "email": "a@b.c", "userId": oid(1)}),
    ],
)
def test_a_wrong_document_is_refused_from_anyone(
    database: Data, name: str, wrong: Document
) -> None:
    provision(database, migration)
    with pytest.raises(WriteError) as refusal:
        database[name].insert_one(wrong)
    assert refusal.value.code == 121
    database[BASE].insert_one(dict(LOGIN))
    with pytest.raises(WriteError) as refusal:
        database[BASE].update_one({}, {"$unset": {"email": 1}})
    assert refusal.value.code == 121


def test_a_shared_target_lets_documents_without_an_owner_be(database: Data) -> None:
    provision(database, migration)
    database[LETTERS].insert_many([{"email": "a"}, {"email": "b", "userId": None, "type": 7}])
    own = ObjectId()
    with pytest.raises(WriteError):
        database[LETTERS].insert_one({"_id": own, "email": "c", "userId": own, "type": 7})
    # Adopted: it stands under an _id of its own, and its own values stand.
    database[LETTERS].update_one({"email": "b"}, {"$set": {"userId": own}})


def view(data: Data) -> None:
    data.command("create", BASE, viewOn="users", pipeline=[])


OBSTACLES: dict[str, tuple[Any, str]] = {
    "a view": (view, "is a view, not a collection"),
    "a time series": (
        lambda data: data.create_collection(BASE, timeseries={"timeField": "t"}),
        "is a timeseries, not a collection",
    ),
    "another validator": (
        lambda data: data.create_collection(BASE, validator={"a": 1}),
        "has another validator already",
    ),
    "a validator that only warns": (
        lambda data: data.create_collection(BASE, validationAction="warn"),
        "lets wrong documents in",
    ),
    "our validator, but only for some writes": (
        lambda data: data.create_collection(
            BASE, validator=pipelines.validator(BaseUser), validationLevel="moderate"
        ),
        "lets wrong documents in",
    ),
    "a collation": (
        lambda data: data.create_collection(BASE, collation={"locale": "de"}),
        "has a default collation",
    ),
    "an index that is not unique": (
        lambda data: data[BASE].create_index("username", partialFilterExpression=STRING),
        "has an index username_1 in the way: unique username is needed",
    ),
    "an index that is unique": (
        lambda data: data[BASE].create_index("email", unique=True),
        "has an index email_1 in the way: email is needed",
    ),
    "an index over all values": (
        lambda data: data[BASE].create_index("username", unique=True),
        "has an index username_1 in the way",
    ),
    "a sparse index": (
        lambda data: data[BASE].create_index("email", sparse=True),
        "has an index email_1 in the way",
    ),
    "an index with a collation": (
        lambda data: data[BASE].create_index("email", collation={"locale": "de"}),
        "has an index email_1 in the way",
    ),
    "an index of the name on another field": (
        lambda data: data[BASE].create_index("mail", name="email_1"),
        "has an index email_1 in the way",
    ),
    "a descending index of the name": (
        lambda data: data[BASE].create_index([("email", -1)], name="email_1"),
        "has an index email_1 in the way",
    ),
}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_in_the_way_is_refused_with_a_sentence(database: Data, kind: str) -> None:
    make, sentence = OBSTACLES[kind]
    make(database)
    before = everything(database)
    with pytest.raises(Refused, match=f"target {BASE} {sentence}") as refusal:
        provision(database, migration)
    assert everything(database) == before
    assert obstacles(database, migration) == [refusal.value.message]


def test_an_obstacle_in_one_target_leaves_the_others_unmade(database: Data) -> None:
    database.command("create", LETTERS, viewOn="users", pipeline=[])
    with pytest.raises(Refused):
        provision(database, migration)
    assert set(everything(database)) <= {"system.views"}


def test_doubles_in_a_shared_collection_are_refused_without_their_values(database: Data) -> None:
    database[LETTERS].insert_many([{"email": "geheim@x.de"}, {"email": "geheim@x.de"}])
    with pytest.raises(Refused, match="holds two documents with the same key") as refusal:
        provision(database, migration)
    assert "geheim" not in refusal.value.message + refusal.value.hint
    assert "email, userId" in refusal.value.message
    assert set(everything(database)) == {LETTERS}, "another target was made before the refusal"
    database[LETTERS].delete_one({})
    assert provision(database, migration)[2]["indexes"] == ["email_1", "userId_1"]
