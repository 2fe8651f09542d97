"""The health signals by name, unit and thresholds, and what a number observed comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from mongosplit.errors import UsageError

CLEARS_AT = 0.8
"""Share of a threshold that a signal must fall below before it is clear again."""


class Level(StrEnum):
    """How bad a reading is: go slower at `soft`, stop at `hard`."""

    OK = "ok"
    SOFT = "soft"
    HARD = "hard"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Threshold:
    """Where a signal trips, in its unit; None: it never does."""

    soft: float | None
    hard: float | None


@dataclass(frozen=True)
class Signal:
    """One kind of measurement of the database's health, and where it trips by default."""

    name: str
    unit: str
    default: Threshold
    low_is_bad: bool = False
    digits: int = 0
    state: str = ""
    """What it is when it trips, for a signal that is not a number."""

    def reaches(self, observed: float, limit: float) -> bool:
        """Whether the observed number is as bad as the limit, or worse."""
        return observed <= limit if self.low_is_bad else observed >= limit

    def clearing(self, limit: float) -> float:
        """The number that must be passed before a signal that tripped at the limit is clear."""
        return limit / CLEARS_AT if self.low_is_bad else limit * CLEARS_AT

    def shown(self, observed: float) -> str:
        """The observed number as people read it, with its unit."""
        return f"{observed:,.{self.digits}f}{self._symbol}"

    def shown_limit(self, limit: float) -> str:
        """A threshold as people read it, with its unit."""
        return f"{limit:,.12g}{self._symbol}"

    @property
    def _symbol(self) -> str:
        return f" {self.unit}" if self.unit in ("s", "ms", "h") else ""


@dataclass(frozen=True)
class Reading:
    """What one look at a signal gave; `observed` is None where there is no number."""

    name: str
    observed: float | None
    unit: str
    level: Level
    sentence: str


SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {
        signal.name: signal
        for signal in (
            # Soft where flow control would begin to act (half of its target of 10 s), hard long
            # before a member needs more than the oplog still has.
            Signal("replication-lag", "s", Threshold(5, 30), digits=1),
            # The server is already holding back every writer: more of ours only makes others wait.
            Signal("flow-control", "", Threshold(1, None), state="engaged"),
            Signal("queued-operations", "operations", Threshold(20, 100)),
            # WiredTiger evicts in the background from 5 % dirty and makes the application's own
            # threads evict from 20 %: soft stays clear of that, hard means eviction has lost.
            Signal("cache-dirty", "share of the cache", Threshold(0.15, 0.25), digits=3),
            # A follower that is away longer than the window has lost its place for good.
            Signal("oplog-window", "h", Threshold(None, 1), low_is_bad=True, digits=2),
            Signal("probe-latency", "ms", Threshold(250, 2000)),
            Signal("follower-backlog", "ids", Threshold(10_000, 100_000)),
            # What its number means only the operator knows; its exit code needs no threshold.
            Signal("command", "", Threshold(None, None), digits=3),
        )
    }
)


def weigh(
    name: str,
    observed: float,
    threshold: Threshold,
    *,
    before: Level = Level.OK,
    detail: str = "",
) -> Reading:
    """What the number comes to, for a signal that was at the level `before`.

    `detail` is put behind the sentence of a reading that trips.
    """
    signal = SIGNALS[name]
    sign = "≤" if signal.low_is_bad else "≥"
    said = f"{name} {signal.shown(observed)}"
    limits = ((Level.HARD, threshold.hard), (Level.SOFT, threshold.soft))
    for level, limit in limits:
        if limit is None:
            continue
        if signal.reaches(observed, limit):
            sentence = _compared(signal, observed, sign, limit) + detail
            return Reading(name, observed, signal.unit, level, sentence)
        clearing = signal.clearing(limit)
        was_there = before is level or before is Level.HARD
        if was_there and signal.reaches(observed, clearing):
            side = "above" if signal.low_is_bad else "below"
            tripped_at = f"tripped at {signal.shown_limit(limit)}"
            sentence = f"{said} ({tripped_at}, clears {side} {signal.shown_limit(clearing)})"
            return Reading(name, observed, signal.unit, level, sentence)
    mildest = threshold.soft if threshold.soft is not None else threshold.hard
    beside = ">" if signal.low_is_bad else "<"
    sentence = said if mildest is None else _compared(signal, observed, beside, mildest)
    return Reading(name, observed, signal.unit, Level.OK, sentence)


