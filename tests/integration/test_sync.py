"""Sync: what is dirty is derived again under the fence, whatever the application did meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bson import ObjectId

from mongosplit import grown, raw, rollback, sync
from mongosplit.chunk_map import ChunkMap
from mongosplit.ledger import asks, chunks, dirty, fences, kept, quarantine
from mongosplit.ledger.claims import Attempt
from mongosplit.ledger.dirty import Mark
from mongosplit.model import ChunkState, Outcome
from mongosplit.open_run import OpenRun
from tests.integration.conftest import (
    ABSENT,
    Begin,
    ids,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    reasons,
    stored,
    user,
    users,
    verified_all,
)

BASE, VENDORS, NEWS = "base_users", "vendors", "newsletter_subscribers"


def marked(at: OpenRun, *whose: Any, repair: bool = False) -> None:
    """Mark users dirty, as the follower does."""
    chunk_map = ChunkMap(at)
    values = [raw.encode(one) for one in whose]
    marks = [Mark(one, chunk_map.chunk_of(one), repair=repair) for one in values]
    dirty.mark(at.ledger, at.run.id, marks)


def synced(at: OpenRun, *whose: Any) -> Outcome:
    marked(at, *whose)
    return sync.sync_chunks(at, 0, 1, Attempt("w1@here"))


def changed(at: OpenRun, n: int, changes: dict[str, Any]) -> None:
    """The application replaces a user."""
    at.source.replace_one({"_id": oid(n)}, user(n, changes), upsert=True)


def counts(at: OpenRun, n: int) -> dict[str, Any]:
    row = ledger_row(at, n)
    return {name: row.get(name) for name in ("docs", "parts", "quarantined", "adopted")}


@pytest.fixture
def at(begin: Begin) -> OpenRun:
    """Six users in chunks of two, all migrated."""
    opened = begin(users(6), chunk_size=2)
    migrated_all(opened)
    return opened


def test_a_changed_user_shows_in_every_target(at: OpenRun) -> None:
    changed(at, 1, {"kontakt.email": "new@example.org", "vendorProfile.slogan": "neu"})
    assert synced(at, oid(1)).docs == 1
    assert at.data[BASE].find_one({"_id": oid(1)})["email"] == "new@example.org"
    assert at.data[VENDORS].find_one({"_id": oid(1)})["slogan"] == "neu"
    assert at.data[NEWS].find_one({"_id": oid(1)})["email"] == "new@example.org"
    assert verified_all(at) == 0
    assert dirty.backlog(at.ledger, at.run.id) == 0


def test_a_deleted_user_is_gone_from_every_target_and_from_the_counts(at: OpenRun) -> None:
    at.source.delete_one({"_id": oid(2)})
    synced(at, oid(2))
    assert [oid(2) in ids(at, name) for name in (BASE, VENDORS, NEWS)] == [False] * 3
    assert counts(at, 1)["docs"] == 1
    assert counts(at, 1)["parts"] == {BASE: 1, VENDORS: 1, NEWS: 1}


def test_a_user_who_stops_being_a_vendor_loses_that_document_and_gains_it_again(
    at: OpenRun,
) -> None:
    changed(at, 1, {"isVendor": False})
    synced(at, oid(1))
    assert oid(1) not in ids(at, VENDORS)
    assert oid(1) in ids(at, BASE)
    changed(at, 1, {})
    synced(at, oid(1))
    assert oid(1) in ids(at, VENDORS)
    assert verified_all(at) == 0


def test_a_new_user_beyond_the_plan_lands_through_the_tail_chunk(at: OpenRun) -> None:
    changed(at, 700, {})
    synced(at, oid(700))
    assert oid(700) in ids(at, BASE)
    assert (counts(at, 4)["docs"], chunks.get(at.ledger, at.run.id, 4).tail) == (1, True)
    assert verified_all(at) == 0


def test_what_is_the_same_is_not_written(at: OpenRun) -> None:
    before = stored(at, BASE)
    row = ledger_row(at, 1)
    synced(at, oid(1), oid(2))
    assert stored(at, BASE) == before
    after = ledger_row(at, 1)
    assert after.pop("fence") == row.pop("fence") + 1
    assert after == row


def test_a_change_of_type_only_is_written(at: OpenRun) -> None:
    at.source.update_one({"_id": oid(1)}, {"$set": {"vendorProfile.location.deliveryRadius": 5.0}})
    synced(at, oid(1))
    radius = at.data[VENDORS].find_one({"_id": oid(1)})["location"]["deliveryRadius"]
    assert type(radius) is float


def test_a_user_of_a_pending_chunk_is_left_to_its_copy_but_the_fence_moves(begin: Begin) -> None:
    at = begin(users(2))
    synced(at, oid(1))
    assert ids(at, BASE) == []
    assert ledger_row(at)["fence"] == 1
    assert dirty.backlog(at.ledger, at.run.id) == 0


def test_a_user_of_a_rolled_back_chunk_stays_out_of_the_targets(at: OpenRun) -> None:
    asks.undo(at.ledger, at.run.id, {"n": 1}, on_change="keep", actor="a test")
    rollback.rollback_chunk(at, 1, Attempt("w1@here"))
    synced(at, oid(1))
    assert oid(1) not in ids(at, BASE)


def test_a_row_that_was_marked_again_meanwhile_stays(at: OpenRun) -> None:
    marked(at, oid(1))
    [row] = dirty.read(at.ledger, at.run.id, limit=10)
    marked(at, oid(1))
    dirty.forget(at.ledger, [row])
    assert dirty.backlog(at.ledger, at.run.id) == 1


def test_a_chunk_that_another_transaction_holds_is_left_dirty_and_the_others_go_on(
    at: OpenRun,
) -> None:
    for n in (1, 3):
        changed(at, n, {"username": f"other{n}"})
    with at.client.start_session() as session, session.start_transaction():
        fences.take(at.ledger, session, at.run.id, 1)
        synced(at, oid(1), oid(3))
        left = dirty.read(at.ledger, at.run.id, limit=10)
    assert [row.chunk for row in left] == [1]
    assert at.data[BASE].find_one({"_id": oid(3)})["username"] == "other3"
    sync.sync_chunks(at, 0, 1, Attempt("w1@here"))
    assert verified_all(at) == 0


def test_parts_share_the_chunks_out(at: OpenRun) -> None:
    marked(at, oid(1), oid(3), oid(5))
    sync.sync_chunks(at, 0, 2, Attempt("w1@here"))
    assert {row.chunk for row in dirty.read(at.ledger, at.run.id, limit=10)} == {1, 3}


def test_a_user_who_cannot_be_split_any_more_goes_to_quarantine_and_leaves_it_when_mended(
    at: OpenRun,
) -> None:
    changed(at, 1, {"kontakt.email": ABSENT})
    assert synced(at, oid(1)).quarantined == 1
    assert reasons(at) == {oid(1): ("missing", "kontakt.email")}
    assert oid(1) not in ids(at, BASE)
    assert counts(at, 1)["quarantined"] == 1
    assert verified_all(at) == 0
    changed(at, 1, {})
    synced(at, oid(1))
    assert reasons(at) == {}
    assert counts(at, 1) == {
        "docs": 2,
        "parts": {BASE: 2, VENDORS: 2, NEWS: 2},
        "quarantined": 0,
        "adopted": 0,
    }
    assert verified_all(at, number=2) == 0


def test_a_quarantined_user_who_is_deleted_leaves_quarantine(at: OpenRun) -> None:
    changed(at, 1, {"kontakt.email": ABSENT})
    synced(at, oid(1))
    at.source.delete_one({"_id": oid(1)})
    synced(at, oid(1))
    assert (reasons(at), counts(at, 1)["docs"]) == ({}, 1)


def test_two_users_exchange_a_unique_value(at: OpenRun) -> None:
    changed(at, 1, {"username": "käthe5"})
    changed(at, 5, {"username": "käthe1"})
    synced(at, oid(1), oid(5))
    assert verified_all(at) == 0


def test_two_users_exchange_a_unique_value_though_only_one_is_dirty_yet(at: OpenRun) -> None:
    changed(at, 1, {"username": "käthe5", "kontakt.email": "k5@example.org"})
    changed(at, 5, {"username": "käthe1", "kontakt.email": "k1@example.org"})
    synced(at, oid(1))
    assert reasons(at) == {}
    assert verified_all(at) == 0


def test_a_real_duplicate_goes_to_quarantine_and_whoever_had_the_value_keeps_it(
    at: OpenRun,
) -> None:
    changed(at, 1, {"username": "käthe5"})
    synced(at, oid(1))
    assert reasons(at) == {oid(1): ("duplicate", "username")}
    assert oid(5) in ids(at, BASE)
    assert verified_all(at) == 0


@pytest.mark.parametrize("freed", ["changed", "deleted", "rolled back"])
def test_a_duplicate_leaves_quarantine_when_the_other_gives_the_value_up(
    at: OpenRun, freed: str
) -> None:
    changed(at, 1, {"username": "käthe5"})
    synced(at, oid(1))
    if freed == "changed":
        changed(at, 5, {"username": "other"})
        synced(at, oid(5))
    elif freed == "deleted":
        at.source.delete_one({"_id": oid(5)})
        synced(at, oid(5))
    else:
        asks.undo(at.ledger, at.run.id, {"n": 3}, on_change="keep", actor="a test")
        rollback.rollback_chunk(at, 3, Attempt("w1@here"))
    sync.sync_chunks(at, 0, 1, Attempt("w1@here"))
    assert reasons(at) == {}
    assert at.data[BASE].find_one({"_id": oid(1)})["username"] == "käthe5"
    assert verified_all(at) == 0


def test_a_copy_that_met_a_stale_part_is_mended_by_the_sync_of_its_holder(begin: Begin) -> None:
    at = begin(users(4), chunk_size=2)
    migrated(at, 1)
    changed(at, 1, {"username": "gone"})
    changed(at, 3, {"username": "käthe1"})
    migrated(at, 2)
    assert reasons(at) == {oid(3): ("duplicate", "username")}
    synced(at, oid(1))
    assert reasons(at) == {}
    assert verified_all(at) == 0


@contextmanager
def meanwhile(at: OpenRun, work: Callable[[], object]) -> Iterator[None]:
    """Between a copy's quarantining and its commit, the work is done by somebody else."""
    real, done = chunks.record, []

    def recorded(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        if not done:
            done.append(work())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chunks, "record", recorded)
        yield


