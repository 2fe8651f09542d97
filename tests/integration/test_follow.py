"""The follower: what is written to the source is marked dirty, whatever dies in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from bson import Timestamp
from pymongo.errors import PyMongoError

from mongosplit import change_stream, foreign, grown, lag, raw, rollback
from mongosplit.change_stream import HistoryLost, SourceGone, open_stream, written_since
from mongosplit.errors import TransientError
from mongosplit.follow import Follower
from mongosplit.ledger import asks, audit, dirty, followers
from mongosplit.ledger import foreign as foreign_rows
from mongosplit.ledger.claims import Attempt
from mongosplit.open_run import OpenRun
from tests.conditions import until
from tests.integration.conftest import (
    Begin,
    Client,
    failing,
    found,
    migrated_all,
    oid,
    user,
    users,
    verified,
)
from tests.integration.test_sync import VENDORS, changed, marked, synced


@pytest.fixture
def at(begin: Begin) -> OpenRun:
    """Four users in two chunks, migrated, and a start to follow from."""
    opened = begin(users(4), chunk_size=2)
    followers.begin(opened.ledger, opened.run.id)
    migrated_all(opened)
    return opened


@pytest.fixture
def follower(at: OpenRun) -> Iterator[Follower]:
    following = Follower(at, "f1")
    yield following
    following.let_go()


def dirty_ids(at: OpenRun) -> list[Any]:
    return sorted(row.source_id.decode() for row in dirty.read(at.ledger, at.run.id, limit=100))


def followed(follower: Follower, at: OpenRun, count: int) -> list[Any]:
    """Who is dirty once so many are."""

    def stepped() -> bool:
        follower.step(50)
        return len(dirty_ids(at)) >= count

    until(stepped, what=f"not {count} dirty")
    return dirty_ids(at)


def test_every_kind_of_write_marks_its_user(at: OpenRun, follower: Follower) -> None:
    at.source.update_one({"_id": oid(1)}, {"$set": {"username": "other"}})
    changed(at, 2, {"username": "another"})
    at.source.delete_one({"_id": oid(3)})
    at.source.insert_one(user(9))
    assert followed(follower, at, 4) == [oid(n) for n in (1, 2, 3, 9)]
    rows = dirty.read(at.ledger, at.run.id, limit=10)
    assert {row.source_id.decode(): row.chunk for row in rows} == {
        oid(1): 1,
        oid(2): 1,
        oid(3): 2,
        oid(9): 3,
    }


def test_what_was_written_between_the_start_and_the_first_look_is_seen(begin: Begin) -> None:
    at = begin(users(2))
    followers.begin(at.ledger, at.run.id)
    at.source.delete_one({"_id": oid(1)})
    follower = Follower(at, "f1")
    assert followed(follower, at, 1) == [oid(1)]
    follower.let_go()


def test_writes_inside_a_transaction_of_the_application_are_seen(
    at: OpenRun, follower: Follower
) -> None:
    with at.client.start_session() as session, session.start_transaction():
        at.source.delete_many({}, session=session)
    assert len(followed(follower, at, 4)) == 4


def test_a_follower_that_dies_between_marking_and_saving_marks_again(
    at: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> bool:
        raise Killed

    at.source.delete_one({"_id": oid(1)})
    with monkeypatch.context() as patched:
        patched.setattr(followers, "reach", killed)
        with pytest.raises(Killed):
            until(lambda: Follower(at, "f1").step(50))
    [before] = dirty.read(at.ledger, at.run.id, limit=10)
    second = Follower(at, "f1")
    until(lambda: second.step(50), what="the event did not come again")
    second.let_go()
    [after] = dirty.read(at.ledger, at.run.id, limit=10)
    assert (after.key, after.stamp != before.stamp) == (before.key, True)


def test_a_follower_that_dies_before_marking_has_not_moved_its_position(
    at: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> int:
        raise Killed

    start = followers.get(at.ledger, at.run.id)
    at.source.delete_one({"_id": oid(1)})
    with monkeypatch.context() as patched:
        patched.setattr(dirty, "mark", killed)
        with pytest.raises(Killed):
            Follower(at, "f1").step(50)
    seen = followers.get(at.ledger, at.run.id)
    assert (seen.token, seen.reached) == (None, start.reached)
    second = Follower(at, "f1")
    assert followed(second, at, 1) == [oid(1)]
    second.let_go()


def test_the_next_follower_goes_on_where_the_last_one_stopped(at: OpenRun) -> None:
    first = Follower(at, "f1")
    at.source.delete_one({"_id": oid(1)})
    followed(first, at, 1)
    first.let_go()
    for row in dirty.read(at.ledger, at.run.id, limit=10):
        dirty.forget(at.ledger, [row])
    at.source.delete_one({"_id": oid(2)})
    second = Follower(at, "f2")
    assert followed(second, at, 1) == [oid(2)]
    second.let_go()


def test_of_two_followers_one_waits_and_takes_over_when_the_other_lets_go(
    at: OpenRun, follower: Follower
) -> None:
    follower.step(50)
    second = Follower(at, "f2")
    assert second.step(50) is None
    follower.let_go()
    at.source.delete_one({"_id": oid(1)})
    assert followed(second, at, 1) == [oid(1)]
    second.let_go()


def test_a_position_moves_on_while_nothing_is_written_to_the_source(
    at: OpenRun, follower: Follower
) -> None:
    start = followers.get(at.ledger, at.run.id).reached

    def moved() -> bool:
        follower.step(50)
        return followers.get(at.ledger, at.run.id).reached > start

    until(moved)
    assert followers.get(at.ledger, at.run.id).alive


def test_the_time_of_a_token_is_the_time_of_its_event(at: OpenRun) -> None:
    start = followers.get(at.ledger, at.run.id).start
    stream = open_stream(at.client, at.source, token=None, start=start)
    at.source.delete_one({"_id": oid(1)})
    batch = until(lambda: next(iter([b for b in [stream.read(50)] if b.events]), None))
    event = batch.events[-1]
    pipeline = [{"$changeStream": {"startAtOperationTime": start}}]
    with at.source.aggregate(pipeline) as whole:
        token = next(row["_id"]["_data"] for row in whole if row["documentKey"]["_id"] == oid(1))
    stream.close()
    assert change_stream.time_of(token) == event.time


def test_a_broken_connection_is_the_next_step_s_business(
    at: OpenRun, client: Client, follower: Follower
) -> None:
    follower.step(50)
    with failing(client, "getMore", times=1, closeConnection=True), pytest.raises(PyMongoError):
        follower.step(50)
    at.source.delete_one({"_id": oid(1)})
    assert followed(follower, at, 1) == [oid(1)]


def test_an_oplog_that_no_longer_reaches_back_says_what_to_type(
    at: OpenRun, client: Client, follower: Follower
) -> None:
    with (
        failing(client, "aggregate", times=1, errorCode=286),
        pytest.raises(HistoryLost, match="no longer reaches back") as lost,
    ):
        follower.step(50)
    assert "follow --restart" in lost.value.hint


def test_after_a_restart_what_was_missed_is_found_and_repaired(at: OpenRun) -> None:
    changed(at, 1, {"username": "missed"})
    at.source.update_one({"_id": oid(3)}, {"$set": {"lastLogin": None}})
    followers.begin(at.ledger, at.run.id, restart=True)
    follower = Follower(at, "f1")
    follower.step(50)
    assert verified(at).mismatches == 1
    marked(at, oid(1), repair=True)
    synced(at)
    assert verified(at, number=2).mismatches == 0
    follower.let_go()


def test_a_source_that_is_renamed_stops_the_follower(at: OpenRun, follower: Follower) -> None:
    follower.step(50)
    at.source.rename("elsewhere")
    with pytest.raises(SourceGone, match="met rename"):
        until(lambda: follower.step(50))


def test_the_log_says_who_was_written_in_a_span_of_time(at: OpenRun) -> None:
    start = at.client.admin.command("ping")["operationTime"]
    at.source.update_one({"_id": oid(1)}, {"$set": {"username": "a"}})
    end = at.client.admin.command("ping")["operationTime"]
    at.source.update_one({"_id": oid(2)}, {"$set": {"username": "b"}})
    at.source.update_one({"_id": oid(3)}, {"$set": {"username": "c"}})
    after = Timestamp(end.time, end.inc + 1)
    asked = [raw.encode(oid(n)) for n in (1, 2)]
    assert written_since(at.client, at.source, asked, start=start, end=end) == set(asked[:1])
    later = at.client.admin.command("ping")["operationTime"]
    assert written_since(at.client, at.source, asked, start=after, end=later) == set(asked[1:])


def test_a_lag_is_no_mismatch_once_the_follower_has_caught_up(
    at: OpenRun, follower: Follower
) -> None:
    changed(at, 1, {"username": "other"})
    followed(follower, at, 1)
    synced(at)
    assert verified(at).did == "verified"


def test_a_lag_that_nobody_follows_is_not_called_a_mismatch(at: OpenRun) -> None:
    changed(at, 1, {"username": "other"})
    with pytest.raises(TransientError, match="nobody follows: mongosplit follow"):
        verified(at)
    assert found(at) == set()


def test_a_mismatch_is_told_from_a_lag_while_its_neighbour_lags(
    at: OpenRun, follower: Follower
) -> None:
    follower.step(50)
    at.data[VENDORS].update_one({"_id": oid(1)}, {"$set": {"slogan": "foreign"}})
    with at.client.start_session() as session, session.start_transaction():
        at.source.update_one({"_id": oid(2)}, {"$set": {"username": "x"}}, session=session)
    followed(follower, at, 1)
    synced(at)
    assert verified(at).mismatches == 1
    assert found(at) == {(oid(1), VENDORS, "slogan", "different")}


def test_a_foreign_write_is_noticed_and_named_and_our_own_are_not(at: OpenRun) -> None:
    foreign.look(at)
    changed(at, 1, {"username": "ours"})
    synced(at, oid(1))
    assert foreign.look(at) == 0
    at.data[VENDORS].update_one({"_id": oid(2)}, {"$set": {"slogan": "theirs"}})
    at.data[VENDORS].delete_one({"_id": oid(3)})
    assert foreign.look(at) == 2
    assert foreign.look(at) == 0
    rows = foreign_rows.listed(at.ledger, at.run.id, limit=10)
    said = {(row["document_id"], row["collection"], row["kind"]) for row in rows}
    assert said == {(oid(2), VENDORS, "update"), (oid(3), VENDORS, "delete")}
    audit.chain(at.ledger)
    told = audit.entries(at.ledger, run=at.run.id)
    assert [row["facts"] for row in told if row["action"] == "foreign"] == [
        {"collection": VENDORS, "writes": 2}
    ]


def test_a_write_to_a_shared_target_is_nobody_s_business(at: OpenRun) -> None:
    at.data["newsletter_subscribers"].insert_one({"email": "theirs@example.org"})
    assert foreign.look(at) == 0


def test_a_backlog_is_counted_and_forgotten_with_its_run(at: OpenRun) -> None:
    marked(at, oid(1), oid(2))
    assert dirty.backlog(at.ledger, at.run.id) == 2
    dirty.forget_run(at.ledger, at.run.id)
    assert dirty.backlog(at.ledger, at.run.id) == 0
    began = time.time()
    assert followers.get(at.ledger, at.run.id).lag_seconds <= time.time() - began + 60


def test_what_a_sync_has_yet_to_bring_is_not_kept_by_a_rollback(at: OpenRun) -> None:
    changed(at, 1, {"username": "other"})
    marked(at, oid(1))
    asks.undo(at.ledger, at.run.id, {"n": 1}, on_change="keep", actor="a test")
    assert rollback.rollback_chunk(at, 1, Attempt("w1@here")).kept == 0


def test_a_rollback_that_is_to_fail_on_changes_waits_until_a_write_is_followed(
    at: OpenRun, follower: Follower
) -> None:
    changed(at, 2, {"username": "another"})
    followed(follower, at, 1)
    synced(at)
    changed(at, 1, {"username": "other"})
    asks.undo(at.ledger, at.run.id, {"n": 1}, on_change="fail", actor="a test")
    with pytest.raises(TransientError, match="are being written"):
        rollback.rollback_chunk(at, 1, Attempt("w1@here"))
    followed(follower, at, 1)
    assert rollback.rollback_chunk(at, 1, Attempt("w1@here")).did == "rolled back"


def test_a_chunk_that_is_divided_while_it_is_compared_has_no_mismatches(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = begin(users(2))
    followers.begin(at.ledger, at.run.id)
    follower = Follower(at, "f1")
    migrated_all(at)
    at.source.insert_many([user(n) for n in range(100, 112)])
    followed(follower, at, 12)
    synced(at)
    at.run.options["chunk_size"] = 2
    at.source.update_one({"_id": oid(100)}, {"$set": {"username": "x"}})
    real, made = lag.look, []

    def look(*arguments: Any) -> lag.Position | None:
        """Between the first look and the second: the follower, a sync, and a division."""
        if not made:
            followed(follower, at, 1)
            synced(at)
            made.append(grown.divide_grown(at, actor="a test"))
        return real(*arguments)

    monkeypatch.setattr(lag, "look", look)
    assert verified(at, 2).mismatches == 0
    assert made == [3]
    follower.let_go()
