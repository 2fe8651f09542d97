"""A chunk is migrated once and whole, whatever happens to its messages, workers and commits."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import bson
import pytest

from mongosplit import reference
from mongosplit.errors import FenceBusy, MongosplitError, TransientError
from mongosplit.ledger import claims, tally
from mongosplit.ledger.book import now
from mongosplit.migrate import WORK
from mongosplit.model import ChunkState
from mongosplit.open_run import OpenRun
from mongosplit.users import migration
from tests.conditions import until
from tests.integration.conftest import (
    CONFLICT,
    TARGETS,
    Begin,
    Client,
    content,
    failing,
    ids,
    ledger_row,
    migrated,
    migrated_all,
    put_state,
    stored,
    user,
    users,
)

REPLY_LOST = {"writeConcernError": {"code": 64, "errmsg": "no majority in time"}}
READER = {"isVendor": False, "kontakt.mailNewsletter": False}


def nothing_is_there(at: OpenRun) -> bool:
    return not any(ids(at, name) for name in TARGETS) and ledger_row(at)["fence"] == 0


def test_a_chunk_moves_whole_and_its_row_says_what_was_done(begin: Begin) -> None:
    documents = [user(1), user(2, READER), user(3, {"isVendor": False}), user(4)]
    at = begin(documents, chunk_size=3)
    outcome = migrated(at, task="t-1", wave=7)

    assert outcome.to_message() | {"milliseconds": 0} == {
        "run": at.run.id,
        "n": 1,
        "did": "migrated",
        "state": "migrated",
        "docs": 3,
        "milliseconds": 0,
    }
    split = [reference.split(migration, bson.encode(document)) for document in documents[:3]]
    everything = []
    for key, target in migration.keys.items():
        parts = [found[key] for found in split if key in found]
        assert stored(at, target.collection) == parts
        everything += parts
    row = ledger_row(at)
    assert row["parts"] == {"base_users": 3, "vendors": 1, "newsletter_subscribers": 2}
    assert row["digest"] == hashlib.sha256(b"".join(everything)).hexdigest()
    assert (row["docs"], row["quarantined"], row["adopted"]) == (3, 0, 0)
    assert (row["state"], row["fence"], row["error"]) == ("migrated", 1, None)
    assert (row["worker"], row["task_id"], row["wave"], row["attempts"]) == ("w1@here", "t-1", 7, 1)
    assert row["milliseconds"] >= 0
    assert now() - row["finished"] < timedelta(minutes=1)
    assert claims.of_run(at.ledger, at.run.id, work=WORK) == ([], set())
    assert tally.parts_written(at.ledger, at.run.id) == row["parts"]


def test_every_chunk_moves_and_the_source_is_left_as_it_was(begin: Begin) -> None:
    at = begin(users(7), chunk_size=3)
    before = content(at)[f"{at.data.name}.users"]
    assert [outcome.docs for outcome in migrated_all(at)] == [3, 3, 1]
    assert content(at)[f"{at.data.name}.users"] == before
    assert ids(at, "base_users") == ids(at, "users")


def test_parts_and_ledger_row_are_written_in_one_transaction(begin: Begin, client: Client) -> None:
    at = begin(users(2))
    migrated(at)
    touched = {f"{at.data.name}.{name}" for name in TARGETS}
    touched |= {f"{at.ledger.database.name}.{name}" for name in ("chunks", "outbox")}
    found = client.local["oplog.rs"].find({"o.applyOps.ns": f"{at.data.name}.vendors", "op": "c"})
    together = [{op["ns"] for op in entry["o"]["applyOps"]} for entry in found]
    assert together == [touched]


def test_second_delivery_of_a_chunk_writes_nothing(begin: Begin) -> None:
    at = begin(users(3))
    migrated(at)
    before = content(at)
    outcome = migrated(at, task="again", wave=2)
    assert (outcome.did, outcome.state, outcome.docs) == ("nothing", "migrated", 0)
    assert content(at) == before


def test_of_four_deliveries_at_once_exactly_one_migrates(begin: Begin) -> None:
    at = begin(users(200), chunk_size=50)

    def deliver(n: int) -> str:
        try:
            return migrated(at, n).did
        except FenceBusy:
            return "busy"

    with ThreadPoolExecutor(4) as pool:
        for n in range(1, 5):
            did = list(pool.map(deliver, [n] * 4))
            assert did.count("migrated") == 1
            assert set(did) <= {"migrated", "nothing", "busy"}
            assert ledger_row(at, n)["fence"] == 1
    assert len(ids(at, "base_users")) == 200
    assert {row["attempts"] for row in at.ledger["claims"].find()} == {0}


@pytest.mark.parametrize("state", sorted(set(ChunkState) - {ChunkState.PENDING}))
def test_a_chunk_that_is_not_pending_is_not_touched(begin: Begin, state: ChunkState) -> None:
    at = begin(users(2))
    put_state(at, state)
    before = content(at)
    assert (migrated(at).did, migrated(at).state) == ("nothing", state.value)
    assert content(at) == before


def test_a_chunk_that_is_not_in_the_ledger_is_an_error_with_a_sentence(begin: Begin) -> None:
    at = begin(users(1))
    with pytest.raises(MongosplitError, match=f"run {at.run.id} has no chunk 99"):
        migrated(at, 99)


def test_a_crash_before_commit_leaves_nothing_and_the_next_try_migrates(
    begin: Begin, client: Client
) -> None:
    at = begin(users(3))
    with (
        failing(client, "commitTransaction", closeConnection=True),
        pytest.raises(TransientError),
    ):
        migrated(at)
    assert nothing_is_there(at)
    with pytest.raises(FenceBusy):  # what the crash left open still holds the fence
        migrated(at)
    client.admin.command("killAllSessions", [])
    assert nothing_is_there(at)
    assert migrated(at).did == "migrated"
    assert len(ids(at, "base_users")) == 3


@pytest.mark.parametrize("how", [REPLY_LOST, {"closeConnection": True}], ids=["reply", "network"])
def test_a_commit_that_is_not_heard_of_has_its_effect_once(
    begin: Begin, client: Client, how: dict[str, Any]
) -> None:
    at = begin(users(3))
    with failing(client, "commitTransaction", times=2, **how):
        assert migrated(at).did == "migrated"
    assert (len(ids(at, "base_users")), ledger_row(at)["fence"]) == (3, 1)


def test_a_commit_nobody_ever_hears_of_is_found_done_by_the_next_try(
    begin: Begin, client: Client
) -> None:
    at = begin(users(3))
    with failing(client, "commitTransaction", **REPLY_LOST), pytest.raises(TransientError):
        migrated(at)
    assert migrated(at).did == "nothing"
    # A majority has it a moment after the node that took it.
    until(lambda: (len(ids(at, "base_users")), ledger_row(at)["fence"]) == (3, 1))


@pytest.mark.parametrize("how", [CONFLICT, {"closeConnection": True}], ids=["conflict", "network"])
@pytest.mark.parametrize("command", ["aggregate", "insert"])
def test_a_passing_error_is_tried_again_at_once(
    begin: Begin, client: Client, command: str, how: dict[str, Any]
) -> None:
    at = begin(users(3))
    with failing(client, command, times=2, **how):
        assert migrated(at).did == "migrated"
    assert (len(ids(at, "vendors")), ledger_row(at)["attempts"]) == (3, 1)


@pytest.mark.parametrize("code", [11601, 290], ids=["interrupted", "lasted too long"])
def test_what_was_cut_short_is_worth_another_try(begin: Begin, client: Client, code: int) -> None:
    at = begin(users(1))
    with failing(client, "insert", times=1, errorCode=code), pytest.raises(TransientError):
        migrated(at)
    assert migrated(at).did == "migrated"
