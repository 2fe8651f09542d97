"""The pace of a run: which limit holds when, who set it, and what a worker makes of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mongosplit.ledger import asks, audit, paces, runs
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import ChunkState, Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.pace_schedule import parse_schedule
from mongosplit.rate_limit import TOO_LONG, Waited
from mongosplit.settings import read_settings
from mongosplit.verdict import Verdict
from producer import pacing_facts
from producer.leash import leashed
from producer.local_workers import command
from tests.conditions import until
from tests.integration.conftest import Begin, migrated, put_state, state_of, users
from worker import app as celery_app
from worker import pacing, tasks, verification

ANNA = "anna@shop"
NOON = datetime(2026, 11, 22, 12)


def limit(ledger: Ledger, run: Run, moment: datetime = NOON) -> paces.Limit:
    return paces.limit_of(runs.get(ledger, run.id).pace, moment)


def test_a_run_has_no_limit_until_one_is_set(ledger: Ledger, planning: Run) -> None:
    assert limit(ledger, planning) == paces.NO_LIMIT
    paces.set_base(ledger, planning.id, 5000.0, actor=ANNA)
    assert limit(ledger, planning).sentence == f"5,000 documents/s, set by {ANNA}"
    paces.set_base(ledger, planning.id, None, actor=ANNA)
    assert limit(ledger, planning).rate is None


def test_a_spell_ends_by_itself_and_the_former_pace_returns(ledger: Ledger, planning: Run) -> None:
    paces.set_base(ledger, planning.id, 5000.0, actor=ANNA)
    paces.set_spell(ledger, planning.id, 100.0, NOON + timedelta(minutes=30), actor="ben")
    held = limit(ledger, planning)
    assert (held.rate, held.actor) == (100.0, "ben")
    assert held.sentence == "100 documents/s, set by ben until 22 Nov 12:30:00 UTC"
    after = limit(ledger, planning, NOON + timedelta(minutes=30))
    assert (after.rate, after.actor) == (5000.0, ANNA)


def test_a_schedule_is_followed_by_the_clock_alone(ledger: Ledger, planning: Run) -> None:
    schedule = parse_schedule("22:00-06:00 max, else 500/s")
    paces.set_schedule(ledger, planning.id, schedule, actor=ANNA)
    assert (limit(ledger, planning).rate, limit(ledger, planning).until) == (
        500.0,
        NOON.replace(hour=22),
    )
    night = NOON.replace(hour=23)
    assert limit(ledger, planning, night).rate is None
    # A pace that is set by hand ends the schedule; one for a while does not.
    paces.set_spell(ledger, planning.id, 7.0, NOON + timedelta(hours=1), actor="ben")
    assert limit(ledger, planning).rate == 7.0
    assert limit(ledger, planning, night).rate is None
    paces.set_base(ledger, planning.id, 9.0, actor="ben")
    assert limit(ledger, planning, night).rate == 9.0


def test_every_pace_that_is_set_is_told(ledger: Ledger, planning: Run) -> None:
    paces.set_base(ledger, planning.id, 5000.0, actor=ANNA)
    paces.set_signals(ledger, planning.id, "off", actor=ANNA)
    while audit.waiting(ledger):
        audit.chain(ledger)
    told = [row for row in audit.entries(ledger) if row["action"] == "pace"]
    assert [row["facts"] for row in told] == [{"rate": "5,000 documents/s"}, {"signals": "off"}]
    assert {row["actor"] for row in told} == {ANNA}


def verdict(**changes: Any) -> Verdict:
    facts = {"allowed": None, "stop": False, "reason": "", "signal": "", "since": NOON, "at": NOON}
    return Verdict(**{**facts, **changes})


def throttled(ledger: Ledger, run: Run) -> None:
    ledger["runs"].update_one({"_id": run.id}, {"$set": {"options.throttle": "probe-latency=250"}})


def rate(ledger: Ledger, run: Run) -> float | None:
    return pacing.rate_of(paces.pulse(ledger, run.id))


@pytest.mark.parametrize(
    ("base", "said", "expected"),
    [
        (None, verdict(), None),
        (500.0, verdict(), 500.0),
        (500.0, verdict(allowed=80.0, signal="cache-dirty"), 80.0),
        (50.0, verdict(allowed=80.0, signal="cache-dirty"), 50.0),
        (None, verdict(allowed=80.0, signal="cache-dirty"), 80.0),
        (500.0, verdict(stop=True, allowed=0.0, signal="cache-dirty"), 0.0),
    ],
)
def test_the_fleet_goes_at_the_lower_of_limit_and_verdict(
    ledger: Ledger, planning: Run, base: float | None, said: Verdict, expected: float | None
) -> None:
    throttled(ledger, planning)
    paces.set_base(ledger, planning.id, base, actor=ANNA)
    paces.publish(ledger, planning.id, said)
    assert rate(ledger, planning) == expected


def test_a_verdict_nobody_has_renewed_stops_the_fleet(ledger: Ledger, planning: Run) -> None:
    throttled(ledger, planning)
    assert rate(ledger, planning) == 0.0  # nobody has looked yet
    paces.publish(ledger, planning.id, verdict())
    assert rate(ledger, planning) is None
    old = now() - timedelta(seconds=3.5)
    ledger["runs"].update_one({"_id": planning.id}, {"$set": {"health.at": old}})
    assert rate(ledger, planning) == 0.0
    ledger["runs"].update_one({"_id": planning.id}, {"$set": {"options.throttle": "off"}})
    assert rate(ledger, planning) is None


def test_the_pace_is_said_with_what_holds_it_back(ledger: Ledger, planning: Run) -> None:
    throttled(ledger, planning)
    paces.set_base(ledger, planning.id, 500.0, actor=ANNA)

    def said() -> str:
        return pacing_facts.sentence(pacing_facts.facts(runs.get(ledger, planning.id), now()))

    assert said() == f"500 documents/s, set by {ANNA}"
    slow = verdict(allowed=80.0, signal="cache-dirty", reason="cache-dirty 0.190 ≥ 0.15")
    paces.publish(ledger, planning.id, slow)
    assert said() == "80 documents/s: cache-dirty 0.190 ≥ 0.15"
    reason = "cache-dirty 0.310 ≥ 0.25; stopped, next try in 9 s"
    stop = verdict(allowed=0.0, stop=True, signal="cache-dirty", reason=reason)
    paces.publish(ledger, planning.id, stop)
    assert said() == reason


STOP = verdict(allowed=0.0, stop=True, signal="cache-dirty")


@pytest.fixture
def stopped(begin: Begin) -> OpenRun:
    """A run that is running, with two chunks applied, and whose throttle has just stopped it."""
    at = begin(users(10), chunk_size=5)
    for n in (1, 2):
        migrated(at, n)
    throttled(at.ledger, at.run)
    runs.note(at.ledger, at.run.id, **{"options.verify_share": 0.0})
    paces.publish(at.ledger, at.run.id, STOP)
    return at


def compared(at: OpenRun, then: Callable[[], object], *, n: int = 1, number: int = 1) -> Waited:
    """How waiting to compare a chunk ends, where this happens at its first sleep."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        assert len(slept) < 5, "it waits on"
        slept.append(seconds)
        then()

    return pacing.unstopped(at, n, number, most_seconds=1e9, sleep=sleep)


