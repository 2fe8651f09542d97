"""Metrics: what each series says of a run, without servers."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import Timestamp

from mongosplit.errors import Failed
from mongosplit.ledger.book import Ledger
from mongosplit.ledger.followers import Position
from mongosplit.ledger.paces import Pulse
from mongosplit.model import Run, RunState
from mongosplit.verdict import Verdict
from producer import scrape
from producer.metrics import SERIES, Seen

NOON = datetime(2026, 11, 22, 12)
NOBODY: Any = None
"""A ledger that is not asked."""
BASE = {"rate": 5000.0, "actor": "anna@shop", "at": NOON}
SPELL = {"rate": 100.0, "actor": "ben@shop", "at": NOON, "until": NOON + timedelta(minutes=30)}
PLANNED = {"schedule": "22:00-06:00 max, else 500/s", "zone": "UTC", "actor": "cleo@shop"}
FOLLOWED = Position(
    start=Timestamp(1_790_000_000, 1),
    token=None,
    reached=Timestamp(1_790_000_000, 1),
    looked=None,
    holder="",
    seen=None,
    moment=datetime(2026, 11, 22, 12),
    events=7,
    obstacle=None,
)
TOTALS = {
    "pending": {"chunks": 5, "docs": 0, "quarantined": 0},
    "migrated": {"chunks": 3, "docs": 300, "quarantined": 2},
    "verified": {"chunks": 2, "docs": 200, "quarantined": 1},
    "failed": {"chunks": 1, "docs": 0, "quarantined": 0},
}


def verdict(**changes: Any) -> Verdict:
    facts = {"allowed": None, "stop": False, "reason": "", "signal": "", "since": NOON, "at": NOON}
    return Verdict(**{**facts, **changes})


def seen(
    pace: dict[str, Any] | None = None,
    *,
    said: Verdict | None = None,
    age: float | None = None,
    observed: dict[str, float] | None = None,
) -> Seen:
    """A running run, throttled where there is a verdict or the age of one."""
    throttled = said is not None or age is not None
    options = {"throttle": "cache-dirty=0.15:0.25"} if throttled else {"throttle": "off"}
    health = {**said.to_document(), "observed": observed or {}} if said else None
    run = Run(
        id="users-1",
        migration="users",
        fingerprint="f",
        source="shop.users",
        state=RunState.RUNNING,
        options=options,
        actor="anna@shop",
        counts={},
        created=NOON,
        pace=pace or {},
        health=health,
    )
    pulse = Pulse("running", pace or {}, throttled, said, age if said else None)
    found = Seen(NOBODY, run, pulse, NOON)
    known = {"totals": TOTALS, "position": FOLLOWED, "backlog": 12, "foreign": []}
    found.__dict__.update(known)
    return found


def told(of: Seen) -> dict[str, dict[tuple[str, ...], float]]:
    """By series the numbers by the values of its labels, the run left out."""
    return {series.name: dict(series.read(of)) for series in SERIES}


def one(of: Seen, name: str) -> float:
    return told(of)[name][()]


def test_every_series_has_a_name_of_its_own_and_says_what_it_means() -> None:
    assert len({series.name for series in SERIES}) == len(SERIES)
    for series in SERIES:
        assert series.meaning[0].isupper() or series.meaning[0].isdigit()
        assert len(series.meaning) > 20


def test_a_run_that_nobody_paces_has_no_limit_and_no_throttle() -> None:
    found = told(seen())
    for name in ("pace", "rate_limit", "base_limit", "throttle"):
        assert found[f"{name}_documents_per_second"] == {(): math.inf}
    assert found["worker_rate_chunks_per_second"] == {(): math.inf}
    assert found["throttle_stopped"] == {(): 0.0}
    assert found["throttle_verdict_age_seconds"] == {}
    assert found["signal_observed"] == {}
    assert found["pace_info"] == {("none", "", ""): 1.0}


@pytest.mark.parametrize(
    ("pace", "limit", "base", "origin", "actor"),
    [
        ({"base": BASE}, 5000.0, 5000.0, "base", "anna@shop"),
        ({"base": BASE, "spell": SPELL}, 100.0, 5000.0, "spell", "ben@shop"),
        ({"base": BASE, "schedule": PLANNED}, 500.0, 5000.0, "schedule", "cleo@shop"),
        ({"base": {**BASE, "rate": None}}, math.inf, math.inf, "base", "anna@shop"),
    ],
)
def test_the_limit_in_force_is_told_beside_the_base_with_its_origin_and_who_set_it(
    pace: dict[str, Any], limit: float, base: float, origin: str, actor: str
) -> None:
    found = told(seen(pace))
    assert found["rate_limit_documents_per_second"] == {(): limit}
    assert found["base_limit_documents_per_second"] == {(): base}
    assert found["pace_documents_per_second"] == {(): limit}
    assert found["pace_info"] == {(origin, actor, ""): 1.0}


@pytest.mark.parametrize(
    ("rate", "chunks"), [("10/s", 10.0), ("300/m", 5.0), ("0", math.inf), (None, math.inf)]
)
def test_the_limit_of_one_worker_is_in_chunks_a_second(rate: str | None, chunks: float) -> None:
    assert one(seen({"per_worker": rate}), "worker_rate_chunks_per_second") == pytest.approx(chunks)


def test_what_the_throttle_allows_is_told_and_the_lower_of_both_is_the_pace() -> None:
    slow = verdict(allowed=80.0, signal="cache-dirty", at=NOON)
    found = told(seen({"base": BASE}, said=slow, age=0.5, observed={"cache-dirty": 0.19}))
    assert found["throttle_documents_per_second"] == {(): 80.0}
    assert found["pace_documents_per_second"] == {(): 80.0}
    assert found["rate_limit_documents_per_second"] == {(): 5000.0}
    assert found["throttle_stopped"] == {(): 0.0}
    assert found["throttle_verdict_age_seconds"] == {(): 0.5}
    assert found["signal_observed"] == {("cache-dirty",): 0.19}
    assert found["pace_info"] == {("base", "anna@shop", "cache-dirty"): 1.0}


@pytest.mark.parametrize(
    ("said", "age"),
    [
        (verdict(stop=True, allowed=0.0, signal="cache-dirty"), 0.5),
        (verdict(), 3.5),
        (None, 99.0),
    ],
)
def test_a_stop_is_told_and_so_is_the_want_of_a_verdict(said: Verdict | None, age: float) -> None:
    found = told(seen(said=said, age=age))
    assert found["throttle_stopped"] == {(): 1.0}
    assert found["throttle_documents_per_second"] == {(): 0.0}
    assert found["pace_documents_per_second"] == {(): 0.0}


def test_what_was_observed_too_long_ago_is_not_told() -> None:
    old = seen(said=verdict(), age=3.5, observed={"cache-dirty": 0.19})
    assert told(old)["signal_observed"] == {}


def test_states_chunks_and_documents_are_told() -> None:
    found = told(seen())
    assert found["run_state"][("running",)] == 1.0
    assert sum(found["run_state"].values()) == 1.0
    assert found["chunks"][("pending",)] == 5.0
    assert found["chunks"][("rolled_back",)] == 0.0
    assert found["documents_migrated"] == {(): 497.0}
    assert found["documents_quarantined"] == {(): 3.0}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_is_taken_fails_with_one_sentence(taken: int) -> None:
    ledger: Ledger = NOBODY
    with (
        pytest.raises(Failed) as found,
        scrape.served(ledger, ("127.0.0.1", taken)),
    ):
        raise AssertionError("it was served")
    assert found.value.message == (
        f"metrics cannot be served at 127.0.0.1:{taken}: address already in use"
    )
    assert found.value.hint.startswith("give --metrics another host:port")
    assert found.value.exit_code == 1


def test_a_host_that_is_not_ours_fails_with_one_sentence() -> None:
    ledger: Ledger = NOBODY
    with (
        pytest.raises(Failed, match=r"^metrics cannot be served at 192\.0\.2\.1:9464: "),
        scrape.served(ledger, ("192.0.2.1", 9464)),
    ):
        raise AssertionError("it was served")


def test_without_an_address_nothing_is_served() -> None:
    ledger: Ledger = NOBODY
    with scrape.served(ledger, None):
        pass


def test_whether_somebody_follows_and_what_is_left_is_told() -> None:
    of = seen()
    assert one(of, "follower_alive") == 0.0
    assert one(of, "follower_events") == 7.0
    assert one(of, "follower_lag_seconds") > 0.0
    assert one(of, "follower_backlog_documents") == 12.0
