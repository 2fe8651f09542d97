"""What operators type about the pace: a rate, a change of it, a duration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from mongosplit.errors import UsageError

SLOWEST, FASTEST = 1.0, 10_000_000.0
"""The bounds of a rate limit, in documents per second."""
_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=30)
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?"
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
_RATE = re.compile(rf"(?P<number>{_NUMBER})(?P<factor>[kKM]?)\s*/\s*(?P<unit>[smh])")
_CHANGE = re.compile(rf"(?P<sign>[+-])\s*(?P<number>{_NUMBER})\s*%")
_DURATION = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>[smhd])")
_FACTORS = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NO_LIMIT, _STOP = ("off", "max"), ("0", "stop")
_PACE_HINT = "write 5000/s, 5k/s, 300/m, +20%, -50% or off"
_DURATION_HINT = "write 90s, 30m, 2h or 1d"


@dataclass(frozen=True, slots=True)
class Pace:
    """A rate in documents per second (None: no limit), or a change of one in percent."""

    rate: float | None = None
    percent: float | None = None

    def apply(self, present: float | None) -> float | None:
        """The rate that follows on the present one.

        Raises UsageError when a change meets no limit or leads out of the bounds.
        """
        if self.percent is None:
            return self.rate
        if present is None:
            hint = "set one first: mongosplit pace 5000/s"
            raise UsageError(f'"{self}" changes a limit, and none is set', hint=hint)
        typed = f'"{self}" of {rate_text(present)}'
        return _bounded(round(present * (100 + self.percent) / 100, 4), typed)

    def __str__(self) -> str:
        if self.percent is not None:
            return f"{'-' if self.percent < 0 else '+'}{_plain(abs(self.percent))}%"
        return "max" if self.rate is None else f"{_plain(self.rate)}/s"


def parse_pace(text: str) -> Pace:
    """The pace that `5000/s`, `5k/s`, `300/m`, `+20%`, `off` or `max` means.

    Raises UsageError for anything else, for a stop, and out of the bounds.
    """
    word, typed = text.strip(), in_quotes(text)
    if word.lower() in _NO_LIMIT:
        return Pace()
    if change := _CHANGE.fullmatch(word):
        percent = float(f"{change['sign']}{_number(change['number'], typed, _PACE_HINT)}")
        if percent <= -100:
            raise _stops(typed)
        return Pace(percent=round(percent, 4))
    found = _RATE.fullmatch(word)
    number = _number(found["number"], typed, _PACE_HINT) if found else 0.0
    if word.lower() in _STOP or (found and not number):
        raise _stops(typed)
    if not found:
        raise UsageError(f"{typed} is no pace", hint=_PACE_HINT)
    rate = number * _FACTORS[found["factor"]] / _SECONDS[found["unit"]]
    return Pace(_bounded(round(rate, 4), typed))


def rate_text(rate: float | None) -> str:
    """A rate as people read it: `5,000 documents/s` or `no limit`."""
    if rate is None:
        return "no limit"
    shown = f"{rate:,.2f}".rstrip("0").rstrip(".")
    return f"{shown} document{'' if shown == '1' else 's'}/s"


def duration(text: str) -> timedelta:
    """How long `90s`, `30m`, `2h` or `1d` is; UsageError for anything but 1 second to 30 days."""
    typed = in_quotes(text)
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise UsageError(f"{typed} is no duration", hint=_DURATION_HINT)
    seconds = _number(found["number"], typed, _DURATION_HINT) * _SECONDS[found["unit"]]
    if seconds < _SHORTEST.total_seconds():
        raise UsageError(f"{typed} is shorter than 1 second", hint=_DURATION_HINT)
    if seconds > _LONGEST.total_seconds():
        raise UsageError(f"{typed} is longer than 30 days", hint=_DURATION_HINT)
    return timedelta(seconds=seconds)


def _number(text: str, typed: str, hint: str) -> float:
    if _THOUSANDS.fullmatch(text):
        readings = f"{text.replace('.', '')} or {text.rstrip('0').rstrip('.')}"
        raise UsageError(f"{typed} could be read as {readings}", hint=f"write {readings}; {hint}")
    return float(text.replace(",", ""))


def _bounded(rate: float, typed: str) -> float:
    if rate < SLOWEST:
        hint = "mongosplit pace 1/s, or mongosplit pause"
        raise UsageError(f"{typed} is below the slowest pace, {rate_text(SLOWEST)}", hint=hint)
    if rate > FASTEST:
        sentence = f"{typed} is absurd: the fastest pace with a limit is {rate_text(FASTEST)}"
        raise UsageError(sentence, hint="mongosplit pace off sets no limit")
    return rate


def _stops(typed: str) -> UsageError:
    return UsageError(f"{typed} would stop the run, which is no pace", hint="use mongosplit pause")


def in_quotes(text: str) -> str:
    """What was typed as one short line in quotes."""
    line = "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split()))
    return f'"{line[:79]}…"' if len(line) > 80 else f'"{line}"'


def _plain(number: float) -> str:
    """The number as it is read back: never with three decimals, which could be thousands."""
    whole, _, decimals = f"{number:.4f}".partition(".")
    kept = decimals.rstrip("0")
    return f"{whole}.{decimals if len(kept) == 3 else kept}" if kept else whole
