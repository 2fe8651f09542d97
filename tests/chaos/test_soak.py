"""The stress test in small: half a minute of chaos ends right, and its check sees what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from mongosplit import migrate, pipelines, plan, provision
from mongosplit.ledger import chunks, leases, plans, runs
from mongosplit.ledger.book import Ledger
from mongosplit.ledger.claims import Attempt
from mongosplit.model import RunState
from mongosplit.mongo import exact
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value
from mongosplit.users import migration
from ops.seed import seed
from ops.soak import subscribers
from ops.soak.chaos import draw_actions
from ops.soak.evidence import differences
from producer.leash import leashed

Document = dict[str, Any]
Planted = dict[Value, bytes]
PLANNER = "a test (planning)"


@pytest.mark.timeout(900)
def test_half_a_minute_of_chaos_ends_without_a_difference() -> None:
    line = [sys.executable, "-m", "ops.soak", "--seconds", "25", "--seed", "8", "--users", "3000"]
    done = subprocess.run(leashed(line), capture_output=True, text=True, timeout=800, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    summary = done.stdout.splitlines()[-1]
    counts = {name: int(count.replace(",", "")) for count, name in COUNT.findall(summary)}
    assert counts["differences"] == 0, said
    for name in ("writes", "kills", "copies", "chunks rolled back"):
        assert counts[name] > 0, said


COUNT = re.compile(r"([\d,]+) ([a-z][a-z -]*[a-z])")


def test_a_seed_gives_the_same_actions_and_another_gives_others() -> None:
    first, again = draw_actions(1, 60, 3), draw_actions(1, 60, 3)
    assert first == again
    assert first != draw_actions(2, 60, 3)
    assert {action.kind for seed_ in range(9) for action in draw_actions(seed_, 60, 1)} == {
        *("kill", "freeze", "again", "rollback", "retry", "wipe")
    }


@pytest.fixture
def planted(database: Database[Document]) -> Planted:
    """Users, a few of them hostile, and subscribers of the application."""
    seed(database["users"], 300, hostile=0.05)
    return subscribers.plant(exact(database), 1)


@pytest.fixture
def at(
    client: MongoClient[Document], database: Database[Document], planted: Planted
) -> Iterator[OpenRun]:
    """Everything migrated, in chunks of 50."""
    ledger = Ledger.at(client, f"test_ledger_{uuid.uuid4().hex[:12]}")
    ledger.prepare()
    facts = {"migration": "users", "fingerprint": pipelines.fingerprint(migration)}
    facts |= {"source": f"{database.name}.users", "actor": "a test", "options": {}}
    run = runs.begin(ledger, name="users", facts=facts, holder=PLANNER)
    plans.write_plan(ledger, run.id, plan.walk(database["users"], chunk_size=50))
    runs.move(ledger, run.id, RunState.PLANNED)
    leases.let_go(ledger, run.id, PLANNER)
    made = provision.provision(database, migration)
    opened = OpenRun(
        client, ledger, runs.move(ledger, run.id, RunState.RUNNING, provisioned=made), migration
    )
    for n in chunks.numbers(ledger, run.id, {"tail": None}):
        migrate.migrate_chunk(opened, n, Attempt("w1@here"))
    yield opened
    client.drop_database(ledger.database.name)


def _one_user(at: OpenRun, **query: Any) -> Document:
    """A user who is migrated and not in quarantine."""
    held = [row["source_id"] for row in at.ledger["quarantine"].find()]
    user = at.data["users"].find_one({"_id": {"$nin": held, "$type": "objectId"}, **query})
    assert user is not None
    return user


def _change_a_part(at: OpenRun) -> None:
    at.data["base_users"].update_one({"_id": _one_user(at)["_id"]}, {"$set": {"isAdmin": True}})


def _delete_a_part(at: OpenRun) -> None:
    at.data["vendors"].delete_one({"_id": _one_user(at, isVendor=True)["_id"]})


def _delete_a_user(at: OpenRun) -> None:
    at.source.delete_one({"_id": _one_user(at)["_id"]})


def _write_a_user(at: OpenRun) -> None:
    key = {"_id": _one_user(at, username={"$type": "string"})["_id"]}
    at.source.update_one(key, {"$set": {"username": "another"}})


def _keep_a_user_in_quarantine(at: OpenRun) -> None:
    row = at.ledger["quarantine"].find_one({"reason": {"$ne": "duplicate"}})
    assert row is not None
    good = _one_user(at)["_id"]
    at.ledger["quarantine"].insert_one({**row, "_id": "another", "source_id": good})


def _let_a_bad_one_out_of_quarantine(at: OpenRun) -> None:
    at.ledger["quarantine"].delete_one({"reason": {"$ne": "duplicate"}})


def _count_wrong(at: OpenRun) -> None:
    at.ledger["chunks"].update_one({"n": 1}, {"$inc": {"parts.vendors": 1}})


def _take_a_chunk_for_rolled_back(at: OpenRun) -> None:
    at.ledger["chunks"].update_one({"n": 2}, {"$set": {"state": "rolled_back"}})


def _harm_a_stranger(at: OpenRun) -> None:
    key = {"email": "gast3@messe.example"}
    at.data[subscribers.COLLECTION].update_one(key, {"$set": {"isSubscribed": True}})


def _harm_an_adopted_one(at: OpenRun) -> None:
    adopted = {"userId": {"$ne": None}, "note": {"$exists": True}}
    changed = at.data[subscribers.COLLECTION].update_one(adopted, {"$set": {"points": -1}})
    assert changed.modified_count


def _take_an_owner_away(at: OpenRun) -> None:
    row = at.ledger["kept"].find_one({"reason": "adopted"})
    assert row is not None
    at.ledger["kept"].delete_one({"_id": row["_id"]})


TAMPERINGS: list[tuple[Callable[[OpenRun], None], str]] = [
    (_change_a_part, r"in base_users is different"),
    (_delete_a_part, r"in vendors is missing"),
    (_delete_a_user, r"in base_users should not be: its user is gone"),
    (_write_a_user, r"in base_users is different"),
    (_keep_a_user_in_quarantine, r"in quarantine for no reason"),
    (_let_a_bad_one_out_of_quarantine, r"is bad and not in quarantine"),
    (_count_wrong, r"chunk 1 \(migrated\) counts \d+ parts vendors, not \d+"),
    (_take_a_chunk_for_rolled_back, r"should not be: its chunk is 2"),
    (_harm_a_stranger, r"is nobody's and not as it was"),
    (_harm_an_adopted_one, r"other values of it were changed"),
    (_take_an_owner_away, r"is nobody's and not as it was"),
]


@pytest.mark.parametrize(
    ("tamper", "sentence"), TAMPERINGS, ids=lambda one: getattr(one, "__name__", "")
)
def test_the_check_finds_what_was_tampered_with_and_nothing_before(
    at: OpenRun, planted: Planted, tamper: Callable[[OpenRun], None], sentence: str
) -> None:
    assert differences(at, planted) == []
    tamper(at)
    found = differences(at, planted)
    assert any(re.search(sentence, one) for one in found), found