def nothing_happens() -> None:
    return


def test_a_verification_waits_until_the_stop_of_the_throttle_is_over(stopped: OpenRun) -> None:
    with pytest.raises(AssertionError, match="it waits on"):
        compared(stopped, nothing_happens)
    calm = verdict(allowed=50.0, signal="cache-dirty")
    assert compared(stopped, lambda: paces.publish(stopped.ledger, stopped.run.id, calm)).granted


def test_a_verification_takes_no_permit_and_is_not_slowed(stopped: OpenRun) -> None:
    paces.set_base(stopped.ledger, stopped.run.id, 1.0, actor=ANNA)
    paces.publish(stopped.ledger, stopped.run.id, verdict(allowed=50.0, signal="cache-dirty"))
    # Ten documents would take ten seconds, and Redis is not even asked.
    assert all(compared(stopped, nothing_happens, n=n).granted for n in (1, 2))


def test_a_verification_that_waited_too_long_gives_its_place_up(stopped: OpenRun) -> None:
    waited = pacing.unstopped(stopped, 1, 1, most_seconds=0.0)
    assert (waited.granted, waited.reason) == (False, TOO_LONG)


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([RunState.PAUSING], "pausing"),
        ([RunState.CANCELLING], "cancelling"),
        ([RunState.ROLLING_BACK], "rolling_back"),
    ],
)
def test_a_verification_that_waits_is_let_go_when_the_run_is_held(
    stopped: OpenRun, states: list[RunState], reason: str
) -> None:
    def hold() -> None:
        for state in states:
            runs.move(stopped.ledger, stopped.run.id, state)

    waited = compared(stopped, hold)
    assert (waited.granted, waited.reason) == (False, reason)