def subscriber(at: OpenRun, email: str) -> ObjectId:
    """A subscriber the application had already."""
    row = {"email": email, "type": "weekly", "isSubscribed": True}
    found: ObjectId = at.data[NEWS].insert_one(row).inserted_id
    return found


def adopted(begin: Begin) -> tuple[OpenRun, ObjectId, dict[str, Any]]:
    at = begin(users(2))
    its = subscriber(at, "k1@example.org")
    before = at.data[NEWS].find_one({"_id": its})
    migrated(at)
    assert at.data[NEWS].find_one({"_id": its})["userId"] == oid(1)
    return at, its, before


def test_an_adopted_subscriber_stays_adopted_while_its_user_logs_in(begin: Begin) -> None:
    at, its, before = adopted(begin)
    changed(at, 1, {"username": "other"})
    synced(at, oid(1))
    assert at.data[NEWS].find_one({"_id": its}) == {**before, "userId": oid(1)}
    assert counts(at, 1)["adopted"] == 1
    assert verified_all(at) == 0


def test_an_adopted_subscriber_is_given_back_when_its_user_opts_out(begin: Begin) -> None:
    at, its, before = adopted(begin)
    changed(at, 1, {"kontakt.mailNewsletter": False})
    synced(at, oid(1))
    assert at.data[NEWS].find_one({"_id": its}) == before
    assert kept.count(at.ledger, at.run.id, reason="adopted") == 0
    assert counts(at, 1)["adopted"] == 0
    assert verified_all(at) == 0


