"""How reads through the compat view are answered: index, documents examined, and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.mongo import raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value
from mongosplit.view_pipeline import keys

TIMES = 21
"""How often each read is timed; the two sides take turns, and the median counts."""
SLOW_SECONDS = 5.0
"""No more turns are taken after so long."""
_NOT_DONE = frozenset({"rejectedPlans", "parsedQuery", "command"})
"""Parts of an explanation that tell what was asked, or not done."""


@dataclass(frozen=True)
class Read:
    """One read by equality, through the view and on the plain collection.

    `indexes` are those used, `examined` documents of all collections, times in milliseconds.
    `scans` says that a whole collection was read.
    """

    field: str
    indexes: list[str]
    examined: int
    scans: bool
    view: float
    plain: float

    @property
    def ratio(self) -> float:
        """The view's time by the plain collection's."""
        return self.view / self.plain

    def to_document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**vars(self), "ratio": self.ratio}


def fields(at: OpenRun) -> list[str]:
    """The fields a point reader reads by: `_id`, and what the first target is indexed by."""
    return ["_id", *keys(at.migration)]


def example(at: OpenRun, field: str) -> Value | None:
    """A value that a document of the source has there; None when no document has one."""
    having = {field: {"$exists": True, "$ne": None}}
    found = raw_documents(at.source.find_raw_batches(having, limit=1))
    return next((raw.lookup(document, field) for document in found), None)


def explain(at: OpenRun, name: str, field: str, value: Value) -> Read:
    """Read by the field both ways and say how."""
    query = RawBSONDocument(raw.build([(field, raw.subdocument([("$eq", value)]))]))
    asked = {"aggregate": name, "pipeline": [{"$match": query}], "cursor": {}}
    answer = at.data.command("explain", asked, verbosity="executionStats", codec_options=raw.EXACT)
    plan = {
        part: answer[part]
        for part in ("stages", "executionStats", "queryPlanner")
        if part in answer
    }
    facts = list(_facts(plan))
    view, plain = _timed(at, name, query)
    return Read(
        field,
        sorted({str(fact) for kind, fact in facts if kind == "index"}),
        sum(int(fact) for kind, fact in facts if kind == "examined"),
        any(kind == "scan" for kind, _ in facts),
        view,
        plain,
    )


def _facts(plan: Any) -> Iterator[tuple[str, Any]]:
    """What an explanation says, wherever it stands in it: stages differ between plans."""
    inside = plan if isinstance(plan, list) else []
    if isinstance(plan, dict):
        yield from _stage_facts(plan)
        inside = [inner for name, inner in plan.items() if name not in _NOT_DONE]
    for inner in inside:
        yield from _facts(inner)


def _stage_facts(stage: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if stage.get("stage") == "COLLSCAN" or stage.get("collectionScans"):
        yield "scan", True
    if stage.get("stage") == "IDHACK":
        yield "index", "_id_"
    if "indexName" in stage:
        yield "index", stage["indexName"]
    yield from (("index", one) for one in stage.get("indexesUsed", ()))
    if "totalDocsExamined" in stage:
        yield "examined", stage["totalDocsExamined"]


def _timed(at: OpenRun, name: str, query: Any) -> tuple[float, float]:
    sides: list[tuple[Callable[[], Any], list[float]]] = [
        (lambda: list(at.data[name].find_raw_batches(query, limit=1)), []),
        (lambda: list(at.source.find_raw_batches(query, limit=1)), []),
    ]
    end = time.monotonic() + SLOW_SECONDS
    for turn in range(TIMES):
        for read, took in sides:
            began = time.perf_counter()
            read()
            took.append((time.perf_counter() - began) * 1000)
        if turn and time.monotonic() > end:
            break
    return median(sides[0][1]), median(sides[1][1])
