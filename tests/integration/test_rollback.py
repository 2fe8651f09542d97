"""Rolling one chunk back: what is taken out, what is kept, what is given back, and by whom not."""

from __future__ import annotations

from typing import Any

import pytest
from bson import Code

from mongosplit import digest, provision, rollback
from mongosplit.errors import FenceBusy, Refused
from mongosplit.ledger import asks, audit, chunks, fences, kept, plans, runs
from mongosplit.ledger.claims import Attempt
from mongosplit.model import ChunkState, Outcome, RunState
from mongosplit.mongo import exact
from mongosplit.open_run import OpenRun
from mongosplit.plan import walk
from mongosplit.users import migration
from tests.integration.conftest import (
    ABSENT,
    TARGETS,
    Begin,
    Client,
    Document,
    at_once,
    content,
    failing,
    found,
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

OPERATOR = "an operator"


def rolled_back(at: OpenRun, n: int = 1, *, on_change: str = "keep", **attempt: Any) -> Outcome:
    """Ask for the chunk's rollback, and do it as a worker does."""
    asks.undo(at.ledger, at.run.id, {"n": n}, on_change=on_change, actor=OPERATOR)
    return rollback.rollback_chunk(at, n, Attempt("r1@here", **attempt))


def everything(at: OpenRun) -> dict[str, list[bytes]]:
    return {name: stored(at, name) for name in TARGETS}


def kept_documents(at: OpenRun, reason: str = "changed") -> list[Document]:
    rows = at.ledger["kept"].find({"reason": reason})
    return [row["document"] for row in rows]


def test_a_chunk_is_taken_out_and_its_neighbours_stay(begin: Begin) -> None:
    at = begin(users(30), chunk_size=10)
    migrated_all(at)
    outcome = rolled_back(at, 2)
    assert (outcome.did, outcome.docs, outcome.kept) == ("rolled back", 10, 0)
    there = [oid(n) for n in (*range(1, 11), *range(21, 31))]
    assert [ids(at, name) for name in TARGETS] == [there] * 3
    assert state_of(at, 2) is ChunkState.ROLLED_BACK
    row = ledger_row(at, 2)
    assert (row["docs"], row["parts"], row["quarantined"]) == (0, {}, 0)
    assert verified_all(at) == 0


def test_after_its_rollback_a_chunk_is_migrated_again_to_the_same_bytes(begin: Begin) -> None:
    at = begin(users(10))
    migrated(at)
    before = everything(at)
    rolled_back(at)
    assert migrated(at).did == "nothing"  # an old message must not bring it back
    assert asks.reopen(at.ledger, at.run.id, ChunkState.ROLLED_BACK, {}, actor=OPERATOR) == 1
    assert migrated(at).did == "migrated"
    assert everything(at) == before


@pytest.mark.parametrize("state", [ChunkState.PENDING, ChunkState.ROLLED_BACK, ChunkState.FAILED])
def test_what_is_not_applied_cannot_be_asked_to_roll_back(begin: Begin, state: ChunkState) -> None:
    at = begin(users(3))
    at.ledger["chunks"].update_one({"n": 1}, {"$set": {"state": state}})
    assert asks.undo(at.ledger, at.run.id, {"n": 1}, on_change="keep", actor=OPERATOR) == 0
    before = content(at)
    assert rollback.rollback_chunk(at, 1, Attempt("r1@here")).did == "nothing"
    assert content(at) == before


def test_a_message_that_nobody_asks_for_any_more_does_nothing(begin: Begin) -> None:
    at = begin(users(5))
    migrated(at)
    rolled_back(at)
    asks.reopen(at.ledger, at.run.id, ChunkState.ROLLED_BACK, {}, actor=OPERATOR)
    migrated(at)
    before = content(at)
    assert rollback.rollback_chunk(at, 1, Attempt("r1@here")).did == "nothing"
    assert content(at) == before


def test_of_many_rollbacks_and_migrations_at_once_one_thing_is_true(begin: Begin) -> None:
    at = begin(users(20))
    migrated(at)
    asks.undo(at.ledger, at.run.id, {"n": 1}, on_change="keep", actor=OPERATOR)

    def work(number: int) -> str:
        try:
            if number % 2:
                return migrated(at).did
            return rollback.rollback_chunk(at, 1, Attempt(f"r{number}@here")).did
        except FenceBusy:
            return "waits"

    assert at_once(6, work).count("rolled back") == 1
    assert (state_of(at), [ids(at, name) for name in TARGETS]) == (
        ChunkState.ROLLED_BACK,
        [[], [], []],
    )


def test_changed_documents_are_kept_whole_before_they_go(begin: Begin) -> None:
    at = begin(users(5))
    migrated(at)
    at.data["vendors"].update_one({"_id": oid(2)}, {"$set": {"slogan": "Neu!"}})
    changed = at.data["vendors"].find_one({"_id": oid(2)})
    outcome = rolled_back(at)
    assert outcome.kept == 1
    assert kept_documents(at) == [changed]
    [row] = kept.listed(at.ledger, at.run.id, reason="changed", limit=10)
    assert (row["document_id"], row["collection"], row["chunk"]) == (oid(2), "vendors", 1)
    assert kept.count(at.ledger, at.run.id) == 1
    assert [ids(at, name) for name in TARGETS] == [[], [], []]


def test_a_document_that_was_changed_and_whose_source_is_gone_is_kept(begin: Begin) -> None:
    at = begin(users(3))
    migrated(at)
    at.data["base_users"].update_one({"_id": oid(2)}, {"$set": {"isActive": False}})
    there = at.data["base_users"].find_one({"_id": oid(2)})
    at.source.delete_one({"_id": oid(2)})
    rolled_back(at)
    assert there in kept_documents(at)


def test_what_nobody_changed_is_not_kept_though_the_source_has_moved_on(begin: Begin) -> None:
    at = begin(users(3))
    migrated(at)
    at.source.update_one({"_id": oid(2)}, {"$set": {"username": "someone else"}})
    assert rolled_back(at).kept == 0


def test_what_was_changed_to_what_the_source_derives_to_is_not_kept(begin: Begin) -> None:
    at = begin(users(3))
    migrated(at)
    for documents in (at.source, at.data["base_users"]):
        documents.update_one({"_id": oid(2)}, {"$set": {"username": "someone else"}})
    assert rolled_back(at).kept == 0


def test_one_document_may_be_kept_at_each_of_several_rollbacks(begin: Begin) -> None:
    at = begin(users(1))
    for slogan in ("eins", "zwei"):
        migrated(at)
        at.data["vendors"].update_one({}, {"$set": {"slogan": slogan}})
        rolled_back(at)
        asks.reopen(at.ledger, at.run.id, ChunkState.ROLLED_BACK, {}, actor=OPERATOR)
    assert [document["slogan"] for document in kept_documents(at)] == ["eins", "zwei"]


def test_on_change_fail_leaves_the_chunk_as_it_is_and_says_how_many_where(begin: Begin) -> None:
    at = begin(users(5))
    migrated(at)
    at.data["vendors"].update_many({"_id": {"$lt": oid(3)}}, {"$set": {"slogan": "Neu!"}})
    before = everything(at)
    sentence = f"chunk 1 of {at.run.id}: 2 documents were changed in vendors since it was migrated"
    with pytest.raises(Refused, match=sentence):
        rolled_back(at, on_change="fail")
    with pytest.raises(Refused, match=sentence):
        rollback.refuse_changed(at, 1)
    assert (everything(at), state_of(at)) == (before, ChunkState.MIGRATED)
    assert kept.count(at.ledger, at.run.id) == 0
    rollback.refuse_changed(begin_again(at), 2)


def begin_again(at: OpenRun) -> OpenRun:
    """The tail: nothing in it was changed."""
    assert chunks.get(at.ledger, at.run.id, 2).tail
    return at


ADOPTABLE: list[tuple[str, Document]] = [
    ("no owner", {"_id": oid(900), "email": "k1@example.org", "isSubscribed": False}),
    ("null owner", {"_id": oid(900), "userId": None, "email": "k1@example.org", "odd": Code("x")}),
    ("owner in the middle", {"_id": "text", "email": "k1@example.org", "userId": None, "z": [1]}),
    ("an _id that is a document", {"_id": {"b": 1, "a": 2}, "email": "k1@example.org"}),
]


@pytest.mark.parametrize("before", [found for _, found in ADOPTABLE], ids=[n for n, _ in ADOPTABLE])
def test_an_adopted_document_gets_its_pre_image_back_to_the_byte(
    begin: Begin, before: Document
) -> None:
    at = begin(users(2))
    at.data["newsletter_subscribers"].insert_one(before)
    image = stored(at, "newsletter_subscribers")
    assert migrated(at).quarantined == 0
    assert stored(at, "newsletter_subscribers") != image
    assert verified(at).mismatches == 0
    assert rolled_back(at).kept == 0
    assert stored(at, "newsletter_subscribers") == image
    assert at.ledger["kept"].count_documents({}) == 0
    asks.reopen(at.ledger, at.run.id, ChunkState.ROLLED_BACK, {}, actor=OPERATOR)
    assert (migrated(at).did, verified(at, number=2).mismatches) == ("migrated", 0)


def test_what_the_application_changed_in_an_adopted_document_stands(begin: Begin) -> None:
    at = begin(users(1))
    subscribers = at.data["newsletter_subscribers"]
    subscribers.insert_one({"_id": oid(900), "email": "k1@example.org", "isSubscribed": True})
    migrated(at)
    subscribers.update_one({}, {"$set": {"isSubscribed": False}})
    changed = subscribers.find_one()
    assert rolled_back(at).kept == 1
    assert subscribers.find_one() == {
        "_id": oid(900),
        "email": "k1@example.org",
        "isSubscribed": False,
    }
    assert kept_documents(at) == [changed]


def test_an_adopted_document_that_the_application_deleted_stays_deleted(begin: Begin) -> None:
    at = begin(users(1))
    subscribers = at.data["newsletter_subscribers"]
    subscribers.insert_one({"_id": oid(900), "email": "k1@example.org"})
    migrated(at)
    subscribers.delete_one({})
    assert rolled_back(at).kept == 0
    assert ids(at, "newsletter_subscribers") == []


def test_subscribers_of_the_application_are_never_touched(begin: Begin) -> None:
    at = begin(users(5))
    own = [{"_id": oid(n), "email": f"other{n}@example.org"} for n in (2, 700)]
    at.data["newsletter_subscribers"].insert_one(own[1])
    image = stored(at, "newsletter_subscribers")
    migrated(at)
    rolled_back(at)
    assert stored(at, "newsletter_subscribers") == image


def test_the_quarantine_of_a_chunk_goes_with_it(begin: Begin) -> None:
    at = begin([*users(3), user(4, {"kontakt.email": ABSENT})])
    assert migrated(at).quarantined == 1
    rolled_back(at)
    assert at.ledger["quarantine"].count_documents({"run": at.run.id}) == 0
    assert verified(at).mismatches == 0


def test_a_rollback_that_is_torn_leaves_everything_as_it_was(begin: Begin, client: Client) -> None:
    at = begin(users(5))
    migrated(at)
    before = everything(at)
    with (
        failing(client, "commitTransaction", errorCode=11601),
        pytest.raises(Exception, match="1160"),
    ):
        rolled_back(at)
    assert (everything(at), state_of(at)) == (before, ChunkState.MIGRATED)
    assert rolled_back(at).did == "rolled back"


def test_what_a_rollback_left_behind_is_found(begin: Begin) -> None:
    at = begin(users(2))
    migrated(at)
    rolled_back(at)
    at.data["base_users"].insert_one(
        {"_id": oid(1), "email": "x@example.org", "isAdmin": False, "isActive": True}
    )
    assert verified(at).mismatches == 1
    assert found(at) == {(oid(1), "base_users", "", "ghost")}


def test_the_audit_has_what_was_asked_and_what_was_done(begin: Begin) -> None:
    at = begin(users(4))
    migrated(at)
    rolled_back(at)
    while audit.waiting(at.ledger):
        audit.chain(at.ledger)
    told = [
        (row["action"], row["actor"], row["facts"])
        for row in audit.entries(at.ledger, run=at.run.id)
        if row["action"] in ("ask", "chunk")
    ]
    (_, _, there), (_, asker, asked), (_, worker, done) = told
    assert (there["from"], there["to"], there["docs"]) == ("pending", "migrated", 4)
    assert (asker, asked) == (OPERATOR, {"ask": "rollback", "chunks": "1"})
    assert (worker, done["from"], done["to"], done["docs"]) == (
        "r1@here",
        "migrated",
        "rolled_back",
        4,
    )
    assert audit.check(at.ledger).broken is None


def test_a_digest_tells_a_chunk_before_and_after_apart(begin: Begin) -> None:
    at = begin(users(6), chunk_size=3)
    at.data["newsletter_subscribers"].insert_one({"_id": oid(900), "email": "k1@example.org"})
    empty = digest.of_chunk(at, 1)
    migrated(at)
    assert all(empty[name] != value for name, value in digest.of_chunk(at, 1).items())
    migrated(at, 2)
    rolled_back(at)
    assert digest.of_chunk(at, 1) == empty


def test_closing_the_rest_keeps_late_messages_from_migrating(begin: Begin) -> None:
    at = begin(users(6), chunk_size=3)
    migrated(at)
    assert asks.close_rest(at.ledger, at.run.id, milliseconds=2000)
    assert [state_of(at, n) for n in (1, 2)] == [ChunkState.MIGRATED, ChunkState.ROLLED_BACK]
    assert migrated(at, 2).did == "nothing"
    assert ids(at, "base_users") == [oid(n) for n in (1, 2, 3)]


def test_closing_waits_a_bounded_time_for_a_transaction_that_holds_a_fence(begin: Begin) -> None:
    at = begin(users(6), chunk_size=3)
    with at.client.start_session() as session, session.start_transaction():
        fences.take(at.ledger, session, at.run.id, 1)
        assert not asks.close_rest(at.ledger, at.run.id, milliseconds=300)
    assert asks.close_rest(at.ledger, at.run.id, milliseconds=2000)


def test_a_whole_run_leaves_the_database_as_it_was(
    client: Client, database: Any, ledger: Any, facts: Document
) -> None:
    own = [{"_id": oid(900), "email": "k1@example.org"}, {"_id": "x", "email": "y@example.org"}]
    database.newsletter_subscribers.insert_many(own)
    database.newsletter_subscribers.create_index("createdAt", name="own")
    database.users.insert_many(users(12))
    before = description(database)
    at = started(client, database, ledger, facts)
    migrated_all(at)
    for n in chunks.numbers(at.ledger, at.run.id, {}):
        rolled_back(at, n)
    stayed = provision.take_away(at.data, runs.get(ledger, at.run.id).provisioned)
    assert (stayed, description(database)) == ([], before)
    assert provision.take_away(at.data, runs.get(ledger, at.run.id).provisioned) == []


def test_a_collection_that_holds_foreign_documents_stays(
    client: Client, database: Any, ledger: Any, facts: Document
) -> None:
    database.users.insert_many(users(2))
    at = started(client, database, ledger, facts)
    foreign = {"_id": oid(70), "email": "f@example.org", "isAdmin": False, "isActive": True}
    database.base_users.insert_one(foreign)
    [sentence] = provision.take_away(at.data, runs.get(ledger, at.run.id).provisioned)
    assert sentence == "base_users stays: it holds documents that this run did not write"
    assert sorted(database.list_collection_names()) == ["base_users", "users"]
    assert list(database.base_users.find()) == [foreign]
    assert list(database.base_users.index_information()) == ["_id_"]
    database.base_users.insert_one({"anything": "goes again"})


def started(client: Client, database: Any, ledger: Any, facts: Document) -> OpenRun:
    """A run as `start` begins it: what is to be made is noted before it is made."""
    run = runs.begin(ledger, name="users", facts=facts, holder=OPERATOR)
    plans.write_plan(ledger, run.id, walk(database.users, chunk_size=5))
    runs.move(ledger, run.id, RunState.PLANNED)
    data = exact(database)
    runs.note(ledger, run.id, provisioned=provision.missing(data, migration))
    provision.provision(data, migration)
    return OpenRun(client, ledger, runs.move(ledger, run.id, RunState.RUNNING), migration)


def description(database: Any) -> dict[str, Any]:
    """Every byte of the documents, and the options and indexes of every collection."""
    return {
        "documents": database.command("dbHash")["collections"],
        "options": {one["name"]: _options(one["options"]) for one in database.list_collections()},
        "indexes": {
            name: database[name].index_information() for name in database.list_collection_names()
        },
    }


def _options(options: Document) -> Document:
    # MongoDB writes out these two defaults with the first validator, and nothing takes them off.
    defaults = {"validationLevel": "strict", "validationAction": "error"}
    return {k: v for k, v in options.items() if defaults.get(k) != v}
