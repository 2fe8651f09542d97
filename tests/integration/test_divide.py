"""A chunk too large for one transaction becomes two, and everything goes on with the parts."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from mongosplit.errors import Failed
from mongosplit.ledger import chunks, runs, tally
from mongosplit.model import ChunkState
from mongosplit.open_run import OpenRun
from mongosplit.plan import KeyMap
from producer import migrating, status
from tests.integration.conftest import (
    Begin,
    Client,
    failing,
    found,
    ids,
    ledger_row,
    migrated,
    migrated_all,
    oid,
    state_of,
    stored,
    users,
    verified_all,
)
from tests.integration.test_rollback import rolled_back

TOO_LARGE = 388


def too_large(
    at: OpenRun, client: Client, *, times: int | None = None
) -> AbstractContextManager[None]:
    """The server finds the transaction too large when parts are inserted, so many times."""
    where = f"{at.data.name}.base_users"
    return failing(client, "insert", times=times, errorCode=TOO_LARGE, namespace=where)


def test_a_chunk_too_large_for_a_transaction_is_halved_until_it_fits(
    begin: Begin, client: Client
) -> None:
    at = begin(users(40), chunk_size=20)
    with too_large(at, client, times=2):
        assert migrated(at, 1).docs in (5, 10)
    numbers = chunks.numbers(at.ledger, at.run.id, {})
    assert len(numbers) > 3
    migrated_all(at)
    assert ids(at, "base_users") == [oid(n) for n in range(1, 41)]
    assert (verified_all(at), found(at)) == (0, set())
    # Every id is in one chunk still.
    ranges = [(n, chunks.get(at.ledger, at.run.id, n).ranges) for n in numbers]
    known = KeyMap(ranges)
    assert {known.chunk_of(oid(n)) for n in range(1, 21)} > {1}


def test_the_halves_are_rolled_back_and_named_by_their_ranges(begin: Begin, client: Client) -> None:
    at = begin(users(30), chunk_size=10)
    with too_large(at, client, times=1):
        migrated(at, 2)
    upper = max(chunks.numbers(at.ledger, at.run.id, {}))
    assert ledger_row(at, upper)["divided_from"] == 2
    migrated(at, 1)
    said = status.facts(at.ledger, runs.get(at.ledger, at.run.id))["applied"]
    assert [row["chunks"] for row in said] == ["1-2"]
    assert said[0]["ids"].endswith(f"..{oid(16)}")
    migrated(at, upper)
    migrated(at, 3)
    whole = status.facts(at.ledger, runs.get(at.ledger, at.run.id))["applied"]
    assert [row["chunks"] for row in whole] == [f"1-3,{upper}"]
    rolled_back(at, upper)
    assert state_of(at, upper) is ChunkState.ROLLED_BACK
    assert ids(at, "base_users") == [oid(n) for n in (*range(1, 16), *range(21, 31))]
    assert verified_all(at) == 0


def test_a_selection_takes_both_halves(begin: Begin, client: Client) -> None:
    at = begin(users(20), chunk_size=10)
    runs.note(at.ledger, at.run.id, selection=[[1, 1]])
    with too_large(at, client, times=1):
        migrated(at, 1)
    upper = max(chunks.numbers(at.ledger, at.run.id, {}))
    assert runs.get(at.ledger, at.run.id).selection == [[1, 1], [upper, upper]]


def test_the_last_chunk_of_a_selection_is_divided_again_and_again(
    begin: Begin, client: Client
) -> None:
    at = begin(users(40), chunk_size=20)
    runs.note(at.ledger, at.run.id, selection=[[2, 2]])
    with too_large(at, client, times=2):
        migrated(at, 2)
    parts = chunks.numbers(at.ledger, at.run.id, {"n": {"$gte": 4}})
    run = runs.get(at.ledger, at.run.id)
    assert (len(parts), run.selection) == (2, [[2, 2], *([n, n] for n in parts)])
    wanted = chunks.numbers(at.ledger, at.run.id, migrating.wanted(run))
    assert wanted == [n for n in (2, *parts) if state_of(at, n) is ChunkState.PENDING]
    assert status.facts(at.ledger, run)["selected"] == f"2,{parts[0]}-{parts[1]}"


def test_one_document_cannot_be_divided(begin: Begin, client: Client) -> None:
    at = begin(users(1))
    with (
        too_large(at, client),
        pytest.raises(Failed, match="too large for one transaction and cannot be divided"),
    ):
        migrated(at)
    assert stored(at, "base_users") == []
    assert tally.totals(at.ledger, at.run.id)["pending"]["chunks"] == 1
