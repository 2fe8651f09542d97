"""The ledger refuses what its tables do not allow, and lists what it holds in order."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from mongosplit import plan, raw
from mongosplit.errors import (
    DocumentError,
    FenceBusy,
    MongosplitError,
)
from mongosplit.keyspace import Bracket, Range
from mongosplit.ledger import (
    asks,
    checked,
    chunks,
    fences,
    mismatches,
    plans,
    quarantine,
    tally,
    waves,
)
from mongosplit.ledger.book import INDEXES, Ledger
from mongosplit.ledger.mismatches import KEPT, Mismatch
from mongosplit.ledger.quarantine import Bad
from mongosplit.model import CHUNK_ARROWS, ChunkState, Run
from mongosplit.mongo import transact
from mongosplit.raw import Value
from tests.integration.conftest import Client, at_once, oid

ODD = Value(2, b"\x03\x00\x00\x00\xff\xfe\x00")
"""A text that is not UTF-8."""


def one_chunk(ledger: Ledger, run: str) -> None:
    plans.write_plan(ledger, run, [plan.PlannedChunk(1, (Range(Bracket.STRING),), 5)])


def test_a_ledger_may_be_prepared_by_many_at_once_and_again(client: Client, ledger: Ledger) -> None:
    client.drop_database(ledger.database.name)
    at_once(4, lambda _: ledger.prepare())
    ledger.prepare()
    assert set(ledger.database.list_collection_names()) == set(INDEXES)
    with pytest.raises(KeyError):
        ledger["wave"]


def test_every_arrow_of_a_chunk_works_and_every_other_is_refused(
    client: Client, ledger: Ledger, planning: Run
) -> None:
    for before, after in product(ChunkState, ChunkState):
        ledger["chunks"].update_one({}, {"$set": {"state": before, "docs": 0}})

        def change(session: Any, to: ChunkState = after) -> None:
            chunk = fences.take(ledger, session, planning.id, 1)
            chunks.record(ledger, session, chunk, to, {"docs": 3}, actor="w1", told={})

        with client.start_session() as session:
            if (before, after) in CHUNK_ARROWS:
                transact(session, change)
            else:
                with pytest.raises(MongosplitError, match=f"is {before}, not to be {after}"):
                    transact(session, change)
        done = (after, 3) if (before, after) in CHUNK_ARROWS else (before, 0)
        chunk = chunks.get(ledger, planning.id, 1)
        assert (chunk.state, chunk.docs) == done
    assert chunk.fence == len(CHUNK_ARROWS)


@pytest.mark.parametrize("state", ChunkState)
def test_only_a_pending_chunk_fails_and_only_a_failed_one_is_reopened(
    ledger: Ledger, planning: Run, state: ChunkState
) -> None:
    ledger["chunks"].update_one({}, {"$set": {"state": state}})
    error = {"class": "Failed", "sentence": "it did not work"}
    failed = chunks.fail(ledger, planning.id, 1, error, actor="w1")
    assert failed == (state is ChunkState.PENDING)
    listed = [found.error for found in tally.failures(ledger, planning.id)]
    assert (listed == [{"class": "Failed", "sentence": "it did not work"}]) == failed
    fence = chunks.get(ledger, planning.id, 1).fence
    assert fence == int(failed)
    reopened = asks.reopen(ledger, planning.id, ChunkState.FAILED, {}, actor="an operator")
    assert reopened == int(failed or state is ChunkState.FAILED)
    chunk = chunks.get(ledger, planning.id, 1)
    assert (chunk.state, chunk.error) == (ChunkState.PENDING if reopened else state, None)
    assert chunk.fence == fence + reopened


def test_what_could_not_be_verified_is_unchecked_again_by_a_retry(
    ledger: Ledger, planning: Run
) -> None:
    error = {"class": "Failed", "sentence": "no"}
    checked.not_checked(ledger, planning.id, 1, 1, error, actor="w1")
    assert chunks.numbers(ledger, planning.id, tally.UNWELL) == [1]
    assert chunks.numbers(ledger, planning.id, checked.unchecked(1)) == []
    assert asks.recheck(ledger, planning.id, {}, actor="an operator") == 1
    assert chunks.numbers(ledger, planning.id, tally.UNWELL) == []
    assert chunks.numbers(ledger, planning.id, checked.unchecked(1)) == [1]


def test_a_fence_is_held_by_one_transaction(client: Client, ledger: Ledger, planning: Run) -> None:
    with client.start_session() as first, client.start_session() as second:
        with first.start_transaction():
            assert fences.take(ledger, first, planning.id, 1).fence == 1
            second.start_transaction()
            with pytest.raises(FenceBusy):
                fences.take(ledger, second, planning.id, 1)
        second.abort_transaction()
        with second.start_transaction():
            assert fences.take(ledger, second, planning.id, 1).fence == 2


def test_a_wave_is_closed_exactly_once(ledger: Ledger, planning: Run) -> None:
    for n in (1, 2):
        assert waves.open_next(ledger, planning.id, [n, n + 1]).n == n
    closed = at_once(8, lambda n: waves.close(ledger, planning.id, 1, f"closer {n}"))
    [wave] = [found for found in closed if found is not None]
    assert (wave.n, wave.chunks) == (1, (1, 2))
    assert [found.n for found in waves.open_waves(ledger, planning.id)] == [2]
    assert (waves.close(ledger, planning.id, 9, "me"), waves.count(ledger, planning.id)) == (
        None,
        2,
    )


def test_quarantine_is_replaced_chunk_by_chunk_and_listed_in_order(
    client: Client, ledger: Ledger, planning: Run
) -> None:
    wrong = DocumentError("missing", "kontakt.email", "it is missing", target="base_users")
    taken = DocumentError("duplicate", "username", "it is taken", target="base_users")
    ids = [ODD, *(raw.encode(value) for value in (oid(1), None, {"a": 1}))]
    with client.start_session() as session:
        for chunk, error, count_ in ((10, taken, 4), (10, wrong, 3), (2, taken, 1)):
            bad = [Bad(found, error) for found in (ids if chunk == 10 else [raw.encode(7)])]
            quarantine.replace(ledger, session, planning.id, chunk, bad[:count_], attempts=3)
    rows = quarantine.listed(ledger, planning.id, limit=3)
    assert [row["chunk"] for row in rows] == [2, 10, 10]
    assert rows[0] == {
        "source_id": 7,
        "chunk": 2,
        "reason": "duplicate",
        "path": "username",
        "message": "it is taken",
        "target": "base_users",
        "attempts": 3,
        "at": rows[0]["at"],
    }
    assert quarantine.by_reason(ledger, planning.id) == [
        {"reason": "missing", "path": "kontakt.email", "count": 3},
        {"reason": "duplicate", "path": "username", "count": 1},
    ]
    assert quarantine.held(ledger, planning.id, 10) == set(ids[:3])


def test_mismatches_are_replaced_chunk_by_chunk_and_a_thousand_are_listed(
    ledger: Ledger, planning: Run
) -> None:
    many = [Mismatch(raw.encode(n), "vendors", "slogan", "different") for n in range(KEPT + 5)]
    mismatches.replace(ledger, planning.id, 10, many)
    mismatches.replace(ledger, planning.id, 2, [Mismatch(ODD, "vendors", "", "ghost")])
    assert ledger["mismatches"].count_documents({}) == KEPT + 1
    mismatches.replace(ledger, planning.id, 10, many[:2])
    rows = mismatches.listed(ledger, planning.id)
    assert [(row["chunk"], row["kind"]) for row in rows] == [
        *((2, "ghost"), (10, "different"), (10, "different"))
    ]
    assert mismatches.listed(ledger, planning.id, limit=1) == rows[:1]
    mismatches.replace(ledger, planning.id, 2, [])
    assert {row["chunk"] for row in mismatches.listed(ledger, planning.id)} == {10}
