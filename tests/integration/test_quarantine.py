"""Quarantine in the ledger: releases that last, all problems of one document, rows by any id."""

from __future__ import annotations

from typing import Any

import bson
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, Regex, json_util
from bson.raw_bson import RawBSONDocument

from mongosplit import raw, rollback, split_so_far
from mongosplit.document_text import CANONICAL, canonical, readable
from mongosplit.errors import DocumentError
from mongosplit.keyspace import Bracket
from mongosplit.ledger import asks, kept, quarantine
from mongosplit.ledger.book import Ledger
from mongosplit.ledger.claims import Attempt
from mongosplit.ledger.kept import Kept
from mongosplit.ledger.quarantine import ALL, Bad, Which
from mongosplit.model import Chunk, ChunkState, Run
from mongosplit.mongo import Session, transact
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value
from mongosplit.split_so_far import SplitSoFar
from ops.seed import KINDS, users_with_kinds
from ops.seed_hostile import Draw
from tests.integration.conftest import (
    MOMENT,
    Begin,
    Client,
    Document,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    reasons,
    user,
)

EMAIL = "kontakt.email"
ANNA = {"actor": "anna", "because": "agreed with the shop"}
TEXT = raw.encode("x")


def only(*ids: Any) -> Which:
    return Which(ids=ids)


def release(at: OpenRun, *ids: Any, **told: str) -> int:
    return quarantine.release(at.ledger, at.run.id, only(*ids), **(ANNA | told))


def released(at: OpenRun) -> dict[Any, Any]:
    """Who is released, by whom and why."""
    rows = quarantine.listed(at.ledger, at.run.id, limit=100)
    return {
        row["source_id"]: (row["released"]["actor"], row["released"]["because"])
        for row in rows
        if "released" in row
    }


def mend(at: OpenRun) -> None:
    asks.mend(at.ledger, at.run.id, asks.EVERYWHERE, actor="a test")
    migrated(at)


def rolled_back(at: OpenRun) -> None:
    where = {"n": 1}
    asks.undo(at.ledger, at.run.id, where, on_change="keep", actor="a test")
    rollback.rollback_chunk(at, 1, Attempt("w1@here"))
    assert ledger_row(at)["state"] == "rolled_back"


def again(at: OpenRun) -> None:
    """Migrate the chunk once more."""
    at.ledger["chunks"].update_one({"n": 1}, {"$set": {"state": "pending"}})
    migrated(at)


def put(at: OpenRun, n: int, email: Any) -> None:
    at.source.update_one({"_id": oid(n)}, {"$set": {EMAIL: email}})


def test_a_released_document_stays_released_while_it_is_bad_and_leaves_when_it_is_good(
    begin: Begin,
) -> None:
    at = begin([user(1), user(2, {EMAIL: None}), user(3, {EMAIL: 3})])
    migrated(at)
    assert release(at, oid(2)) == 1
    put(at, 2, 17)
    mend(at)
    assert reasons(at)[oid(2)] == ("wrong-type", EMAIL)
    assert released(at) == {oid(2): ("anna", "agreed with the shop")}
    assert quarantine.released(at.ledger, at.run.id) == 1

    put(at, 2, "k2@example.org")
    mend(at)
    assert set(reasons(at)) == {oid(3)}
    put(at, 3, "k3@example.org")
    mend(at)
    assert at.ledger["quarantine"].count_documents({}) == 0


def test_a_release_outlasts_a_rollback_of_its_chunk(begin: Begin) -> None:
    at = begin([user(1), user(2, {EMAIL: None}), user(3, {EMAIL: 3})])
    migrated(at)
    release(at, oid(2))
    rolled_back(at)
    assert reasons(at) == {}
    assert quarantine.by_reason(at.ledger, at.run.id) == []
    assert quarantine.released(at.ledger, at.run.id) == 0
    again(at)
    assert set(reasons(at)) == {oid(2), oid(3)}
    assert released(at) == {oid(2): ("anna", "agreed with the shop")}
    assert at.ledger["quarantine"].count_documents({}) == 2


def test_a_document_that_was_good_between_two_rollbacks_is_no_longer_released(
    begin: Begin,
) -> None:
    at = begin([user(1), user(2, {EMAIL: None})])
    migrated(at)
    release(at, oid(2))
    rolled_back(at)
    put(at, 2, "k2@example.org")
    again(at)
    assert reasons(at) == {}
    rolled_back(at)
    put(at, 2, None)
    again(at)
    assert (set(reasons(at)), released(at)) == ({oid(2)}, {})


def test_releasing_twice_keeps_the_first_word_and_can_be_taken_back(begin: Begin) -> None:
    at = begin([user(1, {EMAIL: None}), user(2, {EMAIL: 7}), user(3)])
    migrated(at)
    assert (release(at, oid(1)), release(at, oid(1), oid(2), actor="otto")) == (1, 1)
    assert {who for who, _ in released(at).values()} == {"anna", "otto"}
    assert released(at)[oid(1)][0] == "anna"
    assert quarantine.take_back(at.ledger, at.run.id, Which(reason="missing")) == 1
    assert quarantine.take_back(at.ledger, at.run.id, Which(reason="missing")) == 0
    assert set(released(at)) == {oid(2)}


