"""The control law of the throttle: from health readings and throughput to a verdict, without I/O.

A soft signal halves the speed each second, down to a floor; when all are clear it grows by equal
steps; a hard signal stops everything for a hold and then it starts again at the floor. That is how
TCP shares a line it knows nothing about, and it settles for the same reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mongosplit.signal_thresholds import Level, Reading, Thresholds, badness, weigh
from mongosplit.verdict import STALE_SECONDS, Verdict

_FREE, _RECOVERING, _SLOWED, _STOPPED, _BLIND = "free", "recovering", "slowed", "stopped", "blind"


def _now() -> datetime:
    moment = datetime.now(UTC).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass(frozen=True)
class ThrottleRules:
    """The numbers of the law: speeds in documents per second, times in seconds."""

    floor: float = 50.0
    """Slowest speed short of a stop: a run that crawls still shows whether it is the cause."""
    hold: float = 10.0
    """Length of a stop: longer than a checkpoint's burst or an election lasts."""
    stale: float = STALE_SECONDS
    interval: float = 1.0
    decrease: float = 0.5
    step: float = 0.1
    """Growth each interval, as a share of the rate limit or of the last throughput known good."""
    release: float = 1.5
    """Without a rate limit: unlimited again at so many times what the fleet makes use of."""
    unreadable_stops: bool = False


