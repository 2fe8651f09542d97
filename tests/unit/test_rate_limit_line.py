"""Rate limit: the arithmetic of the line on a simulated Redis, by a clock that the test moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
import redis

from mongosplit.rate_limit import LONGEST_SLEEP_SECONDS, RateLimit, Ticket

BURST = 0.25
HOUR = 3600.0
ROUNDING = 0.01
"""Documents that the clock's own last digits may make."""


@dataclass
class Clock:
    """The clock of the server, in seconds: what Redis' TIME says and keys expire by."""

    seconds: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    # The simulated server is in this process, and TIME is what it reads here. The script takes no
    # time from its caller.
    monkeypatch.setattr(time, "time", moved)
    return moved


@pytest.fixture
def server(clock: Clock) -> Iterator[redis.Redis]:
    with fakeredis.FakeRedis() as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def limit(server: redis.Redis) -> RateLimit:
    return RateLimit(server, "users-1", away=redis.ConnectionError)


def about(seconds: float) -> Any:
    """Waits are rounded up to the millisecond."""
    return pytest.approx(seconds, abs=0.002)


def at_once(limit: RateLimit, cost: int, rate: float) -> int:
    """How many chunks go without waiting; the ticket that has to wait is given back."""
    for count in range(10_000):
        ticket = limit.reserve(cost, rate)
        if ticket.seconds:
            limit.give_back(ticket, cost)
            return count
    raise AssertionError("there is no end of it")


@dataclass
class Fleet:
    """Workers that take one permit after another, and sleep as long as they are told to."""

    limit: RateLimit
    clock: Clock
    rate: Callable[[], float]
    cost: int
    workers: int
    went: list[tuple[float, int]] = field(default_factory=list)
    tickets: dict[int, Ticket] = field(default_factory=dict)
    awake: dict[int, float] = field(default_factory=dict)

    def run(self, seconds: float) -> None:
        """Let simulated time pass, from one worker's question to the next one's."""
        end = self.clock.seconds + seconds
        while True:
            worker = min(range(self.workers), key=lambda one: self.awake.get(one, 0.0))
            if self.awake.get(worker, 0.0) >= end:
                self.clock.seconds = end
                return
            self.clock.seconds = max(self.clock.seconds, self.awake.get(worker, 0.0))
            self.ask(worker)

    def ask(self, worker: int) -> None:
        held = self.tickets.pop(worker, None)
        if held is None:
            found = self.limit.reserve(self.cost, self.rate())
        else:
            found = self.limit.look(held, self.cost, self.rate())
        if found.seconds > 0:
            self.tickets[worker] = found
        elif not found.void:
            self.went.append((self.clock.seconds, worker))
        pause = min(max(found.seconds, 0.0), LONGEST_SLEEP_SECONDS)
        self.awake[worker] = self.clock.seconds + pause

    def leave(self) -> None:
        """Everybody gives up what it waits for."""
        for ticket in self.tickets.values():
            self.limit.give_back(ticket, self.cost)
        self.tickets.clear()

    def documents(self, since: float, until: float) -> int:
        """What went from a moment up to, not including, another."""
        return self.cost * sum(since <= moment < until for moment, _ in self.went)

    def worst_burst(self, rate: float) -> float:
        """By how many documents any stretch of time exceeds its rate, at most."""
        moments = [moment for moment, _ in self.went]
        return max(
            (last - first + 1) * self.cost - rate * (moments[last] - moments[first])
            for first in range(len(moments))
            for last in range(first, len(moments))
        )


@pytest.mark.parametrize(("cost", "rate"), [(20, 100.0), (125, 1000.0), (2500, 20_000.0)])
def test_the_rate_is_held_exactly_over_minutes(
    limit: RateLimit, clock: Clock, cost: int, rate: float
) -> None:
    fleet = Fleet(limit, clock, lambda: rate, cost, workers=3)
    fleet.run(1)
    begun = clock.seconds
    fleet.run(120)
    assert fleet.documents(begun, begun + 120) == pytest.approx(120 * rate, abs=cost)
    for minute in range(2):
        since = begun + 60 * minute
        assert fleet.documents(since, since + 60) == pytest.approx(60 * rate, abs=cost)