def test_a_release_said_while_the_chunk_is_tried_again_is_not_lost(
    client: Client, ledger: Ledger, planning: Run
) -> None:
    bad = [Bad(TEXT, DocumentError("missing", EMAIL, "it is missing"))]
    tries = []

    def body(session: Session) -> None:
        assert ledger["quarantine"].find_one({"run": planning.id}, session=session)
        if not tries:
            assert quarantine.release(ledger, planning.id, ALL, **ANNA) == 1
        tries.append(1)
        quarantine.replace(ledger, session, planning.id, 1, bad, attempts=2)

    with client.start_session() as session:
        quarantine.replace(ledger, session, planning.id, 1, bad, attempts=1)
        transact(session, body)
    assert len(tries) == 2
    [row] = quarantine.listed(ledger, planning.id, limit=9)
    assert (row["attempts"], row["released"]["actor"]) == (2, "anna")


def test_rows_are_found_by_ids_of_every_type_and_by_no_other(
    client: Client, ledger: Ledger, planning: Run
) -> None:
    ids: list[Any] = [{"a": 1}, {"$foo": {"$gt": 0}}, None, MinKey(), MaxKey(), Code("x"), 7, "x"]
    ids += [2.5, float("nan"), Binary(b"x", 4), True, MOMENT, DatetimeMS(2**60), oid(1)]
    bad = [Bad(raw.encode(found), DocumentError("missing", EMAIL, "no")) for found in ids]
    with client.start_session() as session:
        quarantine.replace(ledger, session, planning.id, 4, bad, attempts=1)
    for found in ids:
        [row] = quarantine.rows(ledger, planning.id, only(found))
        assert row.source_id == raw.encode(found)
        assert row.facts["chunk"] == 4
    assert [*quarantine.rows(ledger, planning.id, only(Int64(7), "y", 8))] == [
        *quarantine.rows(ledger, planning.id, only(7))
    ]
    assert quarantine.chunks_of(ledger, planning.id, only(7, "y")) == [4]
    assert quarantine.count(ledger, planning.id) == len(ids)
    assert quarantine.types(ledger, planning.id) == {
        *(Bracket.OBJECT, Bracket.NULL, Bracket.MIN_KEY, Bracket.MAX_KEY, Bracket.JAVASCRIPT),
        *(Bracket.NUMBER, Bracket.NAN, Bracket.STRING, Bracket.BIN_DATA, Bracket.BOOL),
        *(Bracket.DATE, Bracket.OBJECT_ID),
    }


def so_far(at: OpenRun, source_id: Any) -> SplitSoFar | None:
    with at.client.start_session() as session:
        encoded = raw.encode(source_id)
        return transact(session, lambda it: split_so_far.of_document(at, encoded, it))


def sentences(at: OpenRun, source_id: Any) -> dict[str, Any]:
    """What is said of each target: a state, or sentences."""
    found = so_far(at, source_id)
    assert found is not None
    return {
        part.target: [str(problem) for problem in part.problems] or part.state
        for part in found.parts
    }


def test_the_problems_so_far_hold_the_one_in_quarantine_in_the_same_words(begin: Begin) -> None:
    clean = [document for document, _ in users_with_kinds(len(KINDS) + 20, seed=5, hostile=0)]
    earlier = {"username": ["doppelt"], "email": ["doppelt@example.org"]}
    for kind, document in zip(KINDS, clean, strict=False):
        kind.make(document, Draw(kind.name), earlier)
    first = {"username": "doppelt", EMAIL: "doppelt@example.org", "kontakt.mailNewsletter": True}
    odd = user(3, {"_id": {"nr": 4}})
    at = begin([user(1, first), *clean, odd], chunk_size=1000)
    migrated_all(at)
    rows = quarantine.listed(at.ledger, at.run.id, limit=100)
    assert len(rows) == 1 + sum(kind.bad for kind in KINDS)
    for row in rows:
        found = so_far(at, row["source_id"])
        assert found is not None
        problems = [problem for part in found.parts for problem in part.problems]
        assert (row["reason"], row["path"], row["message"]) in {
            (problem.reason, problem.path, str(problem)) for problem in problems
        }
        assert all(problem.target in row["message"] for problem in problems[:1] if row["target"])


def test_every_problem_of_every_target_is_named(begin: Begin) -> None:
    bad = {EMAIL: 3, "lastLogin": "gestern", "vendorProfile.tags": "obst", "username": "käthe1"}
    at = begin([user(1), user(2, bad), user(3, bad | {"isVendor": False})])
    migrated(at)
    base = [
        "kontakt.email is of type int; base_users.email must be string",
        "lastLogin is of type string; base_users.lastLogin must be date",
        "base_users already has a document with the same username, from username",
    ]
    vendors = {
        "vendorProfile.tags is of type string; vendors.tags must be array",
        "kontakt.email is of type int; vendors.businessEmail must be string",
    }
    said = sentences(at, oid(2))
    assert said["base_users"] == base
    assert set(said["vendors"]) == vendors
    assert sentences(at, oid(3))["vendors"] == "nothing"


