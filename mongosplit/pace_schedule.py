"""A schedule of paces: windows of the day that operators type, and the pace at a moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from mongosplit.errors import UsageError
from mongosplit.pace_text import Pace, in_quotes, parse_pace

_DAY = 24 * 60
_MINUTE = timedelta(minutes=1)
_WINDOW = re.compile(r"(?P<start>[0-9:]+)\s*-\s*(?P<end>[0-9:]+)\s+(?P<pace>.+)")
_TIME = re.compile(r"(?P<hour>[01]?[0-9]|2[0-4]):(?P<minute>[0-5][0-9])")
_SCHEDULE_HINT = 'write "22:00-06:00 max, else 500/s"'
_ZONE_HINT = "write Europe/Berlin or UTC"


@dataclass(frozen=True, slots=True)
class Window:
    """A part of every day with a pace of its own, in minutes since midnight on the wall clock.

    `end` is outside, at most 1440, and before `start` when the window crosses midnight.
    """

    start: int
    end: int
    pace: Pace

    def holds(self, minute: int) -> bool:
        """Whether this minute of the day lies in it."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end)} {self.pace}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Windows by start, the pace outside of them, and the zone whose wall clock they follow.

    An hour that the clock skips has no windows; one that it repeats has them twice.
    """

    windows: tuple[Window, ...]
    otherwise: Pace
    zone: str = "UTC"

    def at(self, moment: datetime) -> Pace:
        """The pace at a moment (UTC where it has no zone)."""
        local = _aware(moment).astimezone(_zone(self.zone))
        minute = local.hour * 60 + local.minute
        return next((w.pace for w in self.windows if w.holds(minute)), self.otherwise)

    def next_change(self, moment: datetime) -> datetime:
        """The first later moment, in UTC, whose pace is not the one before it."""
        zone, before, found = _zone(self.zone), self.at(moment), _aware(moment)
        edges = {edge % _DAY for window in self.windows for edge in (window.start, window.end)}
        while self.at(found) == before:
            local = found.astimezone(zone)
            midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            passed = local.replace(tzinfo=None) - midnight
            ahead = (edge * _MINUTE - passed for edge in edges)
            step = min(left if left > timedelta() else left + _DAY * _MINUTE for left in ahead)
            found = _same_clock_until(found, found + step, zone)
        return found

    def __str__(self) -> str:
        """The normal form, which `parse_schedule` reads with the same zone."""
        return ", ".join([*map(str, self.windows), f"else {self.otherwise}"])

    def to_document(self) -> dict[str, Any]:
        """The schedule as the ledger keeps it."""
        return {"schedule": str(self), "zone": self.zone}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Schedule:
        """The schedule of `to_document`; UsageError when this machine does not know its zone."""
        return parse_schedule(document["schedule"], document["zone"])


def parse_schedule(text: str, zone: str = "UTC") -> Schedule:
    """The schedule that `22:00-06:00 max, else 500/s` means on the wall clock of a zone.

    Raises UsageError when it cannot be read, windows overlap, or the pace would never change.
    """
    typed, known = in_quotes(text), "UTC" if zone.strip().upper() == "UTC" else zone.strip()
    _zone(known)
    windows, others = [], []
    for part in re.split(r",(?=\s*(?:[0-9]{1,2}:|else\b))", text.strip(), flags=re.IGNORECASE):
        if outside := re.fullmatch(r"\s*else\s+(.+)", part, re.IGNORECASE):
            others.append(_fixed_pace(outside[1]))
        else:
            windows.append(_window(part, typed))
    if len(others) != 1 or not windows:
        needs = "one or more windows and exactly one else"
        raise UsageError(f"{typed} is no schedule: it needs {needs}", hint=_SCHEDULE_HINT)
    windows.sort(key=lambda window: window.start)
    for minute in range(_DAY):
        met = [window for window in windows if window.holds(minute)]
        if len(met) > 1:
            both = f"{_clock(minute)} lies in two windows"
            raise UsageError(f"{typed} is no schedule: {both}", hint=_SCHEDULE_HINT)
    schedule = Schedule(tuple(windows), others[0], known)
    used = {next((w.pace for w in windows if w.holds(m)), others[0]) for m in range(_DAY)}
    if len(used) == 1:
        hint = f"mongosplit pace {used.pop()}, or {_SCHEDULE_HINT}"
        raise UsageError(f"{typed} never changes the pace", hint=hint)
    return schedule


def _window(part: str, typed: str) -> Window:
    found = _WINDOW.fullmatch(part.strip())
    times = [_TIME.fullmatch(found[name]) for name in ("start", "end")] if found else []
    minutes = [int(time["hour"]) * 60 + int(time["minute"]) for time in times if time]
    if not found or len(minutes) < 2 or max(minutes) > _DAY:
        sentence = f"{typed} is no schedule: {in_quotes(part)} is no window"
        raise UsageError(sentence, hint=_SCHEDULE_HINT)
    start, end = minutes[0] % _DAY, minutes[1] or _DAY
    if start == end:
        sentence = f"{typed} is no schedule: no time lies in {in_quotes(part)}"
        raise UsageError(sentence, hint="write 00:00-24:00 for a whole day")
    return Window(start, end, _fixed_pace(found["pace"]))


def _fixed_pace(text: str) -> Pace:
    pace = parse_pace(text)
    if pace.percent is not None:
        raise UsageError(f"{in_quotes(text)} is no pace for a schedule", hint="write 500/s or max")
    return pace


def _same_clock_until(start: datetime, end: datetime, zone: tzinfo) -> datetime:
    """The end, or the first second before it when the zone's clock no longer goes on evenly."""
    offset = start.astimezone(zone).utcoffset()
    if end.astimezone(zone).utcoffset() == offset:
        return end
    early = start.replace(microsecond=0)
    late = end
    while late - early > timedelta(seconds=1):
        middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
        same = middle.astimezone(zone).utcoffset() == offset
        early, late = (middle, late) if same else (early, middle)
    return late


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _aware(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


@lru_cache(maxsize=8)
def _zone(name: str) -> tzinfo:
    if name == "UTC":  # known without any time zone data
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        missing = "" if available_timezones() else "; this machine knows none: pip install tzdata"
        hint = f"{_ZONE_HINT}{missing}"
        raise UsageError(f"{in_quotes(name)} is no known time zone", hint=hint) from None
