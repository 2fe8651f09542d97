"""Two operators at once: one goes on, the other is told who is at work, and nothing is doubled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from mongosplit.ledger import leases, runs
from mongosplit.ledger.book import Ledger
from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes, refused

USERS = 400


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    seed(shop.data["users"], USERS)
    return Typed(shop, monkeypatch, capsys)


def driver_of(shop: Shop) -> str:
    """Who holds the lease of the run that is running."""
    row = shop.ledger["runs"].find_one({"state": "running"}) or {}
    return str((row.get("lease") or {}).get("holder", ""))


def test_a_second_driver_is_told_who_drives_and_the_first_goes_on(typed: Typed) -> None:
    shop = typed.shop
    first = shop.begin("start", "users", "--yes", "--chunk-size", "100")
    holder = until(lambda: driver_of(shop), seconds=60)
    second = typed("start", "users", "--yes")
    assert second.code == 3
    assert f"mongosplit: run users-1 is being driven by {holder}\n" in second.err
    assert second.err.endswith("\n  watch it: mongosplit status users-1 --watch\n")
    assert holder.endswith(f"(process {first.pid})")
    assert second.out == ""
    shop.worker()
    assert first.wait(timeout=60) == 0, shop.log("command")


def test_of_two_plans_at_once_one_is_entered_whole_and_the_other_leaves_nothing(
    shop: Shop,
) -> None:
    seed(shop.data["users"], USERS)
    line = ("plan", "users", "--yes", "--chunk-size", "10")
    both = [shop.begin(*line), shop.begin(*line)]
    codes = sorted(process.wait(timeout=60) for process in both)
    assert codes == [0, 3], shop.log("command")
    assert "has an unfinished run already: users-1 is plan" in shop.log("command")
    assert "Traceback" not in shop.log("command")
    [run] = shop.ledger["runs"].find()
    assert run["state"] == "planned"
    assert shop.ledger["chunks"].count_documents({}) == run["counts"]["chunks"] == USERS // 10 + 1


def test_a_plan_that_meets_a_living_planner_leaves_its_half_made_plan_alone(typed: Typed) -> None:
    shop = typed.shop
    shop.ledger.prepare()
    run = runs.begin(shop.ledger, name="users", facts=facts(shop), holder="a planner")
    with nothing_changes(shop):
        said = typed("plan", "--yes")
    assert said.code == 3
    assert f"mongosplit: {run.source} has an unfinished run already: users-1 is planning\n" in (
        said.err
    )


def test_a_planning_that_was_broken_off_is_given_up_and_planned_anew(typed: Typed) -> None:
    shop = typed.shop
    shop.ledger.prepare()
    run = runs.begin(shop.ledger, name="users", facts=facts(shop), holder="a planner")
    long_ago = {"created": run.created.replace(year=2020), "lease": None}
    shop.ledger["runs"].update_one({"_id": run.id}, {"$set": long_ago})
    with nothing_changes(shop):
        refused(
            typed("start", run.id, "--yes"),
            3,
            "users-1 is planning and cannot be started",
            "mongosplit status users-1",
        )
    said = typed("plan", "--yes")
    assert said.code == 0
    assert f"warning: users-1 of {run.source} is being planned, or its" in said.err
    states = {row["_id"]: row["state"] for row in shop.ledger["runs"].find()}
    assert states == {"users-1": "cancelled", "users-2": "planned"}


def facts(shop: Shop) -> dict[str, object]:
    source = shop.data["users"].full_name
    options = {"fingerprint": "", "options": {}, "actor": "a test"}
    return {"migration": "users", "source": source, **options}


@contextmanager
def held_by(holder: str, ledger: Ledger) -> Iterator[None]:
    """Another process has the lease and goes on renewing it."""
    done = Event()

    def renew() -> None:
        while not done.wait(0.1):
            leases.hold(ledger, "users-1", holder)

    leases.hold(ledger, "users-1", holder)
    renewing = Thread(target=renew)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()


def test_a_planned_run_that_another_is_starting_gets_no_targets_from_here(typed: Typed) -> None:
    shop = typed.shop
    assert typed("plan", "users", "--yes").code == 0
    with held_by("somebody@there", shop.ledger):
        said = typed("start", "users", "--yes")
    refused(
        said,
        3,
        "run users-1 is being driven by somebody@there",
        "watch it: mongosplit status users-1 --watch",
    )
    assert shop.data.list_collection_names() == ["users"]
    assert [run["state"] for run in shop.ledger["runs"].find()] == ["planned"]


def test_of_two_starts_at_once_one_drives_and_the_other_is_told(typed: Typed) -> None:
    shop = typed.shop
    assert typed("plan", "users", "--yes", "--chunk-size", "100").code == 0
    both = [shop.begin("start", "users", "--yes"), shop.begin("start", "users", "--yes")]
    until(lambda: 3 in [process.poll() for process in both], seconds=60)
    assert "mongosplit: run users-1 is being driven by " in shop.log("command")
    shop.worker()
    codes = sorted(process.wait(timeout=60) for process in both)
    assert codes == [0, 3], shop.log("command")
    [run] = shop.ledger["runs"].find()
    assert run["state"] == "verified"
    assert all(made["created"] for made in run["provisioned"]), "what was made must be noted"
