"""Celery's own rate limit of one worker: a guard rail beside the pace, and it multiplies."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mongosplit.errors import UsageError
from producer import dispatch
from worker.app import app

TASK = "mongosplit.migrate_chunk"
NONE = "0"


@dataclass(frozen=True, slots=True)
class WorkerRate:
    """How many chunks one worker may begin, in Celery's words; `0` is any."""

    text: str

    @classmethod
    def parse(cls, typed: str) -> WorkerRate:
        """What `10/s`, `300/m`, `1000/h` or `off` means.

        Raises:
            UsageError: it is none of them.
        """
        word = typed.strip().lower()
        if word in ("off", "max"):
            return cls(NONE)
        found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)/([smh])", word)
        if found is None or not float(found[1]):
            hint = "write --per-worker 10/s, 300/m or off"
            raise UsageError(f'"{typed[:40]}" is no rate of a worker', hint=hint)
        return cls(word)

    def __str__(self) -> str:
        return "any number of" if self.text == NONE else self.text


def tell_newcomers(rate: str | None, told: set[str]) -> None:
    """Tell workers that were not told yet, and remember them.

    Raises:
        BrokerAway: Redis does not answer.
    """
    if rate is None:
        return
    present = set(dispatch.listeners("migrate"))
    if newcomers := present - told:
        send(WorkerRate(rate), sorted(newcomers))
    told.clear()
    told |= present


def send(rate: WorkerRate, workers: list[str] | None = None) -> None:
    """Tell these workers, or all; one that comes later is told by the driver.

    Raises:
        BrokerAway: Redis does not answer.
    """
    with dispatch.broker_errors():
        app.control.rate_limit(TASK, rate.text, destination=workers)
