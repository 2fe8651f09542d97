"""The time from `pause` to quiet: how long chunks go on after an operator asks them not to."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from mongosplit.errors import Failed
from mongosplit.ledger import chunks, runs
from mongosplit.model import RunState
from ops.bench import jobs
from ops.bench.stage import Stage
from ops.bench.workers import carry_out
from producer import settling

WORKERS = 2
BUSY_AFTER = 3
"""Chunks that must be done before the pause is asked: then every worker is in the middle of one."""
SECONDS = 60.0


@dataclass(frozen=True)
class Pauses:
    """For each round the seconds from the ask to quiet, and what one chunk takes meanwhile."""

    seconds: list[float]
    chunk_seconds: list[float]

    title: str = "from pause to quiet, two workers busy"

    def sentences(self) -> list[str]:
        """One line."""
        milliseconds = [seconds * 1000 for seconds in self.seconds]
        return [
            f"{median(milliseconds):,.0f} ms in the median of {len(milliseconds)} rounds, "
            f"{max(milliseconds):,.0f} ms at most; {self.ratio:.2f} times what one chunk takes"
        ]

    @property
    def ratio(self) -> float:
        """The median over the rounds of the time to quiet by the time of one chunk."""
        pairs = zip(self.seconds, self.chunk_seconds, strict=True)
        return median(pause / chunk for pause, chunk in pairs)

    def foreign(self) -> list[float]:
        """Nothing is known of other work."""
        return []

    def to_document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**vars(self), "ratio": self.ratio}


def measure(stage: Stage) -> Pauses:
    """Pause a busy run in each round, and look when the last chunk has ended.

    Raises:
        Failed: a chunk began after the run was quiet.
    """
    rounds = [_round(stage) for _ in range(stage.rounds)]
    return Pauses([pause for pause, _ in rounds], [chunk for _, chunk in rounds])


def _round(stage: Stage) -> tuple[float, float]:
    run_id = stage.begin(validators=True)
    place = stage.place(run_id)
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(carry_out, jobs.ours_until_held, place, WORKERS, stage.mongod)
        _until(lambda: len(_done(stage, run_id)) >= BUSY_AFTER)
        began = time.perf_counter()
        run = runs.move(stage.ledger, run_id, RunState.PAUSING, actor="bench")
        settling.wait_until_done(stage.ledger, run, lambda _: None)
        seconds = time.perf_counter() - began
        quiet = len(_done(stage, run_id))
        working.result()
    if len(_done(stage, run_id)) != quiet:
        raise Failed("a chunk was migrated after the run was quiet")
    stage.on_sample()
    took = [row["milliseconds"] for row in _done(stage, run_id)]
    return seconds, median(took) / 1000


def _done(stage: Stage, run_id: str) -> list[dict[str, Any]]:
    query = {"run": run_id, **chunks.IS_APPLIED, "tail": None}
    return list(stage.ledger["chunks"].find(query, {"milliseconds": 1}))


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise Failed("the workers of the benchmark did not begin")
        time.sleep(0.005)
