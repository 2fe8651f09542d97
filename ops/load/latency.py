"""Latencies: exact percentiles of what was recorded, for a whole phase and for each operation."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One operation: when it was meant to begin and how long from then it took, in seconds.

    `error` is the name of the driver's error, empty when the operation was acknowledged. For
    `starved` of the seconds the application's own thread was ready, and no core was free for it.
    """

    operation: str
    start: float
    seconds: float
    error: str = ""
    starved: float = 0.0


@dataclass(frozen=True)
class Summary:
    """Percentiles in milliseconds; all are 0 when nothing was recorded."""

    count: int
    p50: float
    p99: float
    most: float

    def to_document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return dict(vars(self))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least of the ordered values that this share of them does not exceed (nearest rank).

    Raises:
        ValueError: there is no value, or the share is not above 0 and at most 1.
    """
    if not ordered or not 0 < share <= 1:
        raise ValueError(f"no {share} percentile of {len(ordered)} values")
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)]


def summary(seconds: Iterable[float]) -> Summary:
    """Sum up durations given in seconds."""
    ordered = sorted(1000 * one for one in seconds)
    if not ordered:
        return Summary(0, 0.0, 0.0, 0.0)
    return Summary(len(ordered), *(percentile(ordered, share) for share in (0.5, 0.99, 1.0)))


def by_operation(samples: Iterable[Sample]) -> dict[str, Summary]:
    """A summary for each operation, by name."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        found[sample.operation].append(sample.seconds)
    return {name: summary(found[name]) for name in sorted(found)}


def errors(samples: Iterable[Sample]) -> dict[str, int]:
    """How many operations failed, by the name of the driver's error."""
    return dict(sorted(Counter(sample.error for sample in samples if sample.error).items()))
