"""What Prometheus is told of each run: how each of the producer's series is read off the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from celery.utils.time import rate as celery_rate
from prometheus_client.core import GaugeMetricFamily

from mongosplit import series
from mongosplit.ledger import chunks, dirty, followers, foreign, kept, paces, runs, tally, waves
from mongosplit.ledger.book import Ledger, now
from mongosplit.ledger.followers import Position
from mongosplit.ledger.leases import LEASE_SECONDS
from mongosplit.ledger.paces import Limit, Pulse
from mongosplit.model import APPLIED, ChunkState, Run, RunState
from mongosplit.series import By, Series
from producer import pacing_facts
from worker import pacing

Values = Iterable[tuple[tuple[str, ...], float]]
"""Numbers, each with the values of its labels besides the run."""


@dataclass(frozen=True)
class Standing:
    """Who holds the run, and what it has sent: `lease_left` are seconds, below 0 once it ran out.

    `lease_left` is None where nobody has the lease, or whoever had it gave it back.
    """

    lease_left: float | None = None
    waves: int = 0
    wave_chunks: int = 0
    kept: int = 0


@dataclass(frozen=True)
class Seen:
    """What one scrape sees of one run."""

    ledger: Ledger
    run: Run
    pulse: Pulse
    moment: datetime
    standing: Standing = field(default_factory=Standing)

    @cached_property
    def totals(self) -> dict[str, dict[str, int]]:
        """The sums by chunk state."""
        return tally.totals(self.ledger, self.run.id)

    @cached_property
    def position(self) -> Position | None:
        """Where the follower stands."""
        return followers.get(self.ledger, self.run.id)

    @cached_property
    def backlog(self) -> int:
        """How many documents are dirty."""
        return dirty.backlog(self.ledger, self.run.id)

    @cached_property
    def foreign(self) -> list[dict[str, Any]]:
        """What somebody else wrote, by collection."""
        return foreign.by_collection(self.ledger, self.run.id)

    @cached_property
    def limit(self) -> Limit:
        """The rate limit that holds."""
        return self.pulse.limit(self.moment)

    def applied(self, name: str) -> int:
        """One of the sums, over applied chunks."""
        return sum(self.totals[state][name] for state in APPLIED if state in self.totals)

    def of_state(self, state: ChunkState, name: str) -> int:
        """One of the sums, over the chunks in a state."""
        return self.totals.get(state.value, {}).get(name, 0)


def see(ledger: Ledger, run: str) -> Seen:
    """Look at a run; what only some series need is read when they are.

    Raises:
        pymongo.errors.PyMongoError: the ledger does not answer.
    """
    found = runs.get(ledger, run)
    return Seen(ledger, found, paces.pulse(ledger, run), now(), _standing(ledger, run))


def _standing(ledger: Ledger, run: str) -> Standing:
    opened = waves.open_waves(ledger, run)
    # Wave by wave: the numbers of all that may be sent at once are too many for one query.
    wanted = [chunks.still(ledger, run, wave.chunks, chunks.WANTED) for wave in opened]
    return Standing(
        lease_left=_lease_left(ledger, run),
        waves=len(opened),
        wave_chunks=sum(map(len, wanted)),
        kept=kept.count(ledger, run),
    )


def _lease_left(ledger: Ledger, run: str) -> float | None:
    # By the server's clock, as the lease itself is.
    left = {"$subtract": ["$lease.until", "$$NOW"]}
    [row] = ledger["runs"].aggregate([{"$match": {"_id": run}}, {"$project": {"left": left}}])
    return None if row.get("left") is None else float(row["left"]) / 1000


@dataclass(frozen=True)
class Reading:
    """One series of each run: the entry of the table, and how its numbers are read."""

    series: Series
    read: Callable[[Seen], Values]

    @property
    def name(self) -> str:
        """The series' name without its prefix."""
        return self.series.name

    @property
    def meaning(self) -> str:
        """The series' help text."""
        return self.series.meaning

    def family(self, runs_seen: Iterable[Seen]) -> GaugeMetricFamily:
        """The series with its numbers for these runs."""
        full_name, meaning = self.series.full_name, self.meaning
        family = GaugeMetricFamily(full_name, meaning, labels=self.series.labels)
        for seen in runs_seen:
            for labels, value in self.read(seen):
                family.add_metric((seen.run.id, *labels), value)
        return family