def test_an_adopted_subscriber_is_given_back_when_its_user_has_another_address(
    begin: Begin,
) -> None:
    at, its, before = adopted(begin)
    changed(at, 1, {"kontakt.email": "other@example.org"})
    synced(at, oid(1))
    assert at.data[NEWS].find_one({"_id": its}) == before
    assert at.data[NEWS].find_one({"_id": oid(1)})["email"] == "other@example.org"
    assert verified_all(at) == 0


def test_a_user_who_opts_in_adopts_the_subscriber_of_that_address(at: OpenRun) -> None:
    its = subscriber(at, "new@example.org")
    changed(at, 1, {"kontakt.email": "new@example.org"})
    synced(at, oid(1))
    assert at.data[NEWS].find_one({"_id": its})["userId"] == oid(1)
    assert oid(1) not in ids(at, NEWS)
    assert counts(at, 1)["adopted"] == 1
    assert verified_all(at) == 0


def test_a_repair_keeps_what_somebody_else_wrote(at: OpenRun) -> None:
    at.data[VENDORS].update_one({"_id": oid(1)}, {"$set": {"slogan": "foreign"}})
    marked(at, oid(1), repair=True)
    sync.sync_chunks(at, 0, 1, Attempt("w1@here"))
    assert verified_all(at) == 0
    [saved] = kept.listed(at.ledger, at.run.id, limit=10)
    assert (saved["document_id"], saved["collection"]) == (oid(1), VENDORS)


def test_numbers_that_are_equal_but_of_another_type_are_one_user(begin: Begin) -> None:
    at = begin([{**user(1), "_id": 1}])
    migrated_all(at)
    at.source.delete_one({"_id": 1})
    at.source.insert_one({**user(1), "_id": 1.0})
    synced(at, 1)
    assert [type(one) for one in ids(at, BASE)] == [float]
    assert verified_all(at) == 0


def test_a_batch_with_many_whom_only_the_server_refuses_goes_through(begin: Begin) -> None:
    at = begin(users(40), chunk_size=20)
    at.data[VENDORS].create_index([("location.coordinates", "2dsphere")])
    migrated_all(at)
    bad = range(1, 31)
    for n in bad:
        changed(at, n, {"vendorProfile.location.coordinates": [500.0, 0.0]})
    synced(at, *map(oid, range(1, 41)))
    assert set(reasons(at)) == {oid(n) for n in bad}
    assert sorted(ids(at, BASE)) == [oid(n) for n in range(31, 41)]
    assert verified_all(at) == 0


