"""Bad documents end in quarantine with a reason; all others of their chunk go through."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Binary, Code, Int64, MaxKey, MinKey, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

from mongosplit import raw, reference
from mongosplit.ledger import chunks, quarantine
from mongosplit.open_run import OpenRun
from mongosplit.users import migration
from ops.seed import KINDS, users_with_kinds
from ops.seed_hostile import Draw
from tests.integration.conftest import (
    ABSENT,
    MOMENT,
    TARGETS,
    Begin,
    Client,
    Document,
    failing,
    ids,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    state_of,
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


def reasons(at: OpenRun) -> dict[Any, tuple[str, str]]:
    return {row["source_id"]: (row["reason"], row["path"]) for row in listed(at)}


def subscriber(n: int, email: str, **more: Any) -> Document:
    """A document of the application, of the shape the collection's validator asks for."""
    shape = {"type": "kunde", "isSubscribed": False, "preferences": {}, "source": "messe"}
    return {"_id": oid(n), "email": email, **shape, **more}


def kept(at: OpenRun) -> list[Document]:
    return [dict(row) for row in at.ledger["kept"].find()]


def all_the_others_are_split(at: OpenRun) -> bool:
    """Whether the targets hold exactly the parts of what is not in quarantine, and verify agrees."""
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
    with failing(client, "commitTransaction", errorCode=8, times=6), pytest.raises(Exception):
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
    legal: list[Any] = [1, Int64(2), 2.5, float("nan"), "x", Binary(b"x", 4), True, MOMENT]
    documents = [user(n, {"_id": value}) for n, value in enumerate([*odd, *legal, oid(99)])]
    at = begin(documents)
    migrated_all(at)
    assert [(row["reason"], row["path"]) for row in listed(at)] == [("id-type", "_id")] * len(odd)
    assert len(ids(at, "base_users")) == len(legal) + 1
    assert verified_all(at) == 0
    assert all_the_others_are_split(at)


def test_text_that_is_not_utf8_does_not_stop_its_chunk(begin: Begin) -> None:
    at = begin([user(1), user(2, {EMAIL: None})])
    broken = bson.encode(user(3, {EMAIL: "k@x.de"})).replace(b"k@x.de", b"k\xff\xfe.de")
    at.source.insert_one(RawBSONDocument(broken))
    at.ledger["chunks"].update_one({"n": 1}, {"$unset": {"ranges.0.hi": 1}})
    assert migrated(at).quarantined == 1
    assert verified(at).did == "verified"
