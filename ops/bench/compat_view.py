"""Reading through the compat view: latencies beside the plain collection, one after the other."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from mongosplit import compat
from mongosplit.open_run import OpenRun, open_run
from mongosplit.pipelines import join_pipeline
from mongosplit.view_pipeline import keys
from ops.bench import jobs
from ops.bench.stage import Stage
from ops.bench.workers import carry_out

WORKERS = 2
READS = 100
"""Reads of each kind in each round."""
RANGE = 100
MOST = 3.0
"""The goal: a point read takes at most so many times the plain collection's."""
GOALS = ("one by _id", "one by username", "one by kontakt.email")
SCANS = 3
"""Reads that scan: so many are enough."""

Read = Callable[[str, dict[str, Any]], Any]
"""Reads from the collection or view of this name by a document that stands there."""


@dataclass(frozen=True)
class Beside:
    """One kind of read, in milliseconds: through the view and on the plain collection."""

    name: str
    view: list[float]
    plain: list[float]

    @property
    def ratio(self) -> float:
        """The median over the pairs, whose reads followed one another."""
        return median(ours / own for ours, own in zip(self.view, self.plain, strict=True))


@dataclass(frozen=True)
class Reads:
    """All kinds of reads."""

    kinds: list[Beside]
    title: str = "reads through the compat view, beside the plain collection"

    def sentences(self) -> list[str]:
        """A line for each kind, with its goal where it has one."""
        told = []
        for one in self.kinds:
            met = f", goal {'met' if one.ratio < MOST else 'not met'}" if one.name in GOALS else ""
            told.append(
                f"{one.name:<34} p50 {median(one.view):9.2f} ms, plain {median(one.plain):8.2f} ms "
                f"({one.ratio:.1f}x{met})"
            )
        return told

    def foreign(self) -> list[float]:
        """Nothing is known of other work."""
        return []

    def to_document(self) -> dict[str, Any]:
        """Medians and ratios, for JSON."""
        return {
            "reads": [
                {
                    "name": one.name,
                    "view_ms": median(one.view),
                    "plain_ms": median(one.plain),
                    "ratio": one.ratio,
                }
                for one in self.kinds
            ]
        }


def measure(stage: Stage) -> Reads:
    """Move everything, make the view, and read both ways by turns; indexes are made for it."""
    at = open_run(stage.client, stage.ledger, stage.begin(validators=True), holder="bench")
    carry_out(jobs.ours, stage.place(at.run.id), WORKERS, stage.mongod)
    indexes = [at.source.create_index(path) for path in keys(stage.migration)]
    view, bare = compat.default_name(stage.migration), "bench_join"
    compat.create(at, view)
    # The join as the reverse sync will have it: no filter but one by _id reaches an index.
    at.data.create_collection(bare, viewOn=at.source.name, pipeline=join_pipeline(at.migration))
    try:
        found = _all_kinds(stage, at, view, bare)
    finally:
        compat.drop(at, view)
        at.data.drop_collection(bare)
        for index in indexes:
            at.source.drop_index(index)
    stage.on_sample()
    return Reads(found)


def _all_kinds(stage: Stage, at: OpenRun, view: str, bare: str) -> list[Beside]:
    ids = [row["_id"] for row in at.source.find({}, {"_id": 1}).sort("_id", 1)]
    points = stage.rounds * READS

    def between(name: str, document: dict[str, Any]) -> Any:
        first = min(ids.index(document["_id"]), max(0, len(ids) - RANGE))
        span = {"$gte": ids[first], "$lte": ids[min(first + RANGE, len(ids)) - 1]}
        return list(at.data[name].find({"_id": span}))

    def first_ones(name: str, document: dict[str, Any]) -> Any:
        since = at.data[name].find({"_id": {"$gte": document["_id"]}})
        return list(since.sort("_id", 1).limit(RANGE))

    def count(name: str, _: dict[str, Any]) -> Any:
        return at.data[name].count_documents({})

    asked = [
        *(
            (f"one by {path}", _point(at, path), points, view)
            for path in ("_id", *keys(at.migration))
        ),
        (f"{RANGE} between two _ids", between, max(1, points // 10), view),
        (f"{RANGE} from an _id on, sorted", first_ones, SCANS, view),
        ("count of all", count, SCANS, view),
        ("one by _id, the join as it is", _point(at, "_id"), points, bare),
        ("one by username, the join as it is", _point(at, "username"), SCANS, bare),
    ]
    chance = random.Random(1)
    return [
        _beside(name, at, [chance.choice(ids) for _ in range(times)], read, through)
        for name, read, times, through in asked
    ]


def _point(at: OpenRun, path: str) -> Read:
    return lambda name, document: list(at.data[name].find({path: _at(document, path)}).limit(1))


def _beside(name: str, at: OpenRun, ids: list[Any], read: Read, view: str) -> Beside:
    took: dict[str, list[float]] = {view: [], at.source.name: []}
    for one in ids:
        document = at.source.find_one({"_id": one}) or {}
        for side, times in took.items():
            began = time.perf_counter()
            read(side, document)
            times.append((time.perf_counter() - began) * 1000)
    return Beside(name, took[view], took[at.source.name])


def _at(document: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) or {}
    return document
