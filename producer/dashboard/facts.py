"""What the dashboard is told of a run: one look at the ledger, and what is remembered of former."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import DESCENDING

from mongosplit.ledger import quarantine, runs, tally
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import APPLIED, ChunkState, Run, RunState
from mongosplit.selection import Selection
from producer import following_facts, pacing_facts, status
from producer.dashboard import cells as chunk_cells
from producer.dashboard.audit_lines import Entries
from producer.dashboard.cells import Chunks

CURVE = timedelta(minutes=30)
STEP_SECONDS = 10
"""How far apart two points of the curve are."""
RUNS = 50
"""How many of the newest runs can be chosen."""
LONGEST_SELECTION = 80


@dataclass(frozen=True)
class Sample:
    """A point of the curve: seconds since 1970, documents per second, how many are pending."""

    at: int
    rate: float
    left: int

    def to_json(self) -> list[float]:
        """Short, since there are many."""
        return [self.at, self.rate, self.left]


@dataclass(frozen=True)
class Look:
    """One look at the ledger: facts of the run, its map and its curve; `run` is "" without one."""

    run: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    cells: str = ""
    samples: tuple[Sample, ...] = ()


class Lookout:
    """Looks at a run again and again.

    `name` is a run, a migration (its newest run) or empty: the newest run of all.
    """

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger, self._name, self._run = ledger, name, ""
        self._samples: deque[Sample] = deque()
        self._entries = Entries(ledger, "")

    def look(self) -> Look:
        """What the ledger says now.

        Raises:
            UsageError: there is no such run. PyMongoError: the ledger does not answer.
        """
        rows, moment = known(self._ledger), now()
        run = find(self._ledger, self._name)
        if run is None:
            return Look(facts={"runs": rows, "run": None, "next": "mongosplit plan"})
        chunks = chunk_cells.read(self._ledger, run, moment)
        self._remember(run, chunks, moment)
        found = facts(self._ledger, run, chunks, moment)
        found |= {"runs": rows, "history": self._entries.lines()}
        return Look(run.id, found, chunks.cells, tuple(self._samples))

    def _remember(self, run: Run, chunks: Chunks, moment: datetime) -> None:
        if run.id != self._run:
            self._entries = Entries(self._ledger, run.id)
            self._samples = deque(curve(self._ledger, run, _left(chunks), moment))
            self._run = run.id
        at = int(moment.replace(tzinfo=UTC).timestamp()) // STEP_SECONDS * STEP_SECONDS
        rate = chunks.recent / status.RATE_SECONDS
        while self._samples and self._samples[-1].at >= at:
            self._samples.pop()
        while self._samples and self._samples[0].at <= at - CURVE.total_seconds():
            self._samples.popleft()
        self._samples.append(Sample(at, round(rate, 1), _left(chunks)))


def find(ledger: Ledger, name: str) -> Run | None:
    """The run that is meant; None where the newest is and the ledger has none yet.

    Raises:
        UsageError: there is no run or migration of that name.
    """
    if name:
        return runs.find(ledger, name)
    row = ledger["runs"].find_one({}, {"_id": 1}, sort=[("created", DESCENDING)])
    return None if row is None else runs.by_id(ledger, row["_id"])


def known(ledger: Ledger) -> list[dict[str, str]]:
    """The newest runs, as `run` and `state`."""
    rows = ledger["runs"].find({}, {"state": 1}).sort("created", DESCENDING).limit(RUNS)
    return [{"run": row["_id"], "state": row["state"].replace("_", " ")} for row in rows]


def facts(ledger: Ledger, run: Run, chunks: Chunks, moment: datetime) -> dict[str, Any]:
    """Counts, sentences and what to type next; ids of documents are not among them."""
    applied = [chunks.totals[state] for state in APPLIED if state in chunks.totals]
    quarantined = sum(row["quarantined"] for row in applied)
    rate = chunks.recent / status.RATE_SECONDS
    follower = following_facts.facts(ledger, run)
    followed = bool(follower and follower["alive"])
    return {
        "run": run.id,
        "migration": run.migration,
        "source": run.source,
        "state": run.state_words,
        "why": _why(run),
        "selected": _selected(run),
        "chunks": {
            state.value: chunks.totals.get(state, {}).get("chunks", 0) for state in ChunkState
        },
        "marked": chunks.marked,
        "documents": {
            "source": sum(row["planned"] for row in chunks.totals.values()),
            "migrated": sum(row["docs"] for row in applied) - quarantined,
            "quarantined": quarantined,
            "adopted": sum(row["adopted"] for row in applied),
        },
        "mismatches": sum(row["mismatches"] for row in chunks.totals.values()),
        "independently_verified": sum(row["independent"] for row in chunks.totals.values()),
        "rate": round(rate, 1),
        "eta_seconds": eta_seconds(run, _left(chunks), rate),
        "pace": _pace(run, moment),
        "follower": _follower(run, follower),
        "quarantine": quarantine.by_reason(ledger, run.id) if quarantined else [],
        "released": quarantine.released(ledger, run.id) if quarantined else 0,
        "failures": _failures(ledger, run, chunks),
        "next": status.next_command(run, chunks.totals, followed=followed),
    }


def curve(ledger: Ledger, run: Run, left: int, moment: datetime) -> list[Sample]:
    """The curve as far as the ledger knows it: by when the chunks of the last while were finished.

    `left` is how many documents are pending at that moment.
    """
    if run.started is None:
        return []
    step = {"date": "$finished", "unit": "second", "binSize": STEP_SECONDS}
    done = {
        int(row["_id"].replace(tzinfo=UTC).timestamp()): int(row["docs"])
        for row in ledger["chunks"].aggregate(
            [
                {"$match": {"run": run.id, "finished": {"$gte": moment - CURVE}}},
                {"$group": {"_id": {"$dateTrunc": step}, "docs": {"$sum": "$docs"}}},
            ]
        )
    }
    last = int(moment.replace(tzinfo=UTC).timestamp()) // STEP_SECONDS * STEP_SECONDS
    started = int(run.started.replace(tzinfo=UTC).timestamp())
    begin = max(last - int(CURVE.total_seconds()), started // STEP_SECONDS * STEP_SECONDS)
    found: list[Sample] = []
    for at in range(last, begin - 1, -STEP_SECONDS):
        rate = done.get(at, 0) / STEP_SECONDS
        found.append(Sample(at, round(rate, 1), left))
        left += done.get(at, 0)
    return found[::-1]


def eta_seconds(run: Run, left: int, rate: float) -> int | None:
    """When the pending documents will be migrated at this rate; None while nobody can say."""
    if not left:
        return 0
    return round(left / rate) if run.state is RunState.RUNNING and rate > 0 else None


def _left(chunks: Chunks) -> int:
    return chunks.totals.get(ChunkState.PENDING, {}).get("planned", 0)


def _why(run: Run) -> str:
    """Why the run is where it is; of one that goes on it is the part, which is told elsewhere."""
    return "" if run.state is RunState.RUNNING else str(run.asked.get("why") or "")


def _selected(run: Run) -> str:
    if not run.selection:
        return ""
    selection = Selection.from_document(run.selection)
    said = f"chunks {selection}"
    return said if len(said) <= LONGEST_SELECTION else f"{said[:LONGEST_SELECTION]}…"


def _pace(run: Run, moment: datetime) -> dict[str, Any]:
    found = pacing_facts.facts(run, moment)
    observed = (run.health or {}).get("observed") or {}
    held_back = bool(found["held_back_by"])
    return {
        "sentence": pacing_facts.sentence(found),
        "limit": found["limit"],
        "held_back_by": found["held_back_by"],
        "schedule": f"{found['schedule']} ({found['zone']})" if found["schedule"] else "",
        "signals": found["signals"].replace(",", ", "),
        "observed": {name: round(value, 2) for name, value in observed.items()}
        if held_back
        else {},
    }


def _follower(run: Run, found: dict[str, Any] | None) -> dict[str, Any] | None:
    if found is None or run.finished:
        return None
    return {
        "alive": found["alive"],
        "lag_seconds": found["lag_seconds"],
        "backlog": found["backlog"],
        "events": found["events"],
        "sentence": following_facts.sentence(found, run.id),
        "unwell": bool(found["obstacle"]) or not found["alive"],
        "foreign": following_facts.foreign_sentences(found),
    }


def _failures(ledger: Ledger, run: Run, chunks: Chunks) -> list[dict[str, Any]]:
    if not chunks.unwell:
        return []
    return [
        {"chunk": chunk.n, "sentence": (chunk.error or {}).get("sentence", "")}
        for chunk in tally.failures(ledger, run.id)
    ]
