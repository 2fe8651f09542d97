"""The throttle's law and its words: slower at once, faster step by step, stopped when blind."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from bson import Timestamp, decode, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from mongosplit.errors import UsageError
from mongosplit.signal_lag import EPOCH, NoPrimary, slowest
from mongosplit.signal_thresholds import SIGNALS, Level, Reading, Threshold, Thresholds, weigh
from mongosplit.throttle import Throttle, ThrottleRules
from mongosplit.verdict import Verdict

BEGINNING = datetime(2024, 5, 6, 7, 8, 9)
LAG = Thresholds({"replication-lag": Threshold(5, 30)})


@dataclass
class Bench:
    """A throttle with a clock that is turned by hand."""

    thresholds: Thresholds = LAG
    rules: ThrottleRules = field(default_factory=ThrottleRules)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.throttle = Throttle(self.thresholds, self.rules, lambda: self.now, self.date)

    def date(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.now)

    def second(
        self, lag: float, *, limit: float | None = 1000.0, throughput: float = 1000.0
    ) -> Verdict:
        """One second passes, the lag is read."""
        return self.given(
            weigh("replication-lag", lag, Threshold(5, 30)), limit=limit, throughput=throughput
        )

    def given(self, *readings: Reading, limit: float | None = 1000.0, throughput: float) -> Verdict:
        self.now += 1.0
        return self.throttle.observe(readings, rate_limit=limit, throughput=throughput)


def test_a_healthy_database_lets_the_fleet_go_as_fast_as_the_rate_limit() -> None:
    verdict = Bench().second(1.0)
    assert (verdict.allowed, verdict.stop, verdict.signal) == (1000.0, False, "")
    assert verdict.reason == ("all clear, nearest to its threshold is replication-lag 1.0 s < 5 s")
    assert Bench().second(1.0, limit=None).allowed is None


def test_a_soft_signal_halves_what_is_really_done_and_says_so_as_gh_ost_does() -> None:
    verdict = Bench().second(14.2, throughput=600.0)
    assert (verdict.allowed, verdict.stop) == (300.0, False)
    assert (verdict.reason, verdict.signal) == ("replication-lag 14.2 s ≥ 5 s", "replication-lag")


def test_speed_is_halved_once_a_second_at_most_and_never_below_the_floor() -> None:
    bench = Bench()
    assert bench.second(6.0).allowed == 500
    reading = weigh("replication-lag", 6.0, Threshold(5, 30))
    bench.now += 0.5
    again = bench.throttle.observe([reading], rate_limit=1000.0, throughput=1000.0)
    assert again.allowed == 500
    bench.now += 0.5
    assert [bench.second(6.0).allowed for _ in range(4)] == [250, 125, 62.5, 50]


def test_when_all_is_clear_it_grows_by_a_tenth_of_the_limit_each_second() -> None:
    bench = Bench()
    bench.second(6.0)
    verdicts = [bench.second(1.0) for _ in range(6)]
    assert [verdict.allowed for verdict in verdicts] == [600, 700, 800, 900, 1000, 1000]
    assert verdicts[0].reason == "speeding up again: replication-lag 1.0 s < 5 s"
    assert verdicts[0].signal == "replication-lag"
    assert verdicts[-1].signal == ""


def test_without_a_limit_it_grows_until_it_is_beyond_what_the_fleet_makes_use_of() -> None:
    bench = Bench()
    bench.second(1.0, limit=None, throughput=1000.0)
    assert bench.second(6.0, limit=None, throughput=800.0).allowed == 400
    grown = [bench.second(1.0, limit=None, throughput=900.0).allowed for _ in range(11)]
    assert grown == [500, 600, 700, 800, 900, 1000, 1100, 1200, 1300, 1400, None]


def test_after_a_stop_no_throughput_does_not_count_as_room_to_be_unlimited() -> None:
    bench = Bench()
    bench.second(1.0, limit=None, throughput=1000.0)
    bench.second(31.0, limit=None, throughput=0.0)
    paces = [bench.second(1.0, limit=None, throughput=0.0).allowed for _ in range(13)]
    assert paces[8:] == [0.0, 50.0, 150.0, 250.0, 350.0]


def test_a_hard_signal_stops_for_the_hold_even_when_it_clears_and_begins_at_the_floor() -> None:
    bench = Bench()
    stopped = bench.second(41.0)
    assert (stopped.allowed, stopped.stop) == (0.0, True)
    assert stopped.reason == "replication-lag 41.0 s ≥ 30 s; stopped, next try in 10 s"
    held = [bench.second(0.0) for _ in range(9)]
    assert all(verdict.stop and verdict.since == stopped.since for verdict in held)
    assert held[-1].reason.endswith("next try in 1 s")
    assert bench.second(0.0).allowed == 50
    assert bench.second(0.0).allowed == 150


def test_a_signal_still_hard_after_the_hold_is_held_again() -> None:
    bench = Bench()
    assert all(bench.second(41.0).stop for _ in range(25))
    assert all(bench.second(1.0).stop for _ in range(5))
    assert not bench.second(1.0).stop


def test_a_noisy_signal_around_its_threshold_changes_the_verdict_once() -> None:
    bench = Bench()
    verdicts = [bench.second(5.0 + (0.9 if n % 2 else -0.9)) for n in range(1, 61)]
    assert {verdict.signal for verdict in verdicts} == {"replication-lag"}
    assert [verdict.allowed for verdict in verdicts][5:] == [50.0] * 55
    assert verdicts[1].reason == "replication-lag 4.1 s (tripped at 5 s, clears below 4 s)"
    assert len({verdict.since for verdict in verdicts}) == 1


def test_noise_around_the_hard_threshold_cannot_open_and_shut_faster_than_the_hold() -> None:
    bench = Bench()
    stops = [bench.second(31.0 if n % 2 else 10.0).stop for n in range(120)]
    turns = sum(a is not b for a, b in pairwise(stops))
    assert turns <= 2 * 120 / 10


def test_health_not_measured_for_three_seconds_stops_and_says_how_old_it_is() -> None:
    bench = Bench()
    bench.second(1.0)
    bench.now += 3.0
    assert not bench.throttle.verdict().stop
    bench.now += 1.1
    verdict = bench.throttle.verdict()
    assert (verdict.stop, verdict.allowed) == (True, 0.0)
    assert verdict.reason == "health was last measured 4.1 s ago"
    assert bench.second(1.0).allowed == 150, "it begins again slowly"


def test_one_signal_that_is_no_longer_read_stops_and_is_named() -> None:
    both = Thresholds(dict(LAG.of) | {"cache-dirty": Threshold(0.15, 0.25)})
    bench = Bench(both)
    lag = weigh("replication-lag", 1.0, Threshold(5, 30))
    dirty = weigh("cache-dirty", 0.1, Threshold(0.15, 0.25))
    assert bench.given(lag, throughput=9.0).reason == "cache-dirty is not measured yet"
    assert not bench.given(lag, dirty, throughput=9.0).stop
    verdicts = [bench.given(lag, throughput=9.0) for _ in range(4)]
    assert [verdict.stop for verdict in verdicts] == [False, False, False, True]
    assert verdicts[-1].reason == "cache-dirty was last measured 4.0 s ago"


def test_before_the_first_reading_it_stops_and_with_every_signal_off_it_never_does() -> None:
    assert Bench().throttle.verdict().reason == "health is not measured yet"
    nothing = Bench(Thresholds.parse("off"))
    assert not nothing.throttle.verdict().stop
    assert nothing.given(throughput=0.0).allowed == 1000


def test_the_worst_of_several_signals_is_named() -> None:
    bench = Bench(Thresholds.defaults(), ThrottleRules(stale=1e9))
    readings = {name: weigh(name, 0.01, Threshold(None, None)) for name in SIGNALS}
    readings["oplog-window"] = weigh("oplog-window", 24.0, Threshold(None, 1))
    readings["replication-lag"] = weigh("replication-lag", 6.0, Threshold(5, 30))
    readings["queued-operations"] = weigh("queued-operations", 60.0, Threshold(20, 100))
    assert bench.given(*readings.values(), throughput=1.0).signal == "queued-operations"
    readings["oplog-window"] = weigh("oplog-window", 0.25, Threshold(None, 1))
    verdict = bench.given(*readings.values(), throughput=1.0)
    assert verdict.stop
    assert verdict.reason.startswith("oplog-window 0.25 h ≤ 1 h; stopped")


@pytest.mark.parametrize("stops", [False, True])
def test_a_signal_that_cannot_be_read_stops_only_who_asked_for_that(stops: bool) -> None:
    bench = Bench(rules=ThrottleRules(unreadable_stops=stops))
    sentence = "replication-lag cannot be read: this user may not run replSetGetStatus"
    unreadable = Reading("replication-lag", None, "s", Level.UNREADABLE, sentence)
    assert bench.given(unreadable, throughput=1.0).stop is stops


def test_a_verdict_survives_being_stored_and_tells_its_age() -> None:
    verdict = Bench().second(14.2)
    stored: dict[str, Any] = decode(encode({"_id": "pace", **verdict.to_document()}))
    assert Verdict.from_document(stored) == verdict
    assert not verdict.stale(verdict.at + timedelta(seconds=3))
    assert verdict.stale(verdict.at + timedelta(seconds=3.1))
    assert verdict.stale(verdict.at - timedelta(seconds=3.1)), "from the future"


SECOND = st.tuples(
    st.floats(0, 60, allow_nan=False),  # the lag
    st.floats(0, 5000, allow_nan=False),  # the throughput
    st.floats(0.1, 6.0),  # seconds until the next look
)


@settings(max_examples=200, deadline=None)
@given(st.lists(SECOND, max_size=60), st.one_of(st.none(), st.floats(1, 10_000)))
def test_never_above_the_limit_nor_below_the_floor_unless_stopped_and_always_back(
    seconds: list[tuple[float, float, float]], limit: float | None
) -> None:
    bench = Bench()
    for lag, throughput, gap in seconds:
        bench.now += gap - 1.0
        verdict = bench.second(lag, limit=limit, throughput=throughput)
        assert verdict.reason
        if verdict.stop:
            assert verdict.allowed == 0
        elif verdict.allowed is not None:
            assert min(50.0, limit or 50.0) <= verdict.allowed <= (limit or float("inf"))
    if limit is not None:
        for _ in range(22):
            verdict = bench.second(0.0, limit=limit, throughput=0.0)
        assert verdict.allowed == limit
    else:
        for _ in range(28):
            verdict = bench.second(0.0, limit=None, throughput=100.0)
        assert verdict.allowed is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(5, 29.9), st.floats(0, 5000)), min_size=2, max_size=30),
    st.one_of(st.none(), st.floats(1, 10_000)),
)
def test_under_a_soft_signal_speed_only_falls(
    seconds: list[tuple[float, float]], limit: float | None
) -> None:
    bench = Bench()
    paces = [bench.second(lag, limit=limit, throughput=done).allowed for lag, done in seconds]
    known = [pace for pace in paces if pace is not None]
    assert len(known) == len(paces)
    assert known == sorted(known, reverse=True)


# What the operator writes


def test_thresholds_read_from_text_keep_the_defaults_of_what_is_not_named() -> None:
    text = "replication-lag=7, cache-dirty=0.1:0.2,flow-control=off,oplog-window=24:2"
    of = Thresholds.parse(text).of
    assert of["replication-lag"] == Threshold(7, 30)
    assert of["cache-dirty"] == Threshold(0.1, 0.2)
    assert of["oplog-window"] == Threshold(24, 2)
    assert "flow-control" not in of
    assert of["probe-latency"] == Threshold(250, 2000)
    assert Thresholds.parse("") == Thresholds.defaults()


NUMBERS = st.floats(1e-6, 1e9)


@given(st.dictionaries(st.sampled_from(sorted(SIGNALS)), st.none() | st.tuples(NUMBERS, NUMBERS)))
def test_thresholds_written_out_read_back_the_same(
    chosen: dict[str, tuple[float, float] | None],
) -> None:
    items = []
    for name, pair in chosen.items():
        soft, hard = sorted(pair or (1, 2), reverse=SIGNALS[name].low_is_bad)
        items.append(f"{name}={soft!r}:{hard!r}" if pair else f"{name}=off")
    thresholds = Thresholds.parse(",".join(items))
    assert Thresholds.parse(str(thresholds)) == thresholds


def test_off_turns_everything_off_and_says_so() -> None:
    assert not Thresholds.parse("off").of
    assert str(Thresholds.parse("off")) == "off"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lag=5", "the throttle knows no signal 'lag'"),
        ("replication-lag", "the throttle's replication-lag: '' is no number above 0"),
        ("replication-lag=-1", "the throttle's replication-lag: '-1' is no number above 0"),
        ("replication-lag=nan", "the throttle's replication-lag: 'nan' is no number above 0"),
        ("replication-lag=5:30:40", "the throttle's replication-lag: '30:40' is no number above 0"),
        ("replication-lag=31", "the throttle's replication-lag: soft 31 s is above hard 30 s"),
        ("oplog-window=1:24", "the throttle's oplog-window: soft 1 h is below hard 24 h"),
        ("command=off,command=5", "the throttle's command is given twice"),
        ("command=off:off", "the throttle's command=off:off has no threshold left"),
        ("cache-dirty=0.1,,", "the throttle knows no signal ''"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        Thresholds.parse(text)
    assert refused.value.message == sentence
    assert refused.value.hint


def test_a_signal_for_which_low_is_bad_clears_above_its_threshold() -> None:
    again = weigh("oplog-window", 1.2, Threshold(None, 1), before=Level.HARD)
    assert again.level is Level.HARD
    assert again.sentence == "oplog-window 1.20 h (tripped at 1 h, clears above 1.25 h)"
    assert weigh("oplog-window", 1.3, Threshold(None, 1), before=Level.HARD).level is Level.OK


def test_flow_control_is_said_in_words() -> None:
    assert weigh("flow-control", 1.0, Threshold(1, None)).sentence == "flow-control is engaged"
    assert weigh("flow-control", 0.0, Threshold(1, None)).sentence == "flow-control is not engaged"


# The arithmetic of lag, on what a set of three has answered


def ago(seconds: float) -> datetime:
    return BEGINNING - timedelta(seconds=seconds)


def member(n: int, state: int, applied: float | None, **more: Any) -> dict[str, Any]:
    moment = EPOCH if applied is None else ago(applied)
    return {
        "_id": n,
        "name": f"m{n}:27017",
        "state": state,
        "health": 0.0 if state == 8 else 1.0,
        "optime": {"ts": Timestamp(int(moment.timestamp()) if applied is not None else 0, 1)},
        "optimeDate": EPOCH if state == 8 else moment,
        "lastAppliedWallTime": moment,
        "uptime": 77,
        **more,
    }


def lag(
    *secondaries: dict[str, Any],
    configured: dict[int, dict[str, Any]] | None = None,
    oldest: float | None = None,
) -> tuple[float, str]:
    members = [member(0, 1, 0.0, self=True), *secondaries]
    rules = [{"_id": one["_id"], **(configured or {}).get(one["_id"], {})} for one in members]
    written = None if oldest is None else ago(oldest)
    status = {"date": BEGINNING, "members": members}
    return slowest(status, {"members": rules}, lambda _: written)


def test_lag_is_that_of_the_slowest_member() -> None:
    assert lag(member(1, 2, 3.5), member(2, 2, 14.25)) == (14.25, "m2:27017")
    assert lag() == (0.0, "")


def test_a_member_that_is_down_lags_from_what_it_applied_last() -> None:
    assert lag(member(1, 2, 0.0), member(2, 8, 40.0), oldest=1.0) == (40.0, "m2:27017")


def test_a_member_that_is_down_and_applied_nothing_lags_since_it_was_last_heard() -> None:
    heard = member(1, 8, None, lastHeartbeatRecv=ago(12))
    assert lag(heard) == (12.0, "m1:27017")
    never = member(1, 8, None, lastHeartbeatRecv=EPOCH)
    assert lag(never) == (77.0, "m1:27017"), "as long as the primary is up"


def test_arbiters_and_members_without_a_vote_do_not_count_nor_does_an_initial_sync() -> None:
    slow = member(1, 2, 99.0)
    assert lag(slow, configured={1: {"votes": 0}}) == (0.0, "")
    assert lag(slow, configured={1: {"arbiterOnly": True}}) == (0.0, "")
    assert lag(member(1, 5, None)) == (0.0, "m1:27017")


@pytest.mark.parametrize("name", ["secondaryDelaySecs", "slaveDelay"])
def test_a_delayed_member_is_judged_net_of_its_delay(name: str) -> None:
    assert lag(member(1, 2, 70.0), configured={1: {name: 60}}) == (10.0, "m1:27017")
    assert lag(member(1, 2, 20.0), configured={1: {name: 60}}) == (0.0, "m1:27017")


def test_after_a_quiet_spell_a_member_lags_only_as_long_as_an_entry_has_waited_for_it() -> None:
    assert lag(member(1, 2, 600.0), oldest=0.02) == (0.02, "m1:27017")


def test_a_member_that_is_not_primary_cannot_say_the_lag() -> None:
    status = {"date": BEGINNING, "members": [member(0, 2, 0.0, self=True), member(1, 1, 0.0)]}
    with pytest.raises(NoPrimary):
        slowest(status, {"members": [{"_id": 0}, {"_id": 1}]}, lambda _: None)