def _one(value: float | None) -> Values:
    """A single number; None, which is no limit, as Prometheus has it."""
    return [((), math.inf if value is None else float(value))]


def _pace(seen: Seen) -> Values:
    facts = pacing_facts.facts(seen.run, seen.moment)
    held_back_by = facts["held_back_by"] or ""
    return [((_origin(seen), seen.limit.actor, held_back_by), 1.0)]


def _origin(seen: Seen) -> str:
    if seen.limit.scheduled:
        return "schedule"
    if seen.limit.until:
        return "spell"
    return "base" if seen.limit.actor else "none"


def _per_worker(seen: Seen) -> Values:
    return _one(celery_rate(seen.pulse.pace.get("per_worker") or "0") or None)


def _signals(seen: Seen) -> Values:
    observed: dict[str, Any] = (seen.run.health or {}).get("observed") or {}
    measured = seen.pulse.throttled and not pacing.is_stale(seen.pulse)
    return [((name,), float(value)) for name, value in observed.items() if measured]


def _verdict_age(seen: Seen) -> Values:
    age = seen.pulse.verdict_age
    return _one(age) if seen.pulse.throttled and age is not None else []


def _driver_seen(seen: Seen) -> Values:
    left = seen.standing.lease_left
    return () if left is None else _one(max(0.0, LEASE_SECONDS - left))


def _followed(seen: Seen, number: Callable[[Position], float]) -> Values:
    return () if seen.position is None else _one(number(seen.position))


_READ: dict[str, Callable[[Seen], Values]] = {
    "run_state": lambda seen: [
        ((state.value,), float(state is seen.run.state)) for state in RunState
    ],
    "chunks": lambda seen: [
        ((state.value,), float(seen.of_state(state, "chunks"))) for state in ChunkState
    ],
    "documents_migrated": lambda seen: _one(seen.applied("docs") - seen.applied("quarantined")),
    "documents_quarantined": lambda seen: _one(seen.applied("quarantined")),
    "documents_unverified": lambda seen: _one(seen.of_state(ChunkState.MIGRATED, "docs")),
    "documents_kept": lambda seen: _one(seen.standing.kept),
    "mismatches": lambda seen: _one(sum(seen.of_state(s, "mismatches") for s in ChunkState)),
    "waves_open": lambda seen: _one(seen.standing.waves),
    "wave_chunks_open": lambda seen: _one(seen.standing.wave_chunks),
    "driver_alive": lambda seen: _one(float((seen.standing.lease_left or 0.0) > 0)),
    "driver_seen_seconds": _driver_seen,
    "pace_documents_per_second": lambda seen: _one(pacing.rate_of(seen.pulse, seen.moment)),
    "rate_limit_documents_per_second": lambda seen: _one(seen.limit.rate),
    "base_limit_documents_per_second": lambda seen: _one(
        (seen.pulse.pace.get("base") or {}).get("rate")
    ),
    "pace_info": _pace,
    "worker_rate_chunks_per_second": _per_worker,
    "throttle_documents_per_second": lambda seen: _one(pacing.allowed_by_throttle(seen.pulse)),
    "throttle_stopped": lambda seen: _one(float(pacing.is_stopped(seen.pulse))),
    "throttle_verdict_age_seconds": _verdict_age,
    "signal_observed": _signals,
    "follower_alive": lambda seen: _followed(seen, lambda found: float(found.alive)),
    "follower_lag_seconds": lambda seen: _followed(seen, lambda found: found.lag_seconds),
    "follower_events": lambda seen: _followed(seen, lambda found: float(found.events)),
    "follower_backlog_documents": lambda seen: _one(float(seen.backlog)),
    "foreign_writes": lambda seen: (
        ((row["collection"],), float(row["writes"])) for row in seen.foreign
    ),
}
SERIES = tuple(
    Reading(entry, _READ[entry.name]) for entry in series.exposed_by(By.PRODUCER) if entry.labels
)
"""Everything that is told of a run."""
