"""What scripts rely on: the keys of every `-o json`, nothing else on stdout, and the exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mongosplit.open_run import open_run
from ops.seed import seed
from producer.conclusion import conclude
from tests.e2e.conftest import Shop
from tests.e2e.typed import Said, Typed

USERS = 300
STATES = {"pending", "migrated", "verified", "failed", "rolled_back"}
STATUS = {
    *("run", "migration", "source", "state", "chunks", "documents", "targets", "pace", "rate"),
    *("eta_seconds", "seconds", "waves", "mismatches", "quarantine", "failures", "next"),
}
VERIFY = {"run", "checked", "mismatches", "mismatches_total", "unchecked_chunks"}


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    seed(shop.data["users"], USERS, hostile=0.05)
    return Typed(shop, monkeypatch, capsys)


def value(said: Said, *, code: int = 0) -> Any:
    """The one JSON value on stdout."""
    assert said.code == code, said.err
    return json.loads(said.out)


def spoken(typed: Typed, line: str, *, code: int = 0) -> Any:
    return value(typed(*line.split(), "-o", "json"), code=code)


def split(typed: Typed) -> dict[str, Any]:
    """Drive a run to its end with a real worker, as a process; what `start -o json` printed."""
    line = ("start", "users", "--yes", "--local-workers", "1", "--chunk-size", "100")
    done = typed.shop.mongosplit(*line, "-o", "json")
    assert "users-1: " in done.stderr, "progress is talk and belongs on stderr"
    found: dict[str, Any] = value(Said(done.returncode, done.stdout, done.stderr))
    return found


def test_before_a_run_plan_check_and_status_speak_json(typed: Typed) -> None:
    dry = spoken(typed, "plan --dry-run --chunk-size 100")
    assert dry == {"run": None, "chunks": dry["chunks"], "docs": USERS}
    found = spoken(typed, "check")
    assert all(set(finding) == {"check", "verdict", "sentence", "hint"} for finding in found)
    assert {finding["verdict"] for finding in found} <= {"ok", "warning", "refusal"}
    assert {finding["check"] for finding in found} >= {"mongodb", "source", "targets", "redis"}

    assert spoken(typed, "plan --yes --chunk-size 100") == {**dry, "run": "users-1"}
    status = spoken(typed, "status users")
    assert set(status) >= STATUS
    assert status["state"] == "planned"
    assert status["eta_seconds"] is None
    assert status["next"] == "mongosplit start users"
    assert refusals(typed) == ["run"]


def test_a_run_speaks_json_from_start_to_the_damage_it_finds(typed: Typed) -> None:
    started = split(typed)
    status = spoken(typed, "status users")
    assert set(status) == set(started) >= STATUS
    assert status["run"] == "users-1"
    assert status["state"] == "verified"
    assert set(status["chunks"]) == STATES
    assert sum(status["chunks"].values()) == status["chunks"]["verified"]
    documents, quarantined = status["documents"], status["documents"]["quarantined"]
    assert set(documents) == {"source", "migrated", "quarantined", "adopted"}
    assert documents["migrated"] + quarantined == documents["source"] == USERS
    pace = status["pace"]
    assert {"rate_limit", "set_by", "until", "schedule", "allowed", "held_back_by"} <= set(pace)
    assert (pace["rate_limit"], pace["limit"]) == (None, "no limit")
    assert set(status["targets"]) == {"base_users", "vendors", "newsletter_subscribers"}
    assert status["failures"] == []

    assert_quarantine(typed, quarantined, status["quarantine"])
    verified = spoken(typed, "verify users")
    assert set(verified) >= VERIFY
    assert verified["run"] == "users-1"
    assert verified["checked"] == USERS
    assert verified["mismatches"] == []
    assert verified["mismatches_total"] == verified["unchecked_chunks"] == 0
    assert_damage_is_told(typed)
    assert refusals(typed) == ["run"], "what the run wrote is no foreign document"


def refusals(typed: Typed) -> list[str]:
    """The checks that refuse a further plan."""
    found = spoken(typed, "check", code=3)
    return [finding["check"] for finding in found if finding["verdict"] == "refusal"]


def assert_quarantine(typed: Typed, count: int, reasons: list[dict[str, Any]]) -> None:
    listed = spoken(typed, "quarantine list users")
    assert set(listed) == {"run", "reasons", "documents"}
    assert listed["reasons"] == reasons
    assert sum(row["count"] for row in reasons) == len(listed["documents"]) == count > 0
    for row in listed["documents"]:
        assert set(row) >= {"source_id", "reason", "path", "message"}
        assert (row["reason"], row["path"]) in {(why["reason"], why["path"]) for why in reasons}
    assert len(spoken(typed, "quarantine list users --limit 2")["documents"]) == 2


def assert_damage_is_told(typed: Typed) -> None:
    data = typed.shop.data
    data.command("collMod", "base_users", validationLevel="off")
    victim = data["base_users"].find_one_and_update(
        {"isAdmin": False, "_id": {"$type": "objectId"}}, {"$set": {"isAdmin": 0}}
    )
    assert victim is not None
    said = typed("verify", "users", "-o", "json")
    found = value(said, code=4)
    assert set(found) >= VERIFY
    assert found["mismatches_total"] == 1
    [mismatch] = found["mismatches"]
    assert (
        mismatch.items()
        >= {
            "id": {"$oid": str(victim["_id"])},
            "target": "base_users",
            "field": "isAdmin",
            "kind": "different",
        }.items()
    )
    assert said.err.splitlines() == [
        "mongosplit: 1 difference found in users-1",
        "  mongosplit status users-1",
    ]
    assert spoken(typed, "status")["mismatches"] == 1


def test_coverage_speaks_json_with_a_count_for_every_path(typed: Typed) -> None:
    found = spoken(typed, "coverage")
    assert found["complete"] is True
    assert found["documents"] == USERS
    for path in found["paths"]:
        assert set(path) == {"path", "documents", "types", "mapped_to", "residual"}
    by_path = {path["path"]: path for path in found["paths"]}
    assert by_path["kontakt.email"]["residual"] == 0
    assert "base_users.email" in by_path["kontakt.email"]["mapped_to"]
    assert by_path["__v"]["mapped_to"] == []
    assert by_path["__v"]["residual"] == by_path["__v"]["documents"]


def test_a_detached_start_speaks_json_too(typed: Typed) -> None:
    status = spoken(typed, "start --detach --yes")
    assert set(status) >= STATUS
    assert status["state"] == "running"


def test_failed_chunks_are_told_in_json_and_in_one_sentence(typed: Typed) -> None:
    assert spoken(typed, "start --detach --yes")["state"] == "running"
    error = {"class": "Failed", "sentence": "chunk 1 of users-1: the disk is full"}
    typed.shop.ledger["chunks"].update_many(
        {"tail": None}, {"$set": {"state": "failed", "error": error}}
    )
    typed.shop.ledger["chunks"].update_many({"tail": True}, {"$set": {"checked": 1}})
    said = typed("start", "-o", "json")
    status = value(said, code=1)
    count = status["chunks"]["failed"]
    assert status["failures"][0] == {"chunk": 1, **error}
    assert f"mongosplit: {count} chunks of users-1 failed: {error['sentence']}\n" in said.err
    assert said.err.endswith("\n  mongosplit retry users\n")


def test_chunks_that_could_not_be_compared_are_told_and_not_counted_as_compared(
    typed: Typed,
) -> None:
    shop = typed.shop
    assert spoken(typed, "start --detach --yes --chunk-size 100")["state"] == "running"
    shop.ledger["chunks"].update_many({}, {"$set": {"state": "migrated", "docs": 50, "checked": 1}})
    error = {"class": "DefinitionChanged", "sentence": "w1@there holds another version"}
    shop.ledger["chunks"].update_one({"n": 1}, {"$set": {"check_error": error}})
    shop.ledger["runs"].update_one({}, {"$set": {"state": "verified"}})

    said = typed("start", "-o", "json")
    assert value(said, code=1)["state"] == "migrated"
    assert "mongosplit: 1 chunk of users-1 could not be verified" in said.err
    assert said.err.endswith("\n  mongosplit verify users\n")
    at = open_run(shop.data.client, shop.ledger, "users-1", holder="a test")
    assert conclude(at).checked == 50 * (shop.ledger["chunks"].count_documents({}) - 1)
