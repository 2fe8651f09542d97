"""Bad documents end in quarantine with a reason; all others of their chunk go through."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Int64, MaxKey, MinKey
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from mongosplit import pipelines, raw, reference
from mongosplit.errors import Failed
from mongosplit.ledger import chunks, quarantine
from mongosplit.open_run import OpenRun
from mongosplit.refusals import refusals
from mongosplit.users import Vendor, migration
from ops.seed import KINDS, users_with_kinds
from ops.seed_hostile import Draw
from tests.integration.conftest import (
    MOMENT,
    TARGETS,
    Begin,
    Client,
    Document,
    failing,
    found,
    ids,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    reasons,
    stored,
    user,
    users,
    verified,
    verified_all,
)

LETTERS = "newsletter_subscribers"
EMAIL = "kontakt.email"
READER = {"isVendor": False}
WHY = {
    **dict.fromkeys(("email_missing", "email_null", "email_empty"), ("missing", EMAIL)),
    **dict.fromkeys(("kontakt_missing", "kontakt_null", "kontakt_string"), ("missing", EMAIL)),
    **dict.fromkeys(("email_number", "kontakt_array"), ("wrong-type", EMAIL)),
    "username_duplicate": ("duplicate", "username"),
    "email_duplicate": ("duplicate", EMAIL),
    "last_login_string": ("wrong-type", "lastLogin"),
    "is_admin_string": ("wrong-type", "isAdmin"),
    "tags_string": ("wrong-type", "vendorProfile.tags"),
}


def listed(at: OpenRun) -> list[Document]:
    return quarantine.listed(at.ledger, at.run.id, limit=1000)


def all_the_others_are_split(at: OpenRun) -> bool:
    """Whether the targets hold the parts of what is not in quarantine, and verify agrees."""
    numbers = chunks.numbers(at.ledger, at.run.id, {})
    bad = set().union(*(quarantine.held(at.ledger, at.run.id, n) for n in numbers))
    expected: dict[str, list[bytes]] = {key: [] for key in migration.keys}
    for document in stored(at, "users"):
        if raw.field(document, "_id") not in bad:
            for key, part in reference.split(migration, document).items():
                expected[key].append(part)
    there = {key: stored(at, target.collection) for key, target in migration.keys.items()}
    return there == expected and verified_all(at) == 0


def hostile() -> tuple[list[Document], dict[str, Any]]:
    """Clean users and one of each kind; and the `_id` of each kind."""
    clean = [document for document, _ in users_with_kinds(len(KINDS) + 20, seed=5, hostile=0)]
    earlier = {"username": ["doppelt"], "email": ["doppelt@example.org"]}
    first = {"username": "doppelt", EMAIL: "doppelt@example.org", "kontakt.mailNewsletter": True}
    documents, made = [user(1, first), *clean], {}
    for kind, document in zip(KINDS, clean, strict=False):
        kind.make(document, Draw(kind.name), earlier)
        made[kind.name] = document["_id"]
    return documents, made


def test_each_kind_of_bad_document_ends_in_quarantine_and_all_others_go_through(
    begin: Begin,
) -> None:
    documents, made = hostile()
    at = begin(documents, chunk_size=1000)
    bad = {kind.name for kind in KINDS if kind.bad}
    outcomes = migrated_all(at)

    assert sum(outcome.quarantined for outcome in outcomes) == len(bad)
    assert reasons(at) == {made[name]: WHY[name] for name in bad}
    assert all_the_others_are_split(at)
    values = [text for document in documents for text in _texts(document)]
    for row in listed(at):
        assert not [text for text in values if text in row["message"]]
        assert row["message"].endswith(tuple("abcdefghijklmnopqrstuvwxyzBD"))
        assert (row["attempts"], row["target"] in TARGETS) == (1, True)
    tail = chunks.numbers(at.ledger, at.run.id, {"quarantined": {"$gt": 0}})
    assert [ledger_row(at, n)["quarantined"] for n in tail] == [len(bad)]


def _texts(value: Any) -> list[str]:
    """Every text of a document that is not a word of ours."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) and len(value) > 7 else []


def test_quarantine_is_written_in_the_transaction_of_the_chunk(
    begin: Begin, client: Client
) -> None:
    at = begin([user(1), user(2, {EMAIL: None})])
    with failing(client, "commitTransaction", times=1, errorCode=8), pytest.raises(Failed):
        migrated(at)
    client.admin.command("killAllSessions", [])
    assert listed(at) == []
    migrated(at)
    name = f"{at.ledger.database.name}."
    entry = client.local["oplog.rs"].find_one({"o.applyOps.ns": name + "quarantine"})
    assert entry is not None
    assert {name + "chunks", f"{at.data.name}.base_users"} <= {
        op["ns"] for op in entry["o"]["applyOps"]
    }


def test_of_duplicates_inside_a_chunk_the_first_id_wins(begin: Begin) -> None:
    documents = [user(3, {EMAIL: "d@x.de"}), user(1, {EMAIL: "d@x.de"}), user(2), user(4)]
    documents[3]["username"] = documents[2]["username"]
    at = begin(documents)
    assert migrated(at).quarantined == 2
    assert reasons(at) == {oid(3): ("duplicate", EMAIL), oid(4): ("duplicate", "username")}
    assert all_the_others_are_split(at)


def test_of_duplicates_across_chunks_the_first_to_be_migrated_wins(begin: Begin) -> None:
    changes = {EMAIL: "d@x.de", "username": "d"}
    at = begin([user(1, changes), user(2), user(3), user(4, changes)], chunk_size=2)
    assert [migrated(at, n).quarantined for n in (2, 1)] == [0, 1]
    assert reasons(at) == {oid(1): ("duplicate", "username")}
    assert ids(at, "base_users") == [oid(2), oid(3), oid(4)]
    assert verified_all(at) == 0