def test_a_verification_that_somebody_asked_for_waits_as_well_and_also_in_a_pause(
    stopped: OpenRun,
) -> None:
    number = runs.next_verification(stopped.ledger, stopped.run.id, requested=True)
    for state in (RunState.PAUSING, RunState.PAUSED):
        runs.move(stopped.ledger, stopped.run.id, state)
    with pytest.raises(AssertionError, match="it waits on"):
        compared(stopped, nothing_happens, number=number)


def test_without_anybody_who_measures_only_what_was_asked_for_is_compared(
    stopped: OpenRun,
) -> None:
    old = now() - timedelta(seconds=3.5)
    stopped.ledger["runs"].update_one({"_id": stopped.run.id}, {"$set": {"health.at": old}})
    with pytest.raises(AssertionError, match="it waits on"):
        compared(stopped, nothing_happens)
    number = runs.next_verification(stopped.ledger, stopped.run.id, requested=True)
    assert compared(stopped, nothing_happens, number=number).granted


def test_what_was_rolled_back_is_compared_in_a_stop(stopped: OpenRun) -> None:
    put_state(stopped, ChunkState.ROLLED_BACK)
    assert compared(stopped, nothing_happens).granted


def test_a_worker_says_what_it_waits_for(stopped: OpenRun) -> None:
    paces.set_base(stopped.ledger, stopped.run.id, 500.0, actor=ANNA)
    old = now() - timedelta(seconds=3.5)
    stopped.ledger["runs"].update_one({"_id": stopped.run.id}, {"$set": {"health.at": old}})
    assert pacing.sentence(stopped) == "health was not measured within 3 s"
    for said, expected in (
        (verdict(allowed=0.0, stop=True, reason="cache-dirty 0.310 ≥ 0.25"), "0.310 ≥ 0.25"),
        (verdict(allowed=80.0, reason="cache-dirty 0.190 ≥ 0.15"), "0.190 ≥ 0.15"),
        (verdict(allowed=500.0, reason="speeding up again"), f"500 documents/s, set by {ANNA}"),
        (verdict(), f"500 documents/s, set by {ANNA}"),
    ):
        paces.publish(stopped.ledger, stopped.run.id, said)
        assert pacing.sentence(stopped).endswith(expected)


@contextmanager
def worker(environment: dict[str, str], folder: Path) -> Iterator[None]:
    line = leashed(command("w1", queues="rollback,verify"), signal=9)
    with (folder / "w1.log").open("wb") as log:
        process = subprocess.Popen(
            line, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_in_a_stop_a_worker_rolls_back_at_once_and_compares_when_it_is_over(
    stopped: OpenRun, mongo_url: str, redis_url: str, tmp_path: Path
) -> None:
    at = stopped
    runs.first_verification(at.ledger, at.run.id)
    paces.set_base(at.ledger, at.run.id, 500.0, actor=ANNA)
    own = {"mongo_url": mongo_url, "redis_url": redis_url, "database": at.data.name}
    own["ledger_database"] = at.ledger.database.name
    celery_app.connect(read_settings(**own))
    asks.undo(at.ledger, at.run.id, {"n": 1}, on_change="keep", actor=ANNA)
    tasks.rollback_chunk.apply_async((at.run.id, 1), queue="rollback")
    verification.send(at.run.id, [2], 1)
    settings = {f"MONGOSPLIT_{name.upper()}": value for name, value in own.items()}

    def stop() -> None:
        paces.publish(at.ledger, at.run.id, STOP)

    def waits() -> bool:
        stop()
        active = celery_app.app.control.inspect(timeout=0.5).active() or {}
        return any(one["args"] == [at.run.id, 2, 1] for found in active.values() for one in found)

    with worker({**os.environ, **settings}, tmp_path):
        until(lambda: stop() or state_of(at, 1) is ChunkState.ROLLED_BACK, seconds=60)
        until(waits, seconds=40, what="the comparison did not wait")
        assert state_of(at, 2) is ChunkState.MIGRATED
        paces.publish(at.ledger, at.run.id, verdict())
        until(lambda: state_of(at, 2) is ChunkState.VERIFIED)
        # What a task returns is in its event, and there in Flower.
        told = f"'pace': '500 documents/s, set by {ANNA}'"
        until(lambda: told in (tmp_path / "w1.log").read_text())
