"""The rate limiter by itself: how near to the rate, and how fair, with several processes."""

from __future__ import annotations

import multiprocessing
import os
import time
import uuid
from dataclasses import dataclass
from typing import Any

from mongosplit.errors import Failed
from ops.bench.stage import Stage
from worker import pacing
from worker.app import app

PROCESSES = 4
SECONDS = 5.0
RATES = ((100.0, 10), (1000.0, 50), (20_000.0, 1000))
"""Documents per second, and documents in a chunk."""

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Kept:
    """At one rate: how much went, as a share of it, and the least and the most by one process."""

    rate: float
    cost: int
    got: float
    least: int
    most: int

    @property
    def ratio(self) -> float:
        """What went by what was to go."""
        return self.got / self.rate


@dataclass(frozen=True)
class Limits:
    """What was kept at each rate."""

    kept: list[Kept]
    title: str = f"the rate limit, {PROCESSES} processes, {SECONDS:.0f} s each"

    def sentences(self) -> list[str]:
        """A line for each rate."""
        return [
            f"{one.rate:>8,.0f}/s in chunks of {one.cost:>5,}: {one.ratio:.3f} of it, "
            f"{one.least} to {one.most} chunks by one process"
            for one in self.kept
        ]

    def foreign(self) -> list[float]:
        """Nothing is known of other work."""
        return []

    def to_document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"kept": [{**vars(one), "ratio": one.ratio} for one in self.kept]}


def measure(stage: Stage) -> Limits:
    """Let several processes take permits as fast as they get them."""
    kept = []
    for rate, cost in RATES:
        kept.append(_at(stage.settings.redis_url, rate, cost))
        stage.on_sample()
    return Limits(kept)


def _at(url: str, rate: float, cost: int) -> Kept:
    line = f"bench-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with _CONTEXT.Pool(PROCESSES) as pool:
        # Every process is there before the first permit is taken.
        pool.map(_nothing, range(PROCESSES * 4), chunksize=1)
        begin = time.time() + 0.5
        asked = [(url, line, rate, cost, begin)] * PROCESSES
        counts = pool.starmap(_take, asked, chunksize=1)
    # The first one goes at once, and what the others wait for is what the rate lets go.
    return Kept(rate, cost, (sum(counts) - 1) * cost / SECONDS, min(counts), max(counts))


def _nothing(_: int) -> None:
    time.sleep(0.01)


def _take(url: str, line: str, rate: float, cost: int, begin: float) -> int:
    app.conf.broker_url = url
    limit = pacing.line(line)
    time.sleep(max(0.0, begin - time.time()))
    end, count = begin + SECONDS, 0
    while (left := end - time.time()) > 0:
        waited = limit.wait(cost, lambda: rate, hold=lambda: "", most_seconds=left)
        if waited.granted and time.time() <= end:
            count += 1
    if not count:
        raise Failed("a process of the benchmark got no permit")
    return count
