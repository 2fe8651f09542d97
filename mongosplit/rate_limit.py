"""The rate limit that all workers of a run share: permits for documents, in tickets kept in Redis.

Redis holds tickets only; every caller brings the rate, which the ledger keeps, so that a wipe
cannot change the speed. A ticket is the count of documents reserved before it, and it may go when
that many were served; served grows by the rate, up to `rate * 0.25 s` beyond what is reserved. In
any `t` seconds therefore no more comes due than `rate * (t + 0.25)` documents and the cost of one
chunk: the burst after idling lets workers be late by 0.25 s without losing rate, and needs no room
for a whole chunk since the last permit may overdraw. Tickets that came due while Redis did not
answer go together when it does, one of each worker at most. Where Redis has no data the first
caller goes at once and nobody else: each wipe gives away one chunk at most.

A permit is consumed, never held. A ticket that is given up is given back, wherever it stands in
the line. One that nobody can give back (its worker was killed, its answer was lost) costs its
documents once: `n` of them delay the fleet by `n * cost / rate` seconds in all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol
from uuid import uuid4

LONGEST_SLEEP_SECONDS = 0.25
TOO_LONG = "waited too long"
"""Why `wait` ended without a permit when its time was over."""
_SCRIPT = (resources.files("mongosplit") / "rate_limit.lua").read_text(encoding="utf-8")


class Redis(Protocol):
    """As much of a Redis client as the limit needs; redis-py's runs EVALSHA, then SCRIPT LOAD."""

    def register_script(self, script: str, /) -> Callable[..., Any]:
        """The script as something to call with `keys` and `args`."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How a wait ended, after how many seconds, and why when no permit was granted."""

    granted: bool
    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in the line, and for how many seconds it has to wait at the rate of now.

    A ticket of another epoch (Redis lost its data since) is void and waits for nothing.
    """

    epoch: str
    number: str
    seconds: float

    @property
    def void(self) -> bool:
        """Whether to reserve again."""
        return self.seconds < 0


class RateLimit:
    """The line of one run, in one Redis.

    `away` are the errors of the client that mean "ask again later" (redis.ConnectionError,
    redis.TimeoutError, redis.ReadOnlyError …); others are raised. The client must not try again by
    itself and must give up after 0.25 s, else pause and cancel are noticed late:
    `Redis.from_url(url, socket_timeout=0.25, socket_connect_timeout=0.25, retry=Retry(NoBackoff(),
    0))`. An instance has no state and may be used by several threads.
    """

    def __init__(
        self, redis: Redis, key: str, *, away: type[Exception] | tuple[type[Exception], ...]
    ) -> None:
        self._call = redis.register_script(_SCRIPT)
        self._keys = (f"{{{key}}}:tickets", f"{{{key}}}:given-back")
        self.away = away

    @property
    def keys(self) -> Sequence[str]:
        """The names in Redis: the line, and the tickets given back out of its middle."""
        return self._keys

    def reserve(self, cost: int, rate: float) -> Ticket:
        """The next ticket, for so many documents; raises what `away` holds."""
        return self._ask("reserve", rate, cost, uuid4().hex, "0")

    def look(self, ticket: Ticket, cost: int, rate: float) -> Ticket:
        """The same ticket at this rate, in documents per second; raises what `away` holds."""
        return self._ask("look", rate, cost, ticket.epoch, ticket.number)

    def give_back(self, ticket: Ticket, cost: int) -> None:
        """Leave the line without having gone; raises what `away` holds."""
        self._ask("give", 0.0, cost, ticket.epoch, ticket.number)

    def _ask(self, verb: str, rate: float, cost: int, epoch: str, number: str) -> Ticket:
        answer = self._call(keys=self._keys, args=(verb, repr(rate), cost, epoch, number))
        found_epoch, found_number, milliseconds = answer
        return Ticket(_text(found_epoch), _text(found_number), milliseconds / 1000)

    def wait(
        self,
        cost: int,
        rate: Callable[[], float | None],
        *,
        hold: Callable[[], str],
        most_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Waited:
        """Wait until `cost` documents may go, in sleeps of 0.25 s at most.

        `rate` and `hold` are asked between the sleeps. A rate is in documents per second; 0 lets
        nobody go, None everybody at once and without Redis. `hold` returns why to stop waiting,
        or nothing. While Redis is away nobody goes. Whatever ends the wait without a permit, an
        exception too, gives the ticket back.

        Raises:
            ValueError: the cost or a rate is negative or no finite number.
        """
        begun = clock()
        turn = _Turn(self, cost)
        try:
            while True:
                if reason := hold():
                    return Waited(False, clock() - begun, reason)
                limit = rate()
                pause = 0.0 if limit is None else turn.seconds(limit)
                if not pause:
                    return Waited(True, clock() - begun)
                left = most_seconds - (clock() - begun)
                if left <= 0:
                    return Waited(False, clock() - begun, TOO_LONG)
                sleep(min(pause, left, LONGEST_SLEEP_SECONDS))
        finally:
            turn.leave()


class _Turn:
    """One caller in the line: its ticket, until it goes or leaves."""

    def __init__(self, limit: RateLimit, cost: int) -> None:
        if cost < 0:
            raise ValueError(f"a cost of {cost} documents is negative")
        self._limit, self._cost = limit, cost
        self._ticket: Ticket | None = None
        self._unsure = False

    def seconds(self, rate: float) -> float:
        """How long to wait before asking again; 0 is the permit, which is consumed by it."""
        if not 0 <= rate < math.inf:
            raise ValueError(f"a rate of {rate} documents/s is not a number from 0 up")
        try:
            found = self._look(rate)
        except self._limit.away:
            self._unsure = True
            return LONGEST_SLEEP_SECONDS
        self._ticket = found if found.seconds else None
        return found.seconds

    def _look(self, rate: float) -> Ticket:
        if self._ticket:
            found = self._limit.look(self._ticket, self._cost, rate)
            if not found.void:
                return found
            self._ticket = None
        elif self._unsure:
            # A Redis that hangs takes every ticket asked for once it is back: ask for none
            # before it has answered something else.
            self._limit.look(Ticket("", "0", 0.0), 0, rate)
        self._unsure = False
        return self._limit.reserve(self._cost, rate)

    def leave(self) -> None:
        """Give the ticket back if it is still there."""
        if self._ticket:
            try:
                self._limit.give_back(self._ticket, self._cost)
            except self._limit.away:
                # Redis is away: the ticket is lost, once.
                return


def _text(answer: bytes | str) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer
