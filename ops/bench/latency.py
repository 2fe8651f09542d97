"""What the application feels: latency of small reads and writes, idle, beside a run, paced."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mongosplit.ledger import paces
from ops.bench import jobs
from ops.bench.stage import Stage
from ops.bench.workers import Job, carry_out

WORKERS = 2
IDLE_SECONDS = 3.0
EVERY_SECONDS = 0.005
SLOWED_TO = 0.25
"""The paced run goes at this share of what the other one did."""


@dataclass(frozen=True)
class Felt:
    """Latencies in milliseconds under one condition, sorted."""

    name: str
    milliseconds: list[float]

    def at(self, share: float) -> float:
        """The latency that this share of the operations stays below."""
        return self.milliseconds[
            min(len(self.milliseconds) - 1, int(share * len(self.milliseconds)))
        ]


@dataclass(frozen=True)
class Latency:
    """What the application felt, idle first."""

    felt: list[Felt]
    title: str = "latency of the application's own reads and writes"

    def sentences(self) -> list[str]:
        """A line for each condition, with its ratio to idle."""
        idle = self.felt[0]
        return [
            f"{one.name:<32} p50 {one.at(0.5):6.2f} ms ({one.at(0.5) / idle.at(0.5):4.1f}x idle), "
            f"p99 {one.at(0.99):6.2f} ms ({one.at(0.99) / idle.at(0.99):4.1f}x)"
            for one in self.felt
        ]

    def foreign(self) -> list[float]:
        """Nothing is known of other work."""
        return []

    def to_document(self) -> dict[str, Any]:
        """Everything but the single latencies, for JSON."""
        return {
            "felt": [
                {"name": one.name, "p50": one.at(0.5), "p99": one.at(0.99), "most": one.at(1.0)}
                for one in self.felt
            ]
        }


def measure(stage: Stage) -> Latency:
    """Feel it idle, beside a run at full speed, and beside one that is paced."""
    ids = [row["_id"] for row in stage.data[stage.migration.source].find({}, {"_id": 1})]
    end = time.monotonic() + IDLE_SECONDS
    idle = _feel("idle", stage, ids, lambda: time.monotonic() < end)
    full, seconds = _beside("beside a run at full speed", stage, ids, jobs.ours, None)
    rate = SLOWED_TO * len(ids) / seconds
    paced, _ = _beside(f"paced at {SLOWED_TO:.0%} of that", stage, ids, jobs.ours_permitted, rate)
    return Latency([idle, full, paced])


def _beside(
    name: str, stage: Stage, ids: list[Any], job: Job, rate: float | None
) -> tuple[Felt, float]:
    run = stage.begin(validators=True)
    if rate is not None:
        paces.set_base(stage.ledger, run, rate, actor="bench")
    place = stage.place(run)
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(carry_out, job, place, WORKERS, stage.mongod)
        felt = _feel(name, stage, ids, lambda: not working.done())
        took = working.result()
    stage.on_sample()
    return felt, took.passed.wall


def _feel(name: str, stage: Stage, ids: list[Any], going: Callable[[], bool]) -> Felt:
    source, own = stage.data[stage.migration.source], stage.data["bench_application"]
    chance = random.Random(1)
    found: list[float] = []
    while going():
        one = chance.choice(ids)
        began = time.perf_counter()
        source.find_one({"_id": one})
        own.update_one({"_id": one}, {"$inc": {"seen": 1}}, upsert=True)
        found.append((time.perf_counter() - began) * 1000)
        time.sleep(EVERY_SECONDS)
    return Felt(name, sorted(found))
