"""Rate limit: how a caller waits; the arithmetic of the line is tested on a real Redis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import fakeredis
import pytest
import redis

from mongosplit.rate_limit import LONGEST_SLEEP_SECONDS, TOO_LONG, RateLimit, Waited


class Clock:
    """A clock that goes on by sleeping alone."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def away() -> Iterator[RateLimit]:
    """A limit whose Redis does not answer."""
    server = fakeredis.FakeServer()
    server.connected = False
    with fakeredis.FakeRedis(server=server) as client:
        yield RateLimit(client, "users-1", away=redis.ConnectionError)


def on(
    limit: RateLimit,
    clock: Clock,
    rate: Callable[[], float | None],
    hold: Callable[[], str] = str,
    cost: int = 10,
) -> Waited:
    return limit.wait(cost, rate, hold=hold, most_seconds=60, sleep=clock.sleep, clock=clock)


def test_without_a_limit_everybody_goes_at_once_and_redis_is_not_asked(
    away: RateLimit, clock: Clock
) -> None:
    away.away = ()
    assert on(away, clock, lambda: None) == Waited(True, 0.0)


def test_a_hold_ends_the_wait_before_a_permit_is_asked_for(away: RateLimit, clock: Clock) -> None:
    away.away = ()
    assert on(away, clock, lambda: None, hold=lambda: "paused") == Waited(False, 0.0, "paused")


def test_nobody_goes_while_redis_is_away_until_told_to_stop(away: RateLimit, clock: Clock) -> None:
    waited = on(away, clock, lambda: 1e6, hold=lambda: "cancelled" if clock.seconds > 3 else "")
    assert (waited.granted, waited.reason) == (False, "cancelled")
    assert 3 < waited.seconds <= 3 + LONGEST_SLEEP_SECONDS


def test_a_limit_that_is_taken_away_lets_a_waiter_go_without_redis(
    away: RateLimit, clock: Clock
) -> None:
    waited = on(away, clock, lambda: 100.0 if clock.seconds < 1 else None)
    assert waited == Waited(True, 1.0)


def test_a_wait_ends_after_its_time_and_sleeps_shortly(away: RateLimit, clock: Clock) -> None:
    assert on(away, clock, lambda: 100.0) == Waited(False, 60.0, TOO_LONG)
    assert max(clock.slept) <= LONGEST_SLEEP_SECONDS


def test_the_rate_is_asked_again_at_least_every_half_second(away: RateLimit, clock: Clock) -> None:
    asked: list[float] = []

    def rate() -> float:
        asked.append(clock.seconds)
        return 0.0

    on(away, clock, rate)
    assert max(b - a for a, b in pairwise(asked)) <= 0.5
    assert len(asked) > 100


def test_an_error_that_is_no_absence_of_redis_is_raised(away: RateLimit, clock: Clock) -> None:
    away.away = redis.ReadOnlyError
    with pytest.raises(redis.ConnectionError):
        on(away, clock, lambda: 100.0)


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(away: RateLimit, clock: Clock, rate: float) -> None:
    with pytest.raises(ValueError, match="documents/s is not a number from 0 up"):
        on(away, clock, lambda: rate)


def test_a_negative_cost_is_refused(away: RateLimit, clock: Clock) -> None:
    with pytest.raises(ValueError, match="a cost of -1 documents is negative"):
        on(away, clock, lambda: 100.0, cost=-1)
