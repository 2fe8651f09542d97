"""One thread of the application: does what is due, and times it from when it was due."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass
from threading import Event

from pymongo.errors import PyMongoError

from mongosplit import raw
from ops.load.clerk import Clerk
from ops.load.customers import Customers
from ops.load.intent import Intent
from ops.load.latency import Sample
from ops.load.others import starved
from ops.load.roster import Roster

OVERTIME_SECONDS = 10.0
"""How long after its end a run does what it should have begun before."""


@dataclass(frozen=True)
class Due:
    """When operations are due, on the monotonic clock."""

    first: float
    every: float
    end: float


class Working:
    """One thread: carries out, one after the other, what its customers want when it is due."""

    def __init__(self, clerk: Clerk, roster: Roster, customers: Customers) -> None:
        self._clerk, self._roster, self._customers = clerk, roster, customers
        self._next: deque[Intent] = deque()

    def run(self, due: Due, stopping: Event) -> tuple[list[Sample], int]:
        """The operations of one run, and how many were due but not begun."""
        samples: list[Sample] = []
        start = due.first
        for number in itertools.count(1):
            # Before it is due, for only the server's part is to be felt.
            self._prepare()
            wait = min(start, due.end) - time.monotonic()
            stopped = stopping.wait(wait) if wait > 0 else stopping.is_set()
            if start >= due.end or stopped or -wait > OVERTIME_SECONDS + due.end - start:
                break
            before = starved()
            operation, error = self._one()
            took = time.monotonic() - start
            samples.append(Sample(operation, start, took, error, starved() - before))
            start = due.first + number * due.every
        missed = 0 if stopping.is_set() else max(0, int((due.end - start) / due.every))
        for key in [*self._roster.unsettled]:
            if not self._settle(key):
                break
        return samples, missed

    def _one(self) -> tuple[str, str]:
        """Carry out what is due now; returns its name and the driver's error."""
        if (unsettled := next(iter(self._roster.unsettled), None)) is not None:
            return "settle", self._error_of_settling(unsettled)
        self._prepare()
        intent = self._next.popleft()
        try:
            self._clerk.carry_out(intent)
        except PyMongoError as error:
            # What was to follow rests on this one.
            self._next.clear()
            return intent.operation, type(error).__name__
        return intent.operation, ""

    def _prepare(self) -> None:
        if not self._next and not self._roster.unsettled:
            self._next.extend(self._customers.next())

    def _settle(self, key: raw.Value) -> bool:
        return not self._error_of_settling(key)

    def _error_of_settling(self, key: raw.Value) -> str:
        try:
            self._clerk.settle(key)
        except PyMongoError as error:
            return type(error).__name__
        return ""
