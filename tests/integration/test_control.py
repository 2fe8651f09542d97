"""What keeps chunks from being begun, what stops a run, and what is asked of its chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mongosplit import breaker
from mongosplit.ledger import asks, audit, chunks, claims, quarantine, runs, tally
from mongosplit.ledger.book import Ledger
from mongosplit.ledger.quarantine import Which
from mongosplit.model import ChunkState, Run, RunState
from mongosplit.open_run import OpenRun
from producer import driver, settling
from producer.tick import Tick
from tests.integration.conftest import (
    ABSENT,
    Begin,
    Document,
    content,
    ids,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    put_state,
    reasons,
    state_of,
    user,
    users,
    verified,
    verified_all,
)

HELD = [RunState.PAUSING, RunState.PAUSED, RunState.CANCELLING, RunState.CANCELLED]
OPERATOR = "an operator"


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(breaker, "LOOK_SECONDS", 0.0)
    return iter(())


def put_run(at: OpenRun, state: RunState, **facts: Any) -> Run:
    at.ledger["runs"].update_one({"_id": at.run.id}, {"$set": {"state": state, **facts}})
    return runs.get(at.ledger, at.run.id)


def run_state(at: OpenRun) -> RunState:
    return runs.get(at.ledger, at.run.id).state


@pytest.mark.parametrize("state", [*HELD, RunState.ROLLING_BACK, RunState.MIGRATED])
def test_no_chunk_begins_in_a_run_that_is_not_running(begin: Begin, state: RunState) -> None:
    at = begin(users(3))
    put_run(at, state)
    before = content(at)
    outcome = migrated(at)
    assert (outcome.did, outcome.state) == ("held", state)
    assert content(at) == before
    put_run(at, RunState.RUNNING)
    assert migrated(at).did == "migrated"


@pytest.mark.parametrize("state", HELD)
def test_nothing_is_compared_in_a_held_run_but_what_was_asked_for(
    begin: Begin, state: RunState
) -> None:
    at = begin(users(6), chunk_size=3)
    migrated_all(at)
    put_state(at, ChunkState.ROLLED_BACK, 2)
    put_run(at, state)
    assert verified(at).did == "held"
    assert "checked" not in ledger_row(at)
    put_run(at, state, requested=7, verification=7)
    assert verified(at, number=7).did == "verified"
    # What is not applied must have left nothing, at any time.
    assert verified(at, 2, number=3).mismatches == 9


def test_paused_is_said_only_when_nobody_is_at_work(begin: Begin) -> None:
    at = begin(users(3))
    with at.client.start_session() as session:
        attempt = claims.Attempt("w1@elsewhere/1")
        with claims.claimed(at.ledger, at.client, session, "migrate", at.run.id, 1, attempt):
            run = runs.move(at.ledger, at.run.id, RunState.PAUSING, actor=OPERATOR, why="tea")
            assert settling.settle_asked(at.ledger, run).state is RunState.PAUSING
            assert settling.at_work(at.ledger, run) == 1
    done = settling.settle_asked(at.ledger, runs.get(at.ledger, at.run.id))
    assert (done.state, done.asked["actor"], done.asked["why"]) == (
        RunState.PAUSED,
        OPERATOR,
        "tea",
    )


def test_a_driver_leaves_a_running_run_for_failed_chunks_only(begin: Begin) -> None:
    at = begin(users(4), chunk_size=2)
    run = put_run(at, RunState.RUNNING, selection=[[1, 1]], verification=1)
    migrated(at, 1)
    verified_all(at)
    # What a driver saw before chunk 1 was verified is old: the next look brings the run to rest.
    tick = Tick(run, tally.totals(at.ledger, run.id), 0.0, 0)
    assert not driver.is_over(at, tick, stay=True)
    rested = settling.settle_running(at, tick)
    assert (rested.state, rested.resting) == (RunState.PAUSED, True)
    assert driver.is_over(at, replace(tick, run=rested), stay=True)
    for n in chunks.numbers(at.ledger, at.run.id, {"state": ChunkState.PENDING.value}):
        put_state(at, ChunkState.FAILED, n)
    assert driver.is_over(at, replace(tick, run=put_run(at, RunState.RUNNING)), stay=True)


def bad(n: int) -> Document:
    return user(n, {"kontakt.email": ABSENT})


def limited(at: OpenRun, documents: float = 0.05, chunks_: float = 0.5) -> OpenRun:
    limits = breaker.limits(documents, chunks_)
    at.ledger["runs"].update_one({"_id": at.run.id}, {"$set": {"options": limits}})
    return at


def test_the_breaker_stops_a_run_whose_documents_fail(begin: Begin) -> None:
    at = limited(begin([*users(1000), *map(bad, range(1001, 1101))], chunk_size=550))
    assert migrated(at, 1).quarantined == 0
    assert run_state(at) is RunState.RUNNING
    assert migrated(at, 2).quarantined == 100
    run = runs.get(at.ledger, at.run.id)
    assert (run.state, run.asked["actor"]) == (RunState.PAUSING, breaker.ACTOR)
    assert run.asked["why"] == "100 of 1,100 documents are in quarantine: 9.1% ≥ 5.0%"
    assert migrated(at, 3).did == "nothing"


@pytest.mark.parametrize(
    ("good", "wrong"), [(949, 50), (970, 31)], ids=["below a thousand", "below the share"]
)
def test_the_breaker_lets_few_documents_be(begin: Begin, good: int, wrong: int) -> None:
    at = limited(
        begin([*users(good), *map(bad, range(good + 1, good + wrong + 1))], chunk_size=2000)
    )
    assert migrated(at).quarantined == wrong
    assert run_state(at) is RunState.RUNNING


def test_documents_that_were_released_do_not_count_for_the_breaker(begin: Begin) -> None:
    at = limited(begin([*users(1000), *map(bad, range(1001, 1101))], chunk_size=2000))
    migrated(at)
    because = "test accounts"
    quarantine.release(at.ledger, at.run.id, Which(), actor=OPERATOR, because=because)
    assert breaker.verdict(at.ledger, runs.get(at.ledger, at.run.id), totals(at)) == ""


def totals(at: OpenRun) -> dict[str, dict[str, int]]:
    return tally.totals(at.ledger, at.run.id)


@pytest.mark.parametrize(
    ("failed", "sentence"),
    [(10, ""), (11, "11 of 20 chunks have failed: 55.0% ≥ 50.0%")],
)
def test_the_breaker_stops_a_run_whose_chunks_fail(
    begin: Begin, failed: int, sentence: str
) -> None:
    at = limited(begin(users(20), chunk_size=1))
    for n in range(1, 20):
        state = ChunkState.FAILED if n <= failed else ChunkState.MIGRATED
        put_state(at, state, n)
    run = runs.get(at.ledger, at.run.id)
    # Nineteen and the tail, which is applied from the start.
    assert breaker.trip(at.ledger, run, totals(at)) == sentence
    assert run_state(at) is (RunState.PAUSING if sentence else RunState.RUNNING)


def test_mended_documents_go_through_and_the_others_stay(begin: Begin) -> None:
    at = begin([*users(3), bad(4), bad(5)])
    assert migrated(at).quarantined == 2
    at.source.update_one({"_id": oid(4)}, {"$set": {"kontakt.email": "k4@example.org"}})
    assert asks.mend(at.ledger, at.run.id, {}, actor=OPERATOR) == 1
    outcome = migrated(at)
    assert (outcome.did, outcome.docs, outcome.quarantined) == ("migrated", 2, 1)
    assert set(reasons(at)) == {oid(5)}
    row = ledger_row(at)
    assert (row["docs"], row["parts"]["base_users"], row["quarantined"]) == (5, 4, 1)
    assert "mend" not in row
    assert verified_all(at) == 0
    assert migrated(at).did == "nothing"


def test_a_quarantined_document_that_was_deleted_leaves_quarantine(begin: Begin) -> None:
    at = begin([*users(2), bad(3)])
    migrated(at)
    at.source.delete_one({"_id": oid(3)})
    asks.mend(at.ledger, at.run.id, {}, actor=OPERATOR)
    migrated(at)
    assert reasons(at) == {}
    assert (ledger_row(at)["docs"], verified_all(at)) == (2, 0)


def test_only_applied_chunks_that_hold_bad_documents_are_asked_to_mend(begin: Begin) -> None:
    at = begin([*users(3), bad(4), bad(5)], chunk_size=2)
    migrated(at, 1)
    migrated(at, 2)
    assert asks.mend(at.ledger, at.run.id, {}, actor=OPERATOR) == 1
    assert [n for n in (1, 2, 3) if ledger_row(at, n).get("mend")] == [2]


def test_what_is_asked_is_told_before_it_is_written(begin: Begin) -> None:
    at = begin(users(6), chunk_size=2)
    migrated_all(at)
    asks.undo(at.ledger, at.run.id, {"n": {"$lte": 2}}, on_change="keep", actor=OPERATOR)
    while audit.waiting(at.ledger):
        audit.chain(at.ledger)
    told = [row["facts"] for row in audit.entries(at.ledger) if row["action"] == "ask"]
    assert told == [{"ask": "rollback", "chunks": "1-2"}]
    assert asks.left_to_undo(at.ledger, at.run.id) == [1, 2]


def test_spans_are_the_neighbours_that_a_query_finds(begin: Begin, ledger: Ledger) -> None:
    at = begin(users(10), chunk_size=1)
    for n in (1, 2, 3, 7, 9, 10):
        put_state(at, ChunkState.FAILED, n)
    spans = tally.spans(ledger, at.run.id, {"state": "failed"})
    assert spans == [(1, 3), (7, 7), (9, 10)]
    assert tally.span_words(spans) == "1-3,7,9-10"
    assert tally.span_words(spans, most=2) == "1-3,7 and 1 more"
    assert tally.spans(ledger, at.run.id, {"state": "rolled_back"}) == []


def test_every_change_of_a_run_is_told_with_who_and_why(begin: Begin) -> None:
    at = begin(users(1))
    runs.move(at.ledger, at.run.id, RunState.PAUSING, actor=OPERATOR, why="tea")
    while audit.waiting(at.ledger):
        audit.chain(at.ledger)
    last = list(audit.entries(at.ledger, run=at.run.id))[-1]
    assert (last["action"], last["actor"]) == ("run", OPERATOR)
    assert last["facts"] == {"from": "running", "to": "pausing", "why": "tea"}


def test_giving_up_a_chunk_needs_no_transaction(begin: Begin) -> None:
    at = begin(users(2))
    error = {"class": "Failed", "sentence": "it did not work"}
    assert chunks.fail(at.ledger, at.run.id, 1, error, actor="w1@here")
    assert state_of(at) is ChunkState.FAILED
    assert not chunks.fail(at.ledger, at.run.id, 1, error, actor="w1@here")
    told = list(at.ledger["outbox"].find({"action": "chunk"}))
    assert [row["facts"] for row in told] == [{"gave up": error}]
    assert ids(at, "base_users") == []