def test_an_id_whose_chunk_was_divided_is_found_in_the_other_half(at: OpenRun) -> None:
    changed(at, 5, {"username": "other"})
    dirty.mark(at.ledger, at.run.id, [Mark(raw.encode(oid(5)), 1)])
    sync.sync_chunks(at, 0, 1, Attempt("w1@here"))
    assert at.data[BASE].find_one({"_id": oid(5)})["username"] == "other"


def test_a_user_with_an_id_that_has_no_ranges_goes_to_quarantine(at: OpenRun) -> None:
    at.source.insert_one({**user(9), "_id": {"a": 1}})
    synced(at, {"a": 1})
    [row] = quarantine.listed(at.ledger, at.run.id, limit=10)
    assert (row["source_id"], row["reason"]) == ({"a": 1}, "id-type")
    assert verified_all(at) == 0


def test_a_sync_keeps_a_verified_chunk_verified(at: OpenRun) -> None:
    assert verified_all(at) == 0
    changed(at, 1, {"username": "other"})
    synced(at, oid(1))
    assert chunks.get(at.ledger, at.run.id, 1).state is ChunkState.VERIFIED


def test_nothing_of_a_document_is_in_a_dirty_row(at: OpenRun) -> None:
    marked(at, oid(1))
    row = at.ledger["dirty"].find_one({})
    assert row.keys() == {"_id", "run", "chunk", "source_id", "stamp"}
    assert quarantine.count(at.ledger, at.run.id) == 0


def test_a_tail_that_has_grown_is_cut_and_every_part_can_be_rolled_back(begin: Begin) -> None:
    at = begin(users(2))
    at.run.options["chunk_size"] = 4
    migrated_all(at)
    new = range(11, 31)
    at.source.insert_many([user(n) for n in new])
    changed(at, 12, {"kontakt.email": ABSENT})
    subscriber(at, "k13@example.org")
    synced(at, *map(oid, new))
    made = []
    while number := grown.divide_grown(at, actor="a test"):
        made.append(number)
    assert made == [3, 4, 5]
    assert [counts(at, n)["docs"] for n in (2, *made)] == [8, 4, 4, 4]
    assert sum(counts(at, n)["quarantined"] or 0 for n in (2, *made)) == 1
    assert counts(at, 3) == {
        "docs": 4,
        "parts": {BASE: 3, VENDORS: 3, NEWS: 2},
        "quarantined": 1,
        "adopted": 1,
    }
    assert verified_all(at) == 0
    changed(at, 99, {})
    synced(at, oid(99), oid(12))
    assert chunks.get(at.ledger, at.run.id, 2).docs == 9
    assert verified_all(at, number=2) == 0
    for n in (1, 2, *made):
        asks.undo(at.ledger, at.run.id, {"n": n}, on_change="fail", actor="a test")
        rollback.rollback_chunk(at, n, Attempt("w1@here"))
    assert [at.data[name].count_documents({}) for name in (BASE, VENDORS, NEWS)] == [0, 0, 1]


def test_a_copy_that_meets_a_key_being_given_up_looks_again(begin: Begin) -> None:
    """The model's counterexample: neither transaction sees what the other commits."""
    at = begin([user(1), user(2, {"username": "käthe1"})], chunk_size=1)
    migrated(at, 1)
    at.source.delete_one({"_id": oid(1)})
    marked(at, oid(1))
    with meanwhile(at, lambda: sync.sync_chunks(at, 0, 1, Attempt("w2@here"))):
        migrated(at, 2)
    sync.sync_chunks(at, 0, 1, Attempt("w1@here"))
    assert reasons(at) == {}
    assert ids(at, BASE) == [oid(2)]
    assert verified_all(at) == 0


def test_what_is_not_synced_yet_is_counted_once_when_its_chunk_is_divided(begin: Begin) -> None:
    at = begin(users(4), chunk_size=2)
    migrated_all(at)
    at.source.insert_many([user(n) for n in range(100, 112)])
    synced(at, *(oid(n) for n in range(100, 112)))
    at.run.options["chunk_size"] = 4
    at.source.insert_many([user(n) for n in range(50, 52)])
    assert grown.divide_grown(at, actor="a test")
    synced(at, oid(50), oid(51))
    rows = at.ledger["chunks"].find({}, {"docs": 1, "planned": 1, "parts": 1})
    counted = [(row["docs"], row["planned"], row["parts"][BASE]) for row in rows]
    assert all(docs == planned == parts for docs, planned, parts in counted), counted
