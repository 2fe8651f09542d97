"""Every Prometheus series in one table: name, kind, what it means, labels, and who exposes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREFIX = "mongosplit_"
CHUNK_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 105.0)
"""Up to MongoDB's limit of a transaction (60 s) and the hard limit of a task."""


class Kind(StrEnum):
    """What may be done with the numbers: a gauge is read, a counter and a histogram are rated."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class By(StrEnum):
    """Who exposes a series: `mongosplit serve`, or each worker for its processes together."""

    PRODUCER = "producer"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Series:
    """One series; `name` is without the prefix, `buckets` are upper bounds in the series' unit."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ("run",)
    kind: Kind = Kind.GAUGE
    by: By = By.PRODUCER
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name with its prefix, as the help line has it."""
        return PREFIX + self.name

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which Prometheus stores the numbers."""
        ends = {
            Kind.GAUGE: ("",),
            Kind.COUNTER: ("_total",),
            Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
        }
        return tuple(self.full_name + end for end in ends[self.kind])


def _counter(name: str, meaning: str, *labels: str) -> Series:
    return Series(name, meaning, ("run", *labels), Kind.COUNTER, By.WORKER)


SERIES = (
    Series("ledger_up", "1 when the ledger answered this scrape, 0 when not", ()),
    Series("run_state", "1 for the state that the run is in, 0 for the others", ("run", "state")),
    Series("chunks", "Chunks of the run by state", ("run", "state")),
    Series(
        "documents_migrated",
        "Source documents whose parts are in the targets; goes down by rolling back",
    ),
    Series("documents_quarantined", "Source documents that could not be split"),
    Series(
        "documents_unverified",
        "Source documents of chunks that are migrated and yet to be compared",
    ),
    Series("documents_kept", "Documents that a rollback took out and saved to `kept`"),
    Series("mismatches", "Differences that the last comparison of each chunk has found"),
    Series("waves_open", "Waves that were sent to the workers and are not closed"),
    Series("wave_chunks_open", "Chunks of open waves that are yet to be migrated: the wave depth"),
    Series(
        "driver_alive", "1 while somebody holds the run's lease: drives it, or plans it; else 0"
    ),
    Series(
        "driver_seen_seconds",
        "Time since the run's lease was renewed; nothing where it was given back",
    ),
    Series(
        "pace_documents_per_second",
        "Documents per second that the fleet may do now: the lower of rate limit and throttle; "
        "+Inf: any",
    ),
    Series(
        "rate_limit_documents_per_second",
        "The rate limit in force, of the spell, the schedule or the base; +Inf: none",
    ),
    Series(
        "base_limit_documents_per_second",
        "The rate limit that was set for good, whether or not a spell or a schedule holds now; "
        "+Inf: none",
    ),
    Series(
        "pace_info",
        "1; where the rate limit in force comes from (base, spell, schedule, none), who set it, "
        "and the signal that holds the run back below it",
        ("run", "origin", "set_by", "held_back_by"),
    ),
    Series(
        "worker_rate_chunks_per_second",
        "Celery's own limit of each worker, in chunks per second; +Inf: none",
    ),
    Series(
        "throttle_documents_per_second", "Documents per second that the throttle allows; +Inf: any"
    ),
    Series(
        "throttle_stopped", "1 while the throttle stops the run, also for want of a new verdict"
    ),
    Series(
        "throttle_verdict_age_seconds",
        "Age of the throttle's last verdict; older than 3 s stops the workers",
    ),
    Series(
        "signal_observed",
        "What was last observed of a health signal, in the signal's own unit",
        ("run", "signal"),
    ),
    Series("follower_alive", "1 while somebody follows the writes to the source"),
    Series(
        "follower_lag_seconds", "How far behind the present the writes to the source are marked"
    ),
    Series("follower_events", "Writes to the source that the follower has seen"),
    Series(
        "follower_backlog_documents",
        "Documents that were written and are yet to be derived again",
    ),
    Series(
        "foreign_writes",
        "Writes of somebody else to an exclusive target",
        ("run", "collection"),
    ),
    Series(
        "chunk_seconds",
        "What one try of a chunk took, without its wait for a permit, by work (migrate, verify, "
        "rollback) and outcome (migrated, verified, compared, rolled back, held, nothing, error)",
        ("run", "work", "outcome"),
        Kind.HISTOGRAM,
        By.WORKER,
        CHUNK_SECONDS,
    ),
    _counter(
        "worker_documents",
        "Source documents done by work (migrate, verify, rollback, sync), those in quarantine "
        "included",
        "work",
    ),
    _counter(
        "retries",
        "Tries of a chunk that are repeated, by the class of the error; Waiting, FenceBusy and "
        "Lagging wait for something and are no failures",
        *("work", "error"),
    ),
    _counter("failures", "Chunks given up, by the class of the error", "work", "error"),
    _counter("permit_wait_seconds", "Time that chunks have waited for a permit", "work"),
    _counter(
        "sync_batches",
        "Tasks that derive again what was written, by outcome (synced, comes again, could not)",
        "outcome",
    ),
)
"""One more series is one more entry here, and one more reading or count where it is exposed."""


def exposed_by(who: By) -> tuple[Series, ...]:
    """The series of the producer, or of the workers."""
    return tuple(series for series in SERIES if series.by is who)


def table() -> str:
    """The series as Markdown tables, one for each who exposes them."""
    parts = []
    for who, title in ((By.PRODUCER, "The producer's"), (By.WORKER, "The workers'")):
        parts.append(f"## {title}\n\n| series | kind | labels | what it is |\n|---|---|---|---|\n")
        for series in exposed_by(who):
            labels = ", ".join(f"`{label}`" for label in series.labels)
            cells = (f"`{series.full_name}`", series.kind.value, labels, series.meaning)
            parts.append(f"| {' | '.join(cells)} |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"
