"""The oplog guard: a run that the oplog would not outlast is paused, once that is sure."""

from __future__ import annotations

import math

import pytest

from mongosplit.ledger import runs
from mongosplit.model import RunState
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import oplog_guard
from producer.oplog_guard import LOOKS, Guard, verdict, window_seconds
from tests.integration.conftest import Begin, Client, users


@pytest.fixture
def at(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> OpenRun:
    monkeypatch.setattr(oplog_guard, "LOOK_SECONDS", 0.0)
    return begin(users(2))


def looked(guard: Guard, at: OpenRun, eta_seconds: float | None, times: int) -> RunState:
    for _ in range(times):
        guard.look(at, runs.get(at.ledger, at.run.id), eta_seconds)
    return runs.get(at.ledger, at.run.id).state


def short(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(oplog_guard, "window_seconds", lambda _: seconds)


def test_the_oplog_of_a_young_server_that_is_not_full_says_nothing(client: Client) -> None:
    assert window_seconds(client) == math.inf


def test_the_verdict_names_both_times_and_the_multiple() -> None:
    assert verdict(7200.0, 3600.0, 2.0) == ""
    assert verdict(7199.0, 3600.0, 0.0) == ""
    assert verdict(7140.0, 3600.0, 2.0) == (
        "the oplog reaches back 1 h 59 min, and 2 times the 1 h 00 min still needed are wanted"
    )


def test_a_run_that_the_oplog_does_not_outlast_is_paused_and_says_why(
    at: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 100.0)
    assert looked(Guard(Settings()), at, 60.0, LOOKS) is RunState.PAUSING
    asked = runs.get(at.ledger, at.run.id).asked
    assert asked["actor"] == "oplog guard"
    assert asked["why"].startswith("the oplog reaches back 1 min 40 s")


def test_one_wild_estimate_pauses_nothing(at: OpenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, 100.0)
    guard = Guard(Settings())
    assert looked(guard, at, 60.0, LOOKS - 1) is RunState.RUNNING
    assert looked(guard, at, 1.0, 1) is RunState.RUNNING
    assert looked(guard, at, 60.0, LOOKS - 1) is RunState.RUNNING


def test_a_run_whose_end_is_not_known_is_left_alone(
    at: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 0.0)
    assert looked(Guard(Settings()), at, None, 2 * LOOKS) is RunState.RUNNING