def test_no_stretch_of_time_has_more_than_the_stated_burst(limit: RateLimit, clock: Clock) -> None:
    fleet = Fleet(limit, clock, lambda: 1000.0, 50, workers=4)
    fleet.run(2)
    fleet.leave()
    clock.seconds += 20
    fleet.run(3)
    assert 50 < fleet.worst_burst(1000.0) <= 1000.0 * BURST + 50 + ROUNDING


def test_of_those_who_came_due_while_nobody_looked_each_goes_once(
    limit: RateLimit, clock: Clock
) -> None:
    fleet = Fleet(limit, clock, lambda: 1000.0, 50, workers=4)
    fleet.run(2)
    waiting = 50 * len(fleet.tickets)
    clock.seconds += 20
    fleet.run(3)
    assert fleet.worst_burst(1000.0) <= waiting + 1000.0 * BURST + 50 + ROUNDING


@pytest.mark.parametrize("idle", [1.0, HOUR - 1, 100 * HOUR])
def test_no_burst_follows_idling_but_a_quarter_second_and_one_chunk(
    limit: RateLimit, clock: Clock, idle: float
) -> None:
    limit.reserve(100, 1000.0)
    clock.seconds += idle
    # A line that is gone after an idle hour gives away a single chunk.
    assert at_once(limit, 100, 1000.0) == (3 if idle < HOUR else 1)


def test_no_burst_follows_a_stop(limit: RateLimit, clock: Clock) -> None:
    rate = [1000.0]
    fleet = Fleet(limit, clock, lambda: rate[0], 100, workers=8)
    fleet.run(2)
    rate[0] = 0.0
    stopped = clock.seconds
    fleet.run(20)
    assert fleet.documents(stopped, clock.seconds) == 0
    rate[0], again = 1000.0, clock.seconds
    fleet.run(5)
    assert fleet.documents(again, again + 0.05) <= 1000 * (0.05 + BURST) + 100
    assert fleet.documents(again, again + 5) == pytest.approx(5000, abs=100)


def test_a_rate_that_is_a_stop_from_the_beginning_lets_nobody_go(
    limit: RateLimit, clock: Clock
) -> None:
    fleet = Fleet(limit, clock, lambda: 0.0, 100, workers=3)
    fleet.run(30)
    assert not fleet.went


def test_those_who_wait_go_in_the_order_of_their_tickets(limit: RateLimit, clock: Clock) -> None:
    limit.reserve(100, 100.0)
    line = [limit.reserve(100, 100.0) for _ in range(6)]
    gone: list[int] = []
    while len(gone) < len(line):
        clock.seconds += 0.1
        for number in reversed(range(len(line))):
            if number not in gone and not limit.look(line[number], 100, 100.0).seconds:
                gone.append(number)
    assert gone == sorted(gone)


@pytest.mark.parametrize("workers", [2, 5])
def test_every_worker_gets_the_same_share(limit: RateLimit, clock: Clock, workers: int) -> None:
    fleet = Fleet(limit, clock, lambda: 1000.0, 50, workers)
    fleet.run(20)
    shares = [sum(one == worker for _, one in fleet.went) for worker in range(workers)]
    assert max(shares) - min(shares) <= 1


def test_a_dear_chunk_is_not_overtaken_by_cheap_ones(limit: RateLimit, clock: Clock) -> None:
    limit.reserve(100, 100.0)
    dear = limit.reserve(1000, 100.0)
    cheap = limit.reserve(1, 100.0)
    assert (dear.seconds, cheap.seconds) == (about(1), about(11))
    clock.seconds += 1
    assert limit.look(cheap, 1, 100.0).seconds == about(10)
    assert limit.look(dear, 1000, 100.0).seconds == 0


def test_another_rate_holds_at_once_for_those_who_wait(limit: RateLimit, clock: Clock) -> None:
    limit.reserve(1000, 10.0)
    ticket = limit.reserve(1000, 10.0)
    assert ticket.seconds == about(100)
    clock.seconds += 50
    # Half of what is before it was served at the old rate; the rest goes at the new one.
    assert limit.look(ticket, 1000, 10.0).seconds == about(50)
    assert limit.look(ticket, 1000, 1000.0).seconds == about(0.5)
    assert limit.look(ticket, 1000, 1.0).seconds == about(500)