def test_a_part_that_would_be_fine_is_whole_and_a_taken_key_is_a_problem(begin: Begin) -> None:
    at = begin([user(1), user(2, {EMAIL: "k1@example.org"})])
    migrated(at)
    taken = "newsletter_subscribers already has a document with the same email, from kontakt.email"
    assert sentences(at, oid(2)) == {
        "base_users": "whole",
        "vendors": "whole",
        "newsletter_subscribers": [taken],
    }


def test_a_value_of_a_wrong_type_is_not_taken_for_a_pattern_or_a_query(begin: Begin) -> None:
    odd = [user(2, {EMAIL: Regex(".*")}), user(3, {EMAIL: {"$gt": ""}})]
    at = begin([user(1), *odd])
    migrated(at)
    for n, kind in ((2, "regex"), (3, "object")):
        [sentence] = sentences(at, oid(n))["newsletter_subscribers"]
        where = "newsletter_subscribers.email must be string"
        assert sentence == f"kontakt.email is of type {kind}; {where}"


def test_of_a_document_that_was_deleted_nothing_is_made(begin: Begin) -> None:
    at = begin([user(1, {EMAIL: None}), user(2)])
    migrated(at)
    at.source.delete_one({"_id": oid(1)})
    assert so_far(at, oid(1)) is None


def test_a_document_as_extended_json_is_byte_for_byte_the_stored_one() -> None:
    inner: Document = {"$id": 1, "$ref": "a", "x": [Int64(1), 1, 1.0, Decimal128("1.0")]}
    document: Document = {"_id": oid(1), "when": DatetimeMS(2**60), "old": DatetimeMS(-(2**60))}
    document |= {"b": Binary(b"\0" * 16, 4), "r": Regex("x", 2), "names": {"$a": 1, "b.c": None}}
    document |= {"m": MOMENT, "text": "Käthe 🌻", "min": MinKey(), "code": Code("x")}
    stored = bson.encode(document)
    loaded = json_util.loads(canonical(Value(3, stored)), json_options=CANONICAL)
    assert bson.encode(loaded) == stored
    assert readable(raw.encode({"d": inner}))["d"] == inner


def test_text_that_is_no_utf8_keeps_its_bytes_in_extended_json() -> None:
    stored = bson.encode({"a": "k@x.de", "nam!": 1})
    stored = stored.replace(b"k@x.de", b"k\xff\xfe.de").replace(b"nam!", b"nam\xe4")
    text = canonical(Value(3, stored))
    assert text.isascii()
    loaded = json_util.loads(text, json_options=CANONICAL)
    [(_, value), (name, _)] = raw.elements(stored)
    assert loaded["a"].encode("utf-8", "surrogateescape") == value.data[4:-1] == b"k\xff\xfe.de"
    assert list(loaded) == ["a", name]


def test_kept_documents_of_every_reason_are_listed_counted_and_exported_whole(
    client: Client, ledger: Ledger, planning: Run
) -> None:
    broken = bson.encode({"_id": 7, "x": "k@x.de"}).replace(b"k@x.de", b"k\xff\xfe.de")
    documents = [bson.encode({"_id": 5, "when": DatetimeMS(2**60)}), broken]
    found = [Kept("vendors", raw.encode(5), documents[0]), Kept("vendors", TEXT, documents[1])]
    adoption = kept.Adoption("letters", "userId", raw.encode(9), documents[0], raw.encode(1))
    with client.start_session() as session:
        chunk = ledger_chunk(planning)
        kept.save(ledger, session, chunk, found)
        kept.keep_adopted(ledger, session, planning.id, 1, [adoption])
    assert kept.by_reason(ledger, planning.id) == [
        {"reason": "adopted", "count": 1},
        {"reason": "changed", "count": 2},
    ]
    assert len(kept.listed(ledger, planning.id, limit=9)) == 2
    rows = kept.listed(ledger, planning.id, reason=None, limit=9)
    assert {row["document_id"] for row in rows} == {5, "x", 9}
    assert not any("document" in row for row in rows)
    whole = [row["document"].data for row in kept.exported(ledger, planning.id)]
    assert sorted(whole) == sorted([*documents, documents[0]])


def ledger_chunk(run: Run) -> Chunk:
    return Chunk(run.id, 1, (), ChunkState.MIGRATED, fence=3, planned=1)


def test_a_row_whose_id_is_no_utf8_is_listed_released_and_streamed(begin: Begin) -> None:
    broken = bson.encode(user(1, {"_id": "an id", EMAIL: None})).replace(b"an id", b"an \xff\xfe")
    at = begin([RawBSONDocument(broken), user(3)])
    migrated_all(at)
    [row] = quarantine.rows(at.ledger, at.run.id)
    assert row.source_id == raw.field(broken, "_id")
    whole = Which(reason="missing")
    assert quarantine.release(at.ledger, at.run.id, whole, **ANNA) == 1
    assert list(released(at)) == ["an \ufffd\ufffd"]
    with at.client.start_session() as session:
        found = transact(session, lambda it: split_so_far.of_document(at, row.source_id, it))
    assert found is not None
    assert found.document == broken
