"""The rate limiter: how near to the rate, how fair, and what taking a permit costs a chunk."""

from __future__ import annotations

import multiprocessing
import os
import time
import uuid
from dataclasses import dataclass
from statistics import median
from typing import Any

from mongosplit.errors import Failed
from mongosplit.ledger import paces
from mongosplit.ledger.claims import Attempt
from mongosplit.migrate import migrate_chunk
from mongosplit.open_run import OpenRun
from mongosplit.pace_text import FASTEST
from ops.bench.result import Goal, Result
from ops.bench.stage import Cell, Stage
from ops.bench.workers import Share, Work
from worker import pacing
from worker.app import app

PROCESSES = 4
SECONDS = 5.0
RATES = ((100.0, 10), (1000.0, 50), (20_000.0, 1000))
"""Documents per second, and documents in a chunk."""

PERMITS = 20
"""How often a permit is taken before each chunk: one is over too soon for so few chunks."""

COSTS = "bench_permits"
"""The collection in which the workers keep how long permits and chunks took, in milliseconds."""

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


@dataclass(frozen=True)
class Cost:
    """How long permits and chunks took in the same processes, in milliseconds, by cell."""

    moved: Result
    permits: dict[str, list[float]]
    chunks: dict[str, list[float]]

    @property
    def title(self) -> str:
        """What was measured."""
        return self.moved.title

    def share(self, cell: str) -> float:
        """A permit that is free by the chunk it is for, medians of both."""
        return median(self.permits[cell]) / median(self.chunks[cell])

    def sentences(self) -> list[str]:
        """The times of each cell, and its goal."""
        told = [
            f"{cell}: {_spread('permit', permits_)}; {_spread('chunk', self.chunks[cell])}"
            for cell, permits_ in self.permits.items()
        ]
        for goal in self.moved.goals:
            found = self.share(goal.cell)
            met = "met    " if goal.is_met(found) else "not met"
            told.append(f"goal {met}  {goal.sentence}, at most {goal.most:g}: {found:.4f}")
        return told

    def foreign(self) -> list[float]:
        """Cores that other work kept busy, for each measurement where it is known."""
        return self.moved.foreign()

    def to_document(self) -> dict[str, Any]:
        """The cells, and what was measured in them."""
        goals = [(goal, self.share(goal.cell)) for goal in self.moved.goals]
        return {
            **self.moved.to_document(),
            "permit_ms": {cell: _percentiles(found) for cell, found in self.permits.items()},
            "chunk_ms": {cell: _percentiles(found) for cell, found in self.chunks.items()},
            "goals": [{**vars(goal), "ratio": at, "met": goal.is_met(at)} for goal, at in goals],
        }


def permits(stage: Stage) -> Cost:
    """Take permits that are free before each chunk, and time both, with one worker and with two."""
    times: dict[str, list[dict[str, Any]]] = {}

    def keep() -> None:
        for row in stage.ledger.database[COSTS].find({}):
            times.setdefault(f"with permits x{row['workers']}", []).append(row)
        counted()

    counted, stage.on_sample = stage.on_sample, keep
    cells = [Cell(f"with permits x{count}", _timed, count, validators=True) for count in (1, 2)]
    goals = [
        Goal(f"a free permit to its chunk, {cell.name}", cell.name, cell.name, most=0.02)
        for cell in cells
    ]
    samples = stage.measure([(cell,) for cell in cells])
    moved = Result("taking permits", samples, to=(), goals=tuple(goals))
    return Cost(
        moved,
        {
            cell: sorted(one for row in rows for one in row["permits"])
            for cell, rows in times.items()
        },
        {cell: sorted(row["chunk"] for row in rows) for cell, rows in times.items()},
    )


def _timed(at: OpenRun, share: Share) -> Work:
    """`migrate_chunk` after many permits, at a rate limit that nobody reaches; both timed."""
    if share.number == 0:
        paces.set_base(at.ledger, at.run.id, FASTEST, actor="bench")

    def work() -> int:
        users, kept = 0, []
        for chunk in share.take():
            taken = [_permit(at, chunk.n) for _ in range(PERMITS)]
            began = time.perf_counter()
            outcome = migrate_chunk(at, chunk.n, Attempt(worker=f"bench-{share.number}"))
            took = (time.perf_counter() - began) * 1000
            kept.append({"workers": share.workers, "permits": taken, "chunk": took})
            if outcome.did != "migrated":
                raise Failed(f"chunk {chunk.n} was to be migrated, and is {outcome.did}")
            users += chunk.planned
        if kept:
            at.ledger.database[COSTS].insert_many(kept)
        return users

    return work


def _permit(at: OpenRun, n: int) -> float:
    began = time.perf_counter()
    if not pacing.admitted(at.ledger, at.run.id, n).granted:
        raise Failed(f"chunk {n} got no permit")
    return (time.perf_counter() - began) * 1000


def _percentiles(times: list[float]) -> dict[str, float]:
    last = times[min(len(times) - 1, int(0.99 * len(times)))]
    return {"count": len(times), "p50": median(times), "p99": last}


def _spread(name: str, times: list[float]) -> str:
    found = _percentiles(times)
    p50, p99 = found["p50"], found["p99"]
    return f"{name} p50 {p50:.2f} ms, p99 {p99:.2f} ms ({found['count']:,} times)"