@dataclass
class Throttle:
    """Takes a verdict from each round of readings; every enabled signal must keep being read.

    `clock` counts seconds and never goes back, `date` gives the time in UTC for people and workers.
    Not for several threads at once.
    """

    thresholds: Thresholds
    rules: ThrottleRules = field(default_factory=ThrottleRules)
    clock: Callable[[], float] = time.monotonic
    date: Callable[[], datetime] = _now

    def __post_init__(self) -> None:
        self._readings: dict[str, Reading] = {}
        self._read_at: dict[str, float] = {}
        self._limit: float | None = None
        self._pace: float | None = None
        self._good = 0.0
        self._changed_at = -math.inf
        self._hold_until: float | None = None
        self._held_for = ("", "")
        self._slowed_by = ""
        self._kind = ""
        self._last: Verdict | None = None

    def observe(
        self, readings: Iterable[Reading], *, rate_limit: float | None, throughput: float
    ) -> Verdict:
        """Take in one round of readings and say how fast to go.

        `rate_limit` is the operator's ceiling and `throughput` what the fleet did of late, both in
        documents per second. Speed changes once a second at most, however often this is called.
        """
        now = self.clock()
        for reading in readings:
            if reading.name in self.thresholds.of:
                self._readings[reading.name] = self._with_hysteresis(reading)
                self._read_at[reading.name] = now
        self._limit = rate_limit
        if old := self._stale(now):
            return self._blind(*old)
        return self._decide(now, throughput)

    def verdict(self) -> Verdict:
        """The last verdict, until a signal has grown stale: then a stop that says which."""
        if old := self._stale(self.clock()):
            return self._blind(*old)
        if self._last is None or not self.thresholds.of:
            return self._free()
        return self._last

    def _with_hysteresis(self, reading: Reading) -> Reading:
        before = self._readings.get(reading.name)
        if before is None or reading.observed is None:
            return reading
        threshold = self.thresholds.of[reading.name]
        weighed = weigh(reading.name, reading.observed, threshold, before=before.level)
        return reading if weighed.level is reading.level else weighed

    def _stale(self, now: float) -> tuple[str, str] | None:
        """What was not read of late (empty: nothing was) and a sentence; None if all is fresh."""
        ages = {name: now - self._read_at.get(name, -math.inf) for name in self.thresholds.of}
        oldest = max(ages, key=lambda name: ages[name], default="")
        if not oldest or ages[oldest] <= self.rules.stale:
            return None
        newest = min(ages.values())
        none_is_fresh = newest > self.rules.stale
        signal, age = ("", newest) if none_is_fresh else (oldest, ages[oldest])
        known = f"was last measured {age:.1f} s ago"
        return signal, f"{signal or 'health'} {known if age < math.inf else 'is not measured yet'}"

    def _blind(self, signal: str, sentence: str) -> Verdict:
        if self._last is not None and self._kind != _BLIND:
            # Nobody knows what the database went through meanwhile: begin again slowly.
            self._pace = self._floor()
            self._slowed_by = signal
        return self._say(_BLIND, signal, sentence)

    def _decide(self, now: float, throughput: float) -> Verdict:
        worst = self._worst()
        level = self._level(worst) if worst else Level.OK
        if worst and level is Level.HARD:
            self._held_for = (worst.name, worst.sentence)
            if self._hold_until is None or now >= self._hold_until:
                self._hold_until = now + self.rules.hold
        if self._hold_until is not None:
            if now < self._hold_until:
                return self._stopped(self._hold_until - now)
            self._hold_until = None
            self._slowed_by = self._held_for[0]
            self._change(now, self._floor())
        if worst and level is Level.SOFT:
            return self._slower(now, throughput, worst)
        return self._faster(now, throughput)

    def _stopped(self, left: float) -> Verdict:
        signal, sentence = self._held_for
        return self._say(_STOPPED, signal, f"{sentence}; stopped, next try in {left:.0f} s")

    def _slower(self, now: float, throughput: float, worst: Reading) -> Verdict:
        self._slowed_by = worst.name
        if self._may_change(now):
            present = min(_or_any(self._pace), _or_any(self._limit))
            lower = min(present, throughput) * self.rules.decrease
            self._change(now, min(present, max(self._floor(), lower)))
        return self._say(_SLOWED, worst.name, worst.sentence)

    def _faster(self, now: float, throughput: float) -> Verdict:
        if self._pace is None:
            self._good = throughput or self._good
            return self._free()
        if self._may_change(now):
            used = max(self._good, throughput, self._floor())
            full = self._limit if self._limit is not None else self.rules.release * used
            risen = self._pace + self.rules.step * (self._limit or used)
            released = risen >= full
            self._change(now, None if released else risen)
            if released:
                return self._free()
        return self._recovering()

    def _free(self) -> Verdict:
        nearest = max(self._numbered(), key=self._badness, default=None)
        said = f"all clear, nearest to its threshold is {nearest.sentence}" if nearest else ""
        return self._say(_FREE, "", said or "all clear: no signal is compared with a threshold")

    def _recovering(self) -> Verdict:
        reading = self._readings.get(self._slowed_by)
        sentence = reading.sentence if reading else "health is measured again"
        return self._say(_RECOVERING, self._slowed_by, f"speeding up again: {sentence}")

    def _worst(self) -> Reading | None:
        bad = [one for one in self._current() if self._level(one) is not Level.OK]
        return max(bad, key=self._badness, default=None)

    def _current(self) -> list[Reading]:
        return [one for name, one in self._readings.items() if name in self.thresholds.of]

    def _numbered(self) -> list[Reading]:
        return [one for one in self._current() if self._badness(one)[1] > 0]

    def _level(self, reading: Reading) -> Level:
        if reading.level is not Level.UNREADABLE:
            return reading.level
        return Level.HARD if self.rules.unreadable_stops else Level.OK

    def _badness(self, reading: Reading) -> tuple[int, float]:
        severity = (Level.OK, Level.SOFT, Level.HARD).index(self._level(reading))
        return severity, badness(reading, self.thresholds.of[reading.name])

    def _floor(self) -> float:
        return min(self.rules.floor, _or_any(self._limit))

    def _may_change(self, now: float) -> bool:
        return now - self._changed_at >= self.rules.interval

    def _change(self, now: float, pace: float | None) -> None:
        self._pace, self._changed_at = pace, now

    def _say(self, kind: str, signal: str, reason: str) -> Verdict:
        stop = kind in (_STOPPED, _BLIND)
        at = self.date()
        goes_on = self._last is not None and (self._kind, self._last.signal) == (kind, signal)
        since = self._last.since if self._last is not None and goes_on else at
        pace = min(_or_any(self._pace), _or_any(self._limit))
        allowed = 0.0 if stop else pace if pace < math.inf else None
        self._kind = kind
        numbers = {one.name: one.observed for one in self._current() if one.observed is not None}
        self._last = Verdict(allowed, stop, reason, signal, since, at, numbers)
        return self._last


def _or_any(number: float | None) -> float:
    return math.inf if number is None else number