def _compared(signal: Signal, observed: float, sign: str, limit: float) -> str:
    if signal.state:
        return f"{signal.name} is {'' if signal.reaches(observed, limit) else 'not '}{signal.state}"
    return f"{signal.name} {signal.shown(observed)} {sign} {signal.shown_limit(limit)}"


def badness(reading: Reading, threshold: Threshold) -> float:
    """How near a reading is to its milder threshold: 1 is there; 0 when it has no number."""
    limit = threshold.soft if threshold.soft is not None else threshold.hard
    if reading.observed is None:
        return math.inf if reading.level is Level.HARD else 0.0
    if limit is None:
        return 0.0
    if SIGNALS[reading.name].low_is_bad:
        return limit / reading.observed if reading.observed > 0 else math.inf
    return reading.observed / limit


@dataclass(frozen=True)
class Thresholds:
    """Which signals are read and where each trips; a signal that is not in `of` is off."""

    of: Mapping[str, Threshold]

    @classmethod
    def defaults(cls) -> Thresholds:
        """Every signal, with its own thresholds."""
        return cls(MappingProxyType({name: one.default for name, one in SIGNALS.items()}))

    @classmethod
    def parse(cls, text: str) -> Thresholds:
        """What the operator wrote: `replication-lag=5:30,cache-dirty=0.1,flow-control=off`.

        Each is `signal=soft[:hard]`, either may be `off`; a signal that is not named, and a hard
        threshold that is not given, stay at the default. `off` alone turns every signal off.

        Raises:
            UsageError: an unknown signal, one named twice, no number, or soft beyond hard.
        """
        if text.strip() == "off":
            return cls(MappingProxyType({}))
        of = dict(cls.defaults().of)
        items = [item.strip() for item in text.split(",")] if text.strip() else []
        named: set[str] = set()
        for item in items:
            name, _, value = (part.strip() for part in item.partition("="))
            if name not in SIGNALS:
                raise _wrong(f"the throttle knows no signal {name[:40]!r}")
            if name in named:
                raise _wrong(f"the throttle's {name} is given twice")
            named.add(name)
            if value == "off":
                del of[name]
            elif value != "on":
                of[name] = _threshold(SIGNALS[name], value)
        return cls(MappingProxyType(of))

    def __str__(self) -> str:
        """The text that `parse` reads back to the same."""
        if not self.of:
            return "off"
        return ",".join(f"{name}={self._text(name)}" for name in SIGNALS)

    def _text(self, name: str) -> str:
        found = self.of.get(name)
        if found is None:
            return "off"
        if found.soft is None and found.hard is None:
            return "on"
        return f"{_number_text(found.soft)}:{_number_text(found.hard)}"


def _threshold(signal: Signal, value: str) -> Threshold:
    soft_text, colon, hard_text = value.partition(":")
    soft = _number(signal, soft_text)
    hard = _number(signal, hard_text) if colon else signal.default.hard
    if soft is None and hard is None:
        raise _wrong(f"the throttle's {signal.name}={value[:40]} has no threshold left")
    if soft is not None and hard is not None and soft != hard and signal.reaches(soft, hard):
        beyond = "below" if signal.low_is_bad else "above"
        raise UsageError(
            f"the throttle's {signal.name}: soft {signal.shown_limit(soft)} is {beyond} "
            f"hard {signal.shown_limit(hard)}",
            hint=f"give both, the milder first: {signal.name}=soft:hard",
        )
    return Threshold(soft, hard)


def _number(signal: Signal, text: str) -> float | None:
    if text.strip() == "off":
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise _wrong(f"the throttle's {signal.name}: {text[:40]!r} is no number above 0")
    return number


def _number_text(number: float | None) -> str:
    return "off" if number is None else repr(float(number)).removesuffix(".0")


def _wrong(sentence: str) -> UsageError:
    known = ", ".join(SIGNALS)
    return UsageError(
        sentence, hint=f"give signal=soft[:hard] or signal=off; the signals are {known}"
    )
