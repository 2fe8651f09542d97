"""Pace in the ledger: the rate limit that holds for a run now, who set it, and its health.

The rate is kept here and not in Redis, so that a wipe cannot change the speed. Which of the limits
holds follows from the time alone: nobody has to be there when a spell ends or a window begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mongosplit.ledger import audit
from mongosplit.ledger.book import Ledger, now
from mongosplit.mongo import Session
from mongosplit.pace_schedule import Schedule
from mongosplit.pace_text import rate_text
from mongosplit.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Limit:
    """The rate limit that holds: documents per second (None: no limit), by whom, until when."""

    rate: float | None
    actor: str = ""
    until: datetime | None = None
    scheduled: bool = False

    @property
    def sentence(self) -> str:
        """As people read it: `5,000 documents/s, set by anna until 14:30 UTC`."""
        said = rate_text(self.rate)
        if self.scheduled:
            said += f" by the schedule of {self.actor}"
        elif self.actor:
            said += f", set by {self.actor}"
        return said + (f" until {self.until:%d %b %H:%M:%S} UTC" if self.until else "")


NO_LIMIT = Limit(None)


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a worker needs to know before each chunk, read at once."""

    state: str
    pace: dict[str, Any]
    throttled: bool
    verdict: Verdict | None
    verdict_age: float | None

    def limit(self, moment: datetime) -> Limit:
        """The rate limit that holds at a moment in UTC."""
        return limit_of(self.pace, moment)


def limit_of(pace: dict[str, Any], moment: datetime) -> Limit:
    """The limit that holds at a moment in UTC: a spell, else the schedule, else what is set."""
    spell = pace.get("spell")
    if spell and moment < spell["until"]:
        return Limit(spell["rate"], spell["actor"], spell["until"])
    if planned := pace.get("schedule"):
        schedule = Schedule.from_document(planned)
        ends = schedule.next_change(moment).replace(tzinfo=None)
        return Limit(schedule.at(moment).rate, planned["actor"], ends, scheduled=True)
    base = pace.get("base")
    return Limit(base["rate"], base["actor"]) if base else NO_LIMIT


def pulse(ledger: Ledger, run: str) -> Pulse:
    """The run's state, pace and last verdict; the verdict's age by the server's own clock."""
    age = {"$subtract": ["$$NOW", "$health.at"]}
    row = ledger["runs"].find_one(
        {"_id": run}, {"state": 1, "pace": 1, "health": 1, "options.throttle": 1, "age": age}
    )
    row = row or {}
    held = row.get("health")
    throttle = row.get("options", {}).get("throttle", "off")
    return Pulse(
        state=row.get("state", ""),
        pace=row.get("pace", {}),
        throttled=throttle != "off",
        verdict=Verdict.from_document(held) if held else None,
        verdict_age=row["age"] / 1000 if held else None,
    )


def publish(ledger: Ledger, run: str, verdict: Verdict) -> None:
    """Let all workers know the verdict; its time is the server's, which theirs is held against."""
    literal = {name: {"$literal": value} for name, value in verdict.to_document().items()}
    ledger["runs"].update_one({"_id": run}, [{"$set": {"health": {**literal, "at": "$$NOW"}}}])


def set_base(ledger: Ledger, run: str, rate: float | None, *, actor: str) -> None:
    """Set the limit for good; a spell or a schedule ends with it."""
    pace = {"base": {"rate": rate, "actor": actor, "at": now()}, "spell": None, "schedule": None}
    _set(ledger, run, pace, actor=actor, told={"rate": rate_text(rate)})


def set_spell(ledger: Ledger, run: str, rate: float | None, until: datetime, *, actor: str) -> None:
    """Set a limit until a moment in UTC, after which the former pace returns."""
    spell = {"rate": rate, "actor": actor, "at": now(), "until": until}
    told = {"rate": rate_text(rate), "until": until}
    _set(ledger, run, {"spell": spell}, actor=actor, told=told)


def set_schedule(ledger: Ledger, run: str, schedule: Schedule, *, actor: str) -> None:
    """Let the pace follow a schedule, until another pace is set."""
    planned = {**schedule.to_document(), "actor": actor}
    told = {"schedule": str(schedule), "zone": schedule.zone}
    _set(ledger, run, {"spell": None, "schedule": planned}, actor=actor, told=told)


def set_worker_rate(ledger: Ledger, run: str, rate: str, *, actor: str) -> None:
    """Keep Celery's own rate limit of one worker, in its words (`10/s`; `0`: none)."""
    _set(ledger, run, {"per_worker": rate}, actor=actor, told={"per_worker": rate})


def set_signals(ledger: Ledger, run: str, text: str, *, actor: str) -> None:
    """Say which health signals slow or stop the run, and where."""
    _write(ledger, run, {"options.throttle": text}, actor=actor, told={"signals": text})


def _set(
    ledger: Ledger, run: str, pace: dict[str, Any], *, actor: str, told: dict[str, Any]
) -> None:
    changes = {f"pace.{name}": value for name, value in pace.items()}
    _write(ledger, run, changes, actor=actor, told=told)


def _write(
    ledger: Ledger, run: str, changes: dict[str, Any], *, actor: str, told: dict[str, Any]
) -> None:
    def body(session: Session) -> None:
        ledger["runs"].update_one({"_id": run}, {"$set": changes}, session=session)
        audit.say(ledger, "pace", actor=actor, run=run, session=session, facts=told)

    ledger.together(body)
