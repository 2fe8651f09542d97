"""What Prometheus is told of the runs: every series in one table, read off the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from celery.utils.time import rate as celery_rate
from prometheus_client.core import GaugeMetricFamily

from mongosplit.ledger import dirty, followers, foreign, tally
from mongosplit.ledger.book import Ledger
from mongosplit.ledger.followers import Position
from mongosplit.ledger.paces import Limit, Pulse
from mongosplit.model import APPLIED, ChunkState, Run, RunState
from producer import pacing_facts
from worker import pacing

Values = Iterable[tuple[tuple[str, ...], float]]
"""Numbers, each with the values of its labels besides the run."""


@dataclass(frozen=True)
class Seen:
    """What one scrape sees of one run."""

    ledger: Ledger
    run: Run
    pulse: Pulse
    moment: datetime

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


@dataclass(frozen=True)
class Series:
    """One series of each run: a gauge, what it means, its labels besides `run`, how it is read."""

    name: str
    meaning: str
    read: Callable[[Seen], Values]
    labels: tuple[str, ...] = ()

    def family(self, runs_seen: Iterable[Seen]) -> GaugeMetricFamily:
        """The series with its numbers for these runs."""
        name = f"mongosplit_{self.name}"
        family = GaugeMetricFamily(name, self.meaning, labels=("run", *self.labels))
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


def _followed(seen: Seen, number: Callable[[Position], float]) -> Values:
    return () if seen.position is None else _one(number(seen.position))


SERIES = (
    Series(
        "run_state",
        "1 for the state that the run is in, 0 for the others",
        lambda seen: [((state.value,), float(state is seen.run.state)) for state in RunState],
        labels=("state",),
    ),
    Series(
        "chunks",
        "Chunks of the run by state",
        lambda seen: [
            ((state.value,), float(seen.totals.get(state.value, {}).get("chunks", 0)))
            for state in ChunkState
        ],
        labels=("state",),
    ),
    Series(
        "documents_migrated",
        "Source documents whose parts are in the targets; goes down by rolling back",
        lambda seen: _one(seen.applied("docs") - seen.applied("quarantined")),
    ),
    Series(
        "documents_quarantined",
        "Source documents that could not be split",
        lambda seen: _one(seen.applied("quarantined")),
    ),
    Series(
        "pace_documents_per_second",
        "Documents per second that the fleet may do now: the lower of rate limit and throttle; "
        "+Inf: any",
        lambda seen: _one(pacing.rate_of(seen.pulse, seen.moment)),
    ),
    Series(
        "rate_limit_documents_per_second",
        "The rate limit in force, of the spell, the schedule or the base; +Inf: none",
        lambda seen: _one(seen.limit.rate),
    ),
    Series(
        "base_limit_documents_per_second",
        "The rate limit that was set for good, whether or not a spell or a schedule holds now; "
        "+Inf: none",
        lambda seen: _one((seen.pulse.pace.get("base") or {}).get("rate")),
    ),
    Series(
        "pace_info",
        "1; where the rate limit in force comes from (base, spell, schedule, none), who set it, "
        "and the signal that holds the run back below it",
        _pace,
        labels=("origin", "set_by", "held_back_by"),
    ),
    Series(
        "worker_rate_chunks_per_second",
        "Celery's own limit of each worker, in chunks per second; +Inf: none",
        _per_worker,
    ),
    Series(
        "throttle_documents_per_second",
        "Documents per second that the throttle allows; +Inf: any",
        lambda seen: _one(pacing.allowed_by_throttle(seen.pulse)),
    ),
    Series(
        "throttle_stopped",
        "1 while the throttle stops the run, also for want of a new verdict",
        lambda seen: _one(float(pacing.is_stopped(seen.pulse))),
    ),
    Series(
        "throttle_verdict_age_seconds",
        "Age of the throttle's last verdict; older than 3 s stops the workers",
        _verdict_age,
    ),
    Series(
        "follower_alive",
        "1 while somebody follows the writes to the source",
        lambda seen: _followed(seen, lambda found: float(found.alive)),
    ),
    Series(
        "follower_lag_seconds",
        "How far behind the present the writes to the source are marked",
        lambda seen: _followed(seen, lambda found: found.lag_seconds),
    ),
    Series(
        "follower_events",
        "Writes to the source that the follower has seen",
        lambda seen: _followed(seen, lambda found: float(found.events)),
    ),
    Series(
        "follower_backlog_documents",
        "Documents that were written and are yet to be derived again",
        lambda seen: _one(float(seen.backlog)),
    ),
    Series(
        "foreign_writes",
        "Writes of somebody else to an exclusive target",
        lambda seen: (((row["collection"],), float(row["writes"])) for row in seen.foreign),
        labels=("collection",),
    ),
    Series(
        "signal_observed",
        "What was last observed of a health signal, in the signal's own unit",
        _signals,
        labels=("signal",),
    ),
)
"""Everything that is told of a run: one more series is one more entry."""