def test_a_rate_changed_in_the_middle_is_held_before_and_after(
    limit: RateLimit, clock: Clock
) -> None:
    rate = [100.0]
    fleet = Fleet(limit, clock, lambda: rate[0], 20, workers=3)
    fleet.run(1)
    begun = clock.seconds
    fleet.run(30)
    rate[0], changed = 500.0, clock.seconds
    fleet.run(30)
    assert fleet.documents(begun, changed) == pytest.approx(3000, abs=40)
    assert fleet.documents(changed, clock.seconds) == pytest.approx(15_000, abs=40)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_ticket_given_back_is_used_by_those_behind_it(
    limit: RateLimit, clock: Clock, left: int
) -> None:
    limit.reserve(100, 100.0)
    line = [limit.reserve(100, 100.0) for _ in range(4)]
    limit.give_back(line[left], 100)
    clock.seconds += 3
    assert limit.look(line[3], 100, 100.0).seconds == 0
    assert limit.reserve(100, 100.0).seconds == about(1)


def test_a_fleet_that_keeps_giving_up_loses_no_documents(limit: RateLimit, clock: Clock) -> None:
    fleet = Fleet(limit, clock, lambda: 1000.0, 50, workers=3)
    fleet.run(1)
    begun = clock.seconds
    for _ in range(20):
        fleet.run(1)
        given_up = limit.reserve(5000, 1000.0)
        limit.give_back(given_up, 5000)
    assert fleet.documents(begun, clock.seconds) == pytest.approx(20_000, abs=50)


def test_a_ticket_that_nobody_gives_back_costs_its_documents_once(
    limit: RateLimit, clock: Clock
) -> None:
    limit.reserve(100, 1000.0)
    for _ in range(20):
        limit.reserve(100, 1000.0)
    assert limit.reserve(100, 1000.0).seconds == about(0.1 + 2)
    clock.seconds += 2.2
    assert limit.reserve(100, 1000.0).seconds == about(0)


def test_after_a_wipe_tickets_are_void_and_only_one_chunk_goes(
    server: redis.Redis, limit: RateLimit, clock: Clock
) -> None:
    line = [limit.reserve(100, 100.0) for _ in range(5)]
    clock.seconds += HOUR / 2
    server.flushall()
    assert limit.look(line[2], 100, 100.0).void
    assert at_once(limit, 100, 100.0) == 1
    # One of the old epoch is void in the new one too, and giving it back changes nothing.
    assert limit.look(line[2], 100, 100.0).void
    limit.give_back(line[2], 100)
    assert limit.reserve(100, 100.0).seconds == about(1)


def test_a_fleet_goes_at_its_rate_through_wipes(
    server: redis.Redis, limit: RateLimit, clock: Clock
) -> None:
    fleet = Fleet(limit, clock, lambda: 1000.0, 50, workers=4)
    fleet.run(1)
    begun = clock.seconds
    wipes = 10
    for _ in range(wipes):
        fleet.run(2)
        server.flushall()
    assert fleet.documents(begun, clock.seconds) == pytest.approx(20_000, abs=50 * (wipes + 1))
    assert fleet.worst_burst(1000.0) <= 1000.0 * BURST + 50 * (wipes + 1)


def test_the_callers_clock_has_no_say(limit: RateLimit, clock: Clock) -> None:
    limit.reserve(100, 100.0)
    began = time.monotonic()
    waited = limit.wait(
        100,
        lambda: 100.0,
        hold=lambda: "",
        most_seconds=HOUR,
        sleep=lambda _: setattr(clock, "seconds", clock.seconds + 0.1),
        clock=lambda: began,
    )
    assert waited.granted
    assert clock.seconds == pytest.approx(1_700_000_001, abs=0.11)


def test_a_clock_that_is_set_back_neither_stops_the_line_nor_adds_to_it(
    limit: RateLimit, clock: Clock
) -> None:
    limit.reserve(100, 100.0)
    ticket = limit.reserve(100, 100.0)
    clock.seconds -= HOUR
    assert limit.look(ticket, 100, 100.0).seconds == about(1)
    clock.seconds += 1
    assert limit.look(ticket, 100, 100.0).seconds == 0
