"""The throttle's verdict: how fast is allowed and why, as the producer publishes it for workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

STALE_SECONDS = 3.0
"""Age from which nothing may be concluded any more from a look at the database's health."""


@dataclass(frozen=True)
class Verdict:
    """How fast the whole fleet may go now.

    `allowed` is in documents per second, None: without limit; it is 0 when `stop` is true. `reason`
    is one sentence, `signal` the name of the signal it speaks of (empty when all is well). `since`
    is when this state began, `at` when the verdict was taken, both in UTC. `observed` is the last
    number of each signal that has one, in its unit.
    """

    allowed: float | None
    stop: bool
    reason: str
    signal: str
    since: datetime
    at: datetime
    observed: Mapping[str, float] = field(default_factory=dict)

    def age(self, now: datetime) -> float:
        """Seconds between the verdict and `now`, which is read from the same clock as `at`."""
        return (now - self.at).total_seconds()

    def stale(self, now: datetime, *, seconds: float = STALE_SECONDS) -> bool:
        """Whether it is too old to go by; one from the future tells as little."""
        return abs(self.age(now)) > seconds

    def to_document(self) -> dict[str, Any]:
        """As it is stored; MongoDB keeps the milliseconds of its dates and drops the rest."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Verdict:
        """What `to_document` gave, other fields being left aside.

        Raises:
            KeyError: a field is missing.
        """
        known = {name: document[name] for name in cls.__dataclass_fields__ if name != "observed"}
        return cls(**known, observed=document.get("observed", {}))