def test_an_email_twice_is_no_duplicate_where_only_one_subscribes(begin: Begin) -> None:
    at = begin([user(1), user(2, {EMAIL: "k1@example.org", "kontakt.mailNewsletter": False})])
    assert (migrated(at).quarantined, ids(at, "base_users")) == (0, [oid(1), oid(2)])


def test_ids_of_refused_types_are_quarantined_and_everything_else_goes_through(
    begin: Begin,
) -> None:
    odd: list[Any] = [{"a": 1}, None, MinKey(), MaxKey(), Code("x"), Code("x", {"a": 1})]
    odd += [{"$ref": "a", "$id": 1}]
    legal: list[Any] = [1, Int64(2), 2.5, float("nan"), "x", Binary(b"x", 4), True, MOMENT]
    legal += [DatetimeMS(2**60)]
    documents = [user(n, {"_id": value}) for n, value in enumerate([*odd, *legal, oid(99)])]
    at = begin(documents)
    migrated_all(at)
    assert [(row["reason"], row["path"]) for row in listed(at)] == [("id-type", "_id")] * len(odd)
    assert len(ids(at, "base_users")) == len(legal) + 1
    assert verified_all(at) == 0
    assert all_the_others_are_split(at)


def test_text_that_is_not_utf8_does_not_stop_its_chunk(begin: Begin) -> None:
    broken = bson.encode(user(3, {EMAIL: "k@x.de"})).replace(b"k@x.de", b"k\xff\xfe.de")
    at = begin([user(1), user(2, {EMAIL: None}), RawBSONDocument(broken)])
    assert migrated(at).quarantined == 1
    assert verified(at).did == "verified"


def test_an_id_that_cannot_be_decoded_is_quarantined_and_listed_as_any_other(begin: Begin) -> None:
    broken = bson.encode(user(1, {"_id": "an id", EMAIL: None})).replace(b"an id", b"an \xff\xfe")
    far = user(2, {"_id": DatetimeMS(2**60), EMAIL: None})
    at = begin([RawBSONDocument(broken), far, user(3)])
    migrated_all(at)
    assert reasons(at) == dict.fromkeys(("an \ufffd\ufffd", far["_id"]), ("missing", EMAIL))
    at.data.command("collMod", "base_users", validationLevel="off")
    at.data["base_users"].insert_many([RawBSONDocument(broken), far])
    assert verified_all(at) == 2
    assert {found_id for found_id, *_ in found(at)} == set(reasons(at))


def test_a_document_the_server_refuses_and_the_schema_does_not_is_quarantined_alone(
    begin: Begin,
) -> None:
    at = begin([*users(4), user(5, {"vendorProfile.slogan": "no"})])
    at.source.update_one({"_id": oid(2)}, {"$set": {"vendorProfile.slogan": "no"}})
    vendors = {"$and": [pipelines.validator(Vendor), {"slogan": {"$ne": "no"}}]}
    at.data.command("collMod", "vendors", validator=vendors)
    assert migrated(at).quarantined == 2
    assert reasons(at) == {oid(2): ("refused", ""), oid(5): ("refused", "")}
    assert {row["target"] for row in listed(at)} == {"vendors"}
    assert all_the_others_are_split(at)


@pytest.mark.parametrize("bad", [range(1, 61), range(1, 101, 2), range(37, 38)])
def test_however_many_the_server_refuses_the_rest_of_the_chunk_goes_through(
    begin: Begin, bad: range
) -> None:
    refused = {"vendorProfile.slogan": "no"}
    at = begin([user(n, refused if n in bad else None) for n in range(1, 101)])
    vendors = {"$and": [pipelines.validator(Vendor), {"slogan": {"$ne": "no"}}]}
    at.data.command("collMod", "vendors", validator=vendors)
    assert migrated(at).quarantined == len(bad)
    assert reasons(at) == {oid(n): ("refused", "") for n in bad}
    assert all_the_others_are_split(at)


def test_an_index_of_the_application_quarantines_what_it_cannot_hold(begin: Begin) -> None:
    places = {n: {"type": "Point", "coordinates": [n, 500 if n % 3 else 50]} for n in range(1, 31)}
    at = begin([user(n, {"vendorProfile.location": place}) for n, place in places.items()])
    at.data["vendors"].create_index([("location", "2dsphere")])
    assert migrated(at).quarantined == 20
    assert set(reasons(at)) == {oid(n) for n in places if n % 3}
    assert all_the_others_are_split(at)


def test_a_refusal_whose_cause_is_not_the_document_quarantines_nobody() -> None:
    part = RawBSONDocument(bson.encode({"_id": 1}))
    full = BulkWriteError({"writeErrors": [{"op": part, "code": 14031}]})
    with pytest.raises(BulkWriteError):
        refusals(full)


def test_a_user_whose_part_would_be_too_large_is_quarantined_and_one_that_fits_goes_through(
    begin: Begin,
) -> None:
    lean = {"_id": oid(1), "isVendor": True, "kontakt": {"email": "a@b.c"}}
    room = raw.MAX_DOCUMENT_BYTES - len(bson.encode(lean | {"adressen": [{"ort": ""}]}))
    # Three parts have the email: each fits, and all of them in one row do not.
    fits = {EMAIL: 500_000 * "k", "vendorProfile.beschreibung": 15_400_000 * "x"}
    large = lean | {"adressen": [{"ort": room * "x"}]}
    at = begin([large, user(2), user(3, fits)], chunk_size=2)
    migrated_all(at)
    assert reasons(at) == {oid(1): ("too-large", "")}
    assert sum(map(len, stored(at, "vendors"))) > 15_900_000
    assert all_the_others_are_split(at)
