"""Claims count attempts and name sessions, so that the dead block nobody and failures end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest

from mongosplit.errors import Failed, FenceBusy, TransientError
from mongosplit.ledger import claims, fences
from mongosplit.ledger.book import now
from mongosplit.ledger.claims import Attempt, Claim, claimed
from mongosplit.migrate import WORK
from mongosplit.open_run import OpenRun
from tests.integration.conftest import (
    CONFLICT,
    Begin,
    Client,
    failing,
    ids,
    ledger_row,
    migrated,
    users,
)


def attempts(at: OpenRun) -> int:
    return claims.attempts(at.ledger, WORK, at.run.id, 1)


@contextmanager
def held_by(at: OpenRun, worker: str, *, fence: bool = True) -> Iterator[None]:
    """Chunk 1 as a worker holds it in the midst of its transaction."""
    with (
        at.client.start_session() as session,
        claimed(at.ledger, at.client, session, WORK, at.run.id, 1, Attempt(worker)),
    ):
        if fence:
            session.start_transaction()
            fences.take(at.ledger, session, at.run.id, 1)
        yield


def test_attempts_count_failures_and_are_forgotten_after_success(
    begin: Begin, client: Client
) -> None:
    at = begin(users(1))
    for tried in (1, 2):
        with failing(client, "insert", **CONFLICT), pytest.raises(TransientError):
            migrated(at, most=3)
        assert attempts(at) == tried
    assert (ids(at, "base_users"), ledger_row(at)["fence"]) == ([], 0)
    assert migrated(at, most=3).did == "migrated"
    assert (attempts(at), ledger_row(at)["attempts"]) == (0, 3)


def test_a_chunk_whose_attempts_all_ended_in_death_is_given_up(begin: Begin) -> None:
    at = begin(users(1))
    for _ in range(2):
        with pytest.raises(SystemExit), held_by(at, "w0@gone"):
            raise SystemExit
    with pytest.raises(Failed, match="begun 2 times and never ended"):
        migrated(at, most=2)
    assert (ids(at, "base_users"), ledger_row(at)["fence"]) == ([], 0)
    claims.forget_attempts(at.ledger, at.run.id, [1], work=WORK)
    assert migrated(at, most=2).did == "migrated"


def test_waiting_for_a_fence_is_never_counted_below_nothing(begin: Begin) -> None:
    at = begin(users(1))
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(FenceBusy))
        stack.enter_context(held_by(at, "w2@here", fence=False))
        migrated(at)  # while the one waits, the other comes to its end
        raise FenceBusy("held by another transaction")
    assert attempts(at) == 0


def test_a_living_holder_is_waited_for_and_that_is_no_attempt(begin: Begin) -> None:
    at = begin(users(2))
    asked: list[Claim] = []

    def alive(claim: Claim) -> bool:
        return bool(asked.append(claim))

    with held_by(at, "w0@there"):
        began = time.monotonic()
        with pytest.raises(FenceBusy, match=f"chunk 1 of {at.run.id} is held"):
            migrated(at, is_dead=alive)
        assert time.monotonic() - began < 30
        assert attempts(at) == 1  # the holder's own
    assert [(claim.worker, claim.work, claim.n) for claim in asked] == [("w0@there", WORK, 1)]
    assert migrated(at).did == "migrated"


def test_the_open_transaction_of_a_dead_worker_is_ended_at_once(begin: Begin) -> None:
    at = begin(users(2))
    with held_by(at, "w0@gone"):
        at.source.update_one({}, {"$set": {"isAdmin": True}})
        began = time.monotonic()
        assert migrated(at, is_dead=lambda claim: claim.worker == "w0@gone").did == "migrated"
        assert time.monotonic() - began < 30
        assert claims.of_run(at.ledger, at.run.id, work=WORK) == ([], set())
    assert (ledger_row(at)["fence"], len(ids(at, "base_users"))) == (1, 2)


def test_a_wait_is_noted_for_a_chunk_that_nobody_could_claim(begin: Begin) -> None:
    at = begin(users(2))
    assert claims.of_run(at.ledger, at.run.id, work=WORK) == ([], set())
    claims.wait_until(at.ledger, WORK, at.run.id, 1, now() + timedelta(seconds=60))
    assert claims.of_run(at.ledger, at.run.id, work=WORK) == ([], {1})
    assert migrated(at).did == "migrated"
    assert claims.of_run(at.ledger, at.run.id, work=WORK) == ([], set())
