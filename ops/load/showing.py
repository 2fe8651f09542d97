"""How long after its acknowledgement a write to the source shows in a target."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

from mongosplit import raw
from mongosplit.mongo import Data, Documents, by_id, exact
from ops.load.latency import Summary, summary

SOURCE, TARGET, FIELD = "users", "base_users", "lastLogin"
POLL_SECONDS = 0.002
WITHIN_SECONDS = 10.0
BETWEEN_SECONDS = 0.02


@dataclass(frozen=True)
class Lags:
    """Seconds from acknowledged to shown; `not_shown` were not within `WITHIN_SECONDS`."""

    seconds: list[float]
    not_shown: int

    @property
    def felt(self) -> Summary:
        """Percentiles of those that were shown."""
        return summary(self.seconds)

    def to_document(self) -> dict[str, Any]:
        """Percentiles and counts, for JSON."""
        return {**self.felt.to_document(), "not_shown": self.not_shown}


class Sampler:
    """Writes users that nobody else writes, one after the other, and waits for each to show.

    Of the keys given those count that the target holds: the others are in no applied chunk.
    """

    def __init__(self, database: Data, keys: Sequence[raw.Value]) -> None:
        self._source: Documents = exact(database)[SOURCE]
        self._target: Documents = database[TARGET]
        self.keys = [key for key in keys if self._target.find_one(by_id(key), {"_id": 1})]
        first = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        self._moments = (first + timedelta(milliseconds=n) for n in itertools.count())

    def sample(
        self, seconds: float, *, within: float = WITHIN_SECONDS, stopping: Event | None = None
    ) -> Lags:
        """Sample for so long, or until `stopping` is set.

        Raises:
            PyMongoError: a write or a look did not come through.
        """
        stopping = stopping or Event()
        end, lags, not_shown = time.monotonic() + seconds, list[float](), 0
        for key in itertools.cycle(self.keys):
            if time.monotonic() >= end or stopping.wait(BETWEEN_SECONDS):
                break
            lag = self.lag(key, within)
            if lag is None:
                not_shown += 1
            else:
                lags.append(lag)
        return Lags(lags, not_shown)

    def lag(self, key: raw.Value, within: float) -> float | None:
        """Write one user; seconds from the acknowledgement until it shows, None if it does not."""
        moment, who = next(self._moments), by_id(key)
        self._source.update_one(who, {"$set": {FIELD: moment}})
        acknowledged = time.monotonic()
        while time.monotonic() - acknowledged < within:
            found = self._target.find_one(who, {FIELD: 1})
            if found and found.get(FIELD) == moment:
                return time.monotonic() - acknowledged
            time.sleep(POLL_SECONDS)
        return None
