"""The pace of a run: which limit holds when, who set it, and what a worker makes of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from mongosplit.ledger import audit, paces, runs
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import Run
from mongosplit.pace_schedule import parse_schedule
from mongosplit.verdict import Verdict
from producer import pacing_facts
from worker import pacing

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
    assert held.sentence == "100 documents/s, set by ben until 22 Nov 12:30 UTC"
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
