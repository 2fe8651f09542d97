"""The verb that says and sets how fast a run may go: pace."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from mongosplit.errors import UsageError
from mongosplit.ledger import paces, runs
from mongosplit.ledger.book import now
from mongosplit.model import Run
from mongosplit.pace_schedule import Schedule, parse_schedule
from mongosplit.pace_text import Pace, duration, parse_pace
from mongosplit.settings import Settings
from mongosplit.signal_thresholds import Thresholds
from producer import console, pacing_facts, worker_rate
from producer.connection import Connection, connected, refuse_over
from producer.options import confirm, output_flag, settings_flags, yes_flag
from producer.worker_rate import WorkerRate


@click.command("pace", context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[MIGRATION|RUN] [PACE]", nargs=-1)
@click.option("--for", "spell", metavar="DURATION", help="only so long: 30m; then as before")
@click.option("--schedule", metavar="TEXT", help='by the clock: "22:00-06:00 max, else 500/s"')
@click.option("--zone", default="UTC", show_default=True, help="time zone of the schedule")
@click.option("--per-worker", metavar="RATE", help="Celery's limit of one worker: 10/s")
@click.option("--signals", metavar="TEXT", help="where health slows it: signal=soft:hard, or off")
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def pace(  # noqa: PLR0917 - one argument for each flag
    context: click.Context,
    words: tuple[str, ...],
    settings: Settings,
    spell: str | None,
    schedule: str | None,
    zone: str,
    per_worker: str | None,
    signals: str | None,
    yes: bool,
    output: str,
) -> None:
    """Say how fast the run may go and what holds it back; set the rate limit of the whole fleet.

    PACE is 5000/s, 5k/s, 300/m, +20%, -50% or off, in documents. It takes effect within a second,
    also for those who wait.
    """
    asked = _Asked.read(words, spell, schedule, zone, per_worker, signals)
    with connected(settings, context.obj) as at:
        run = at.run(asked.name or settings.migration)
        if asked.changes:
            refuse_over(run)
            present = paces.limit_of(run.pace, now()).rate
            rate = asked.pace.apply(present) if asked.pace else None
            confirm(f"{asked.sentence} for {run.id}?", yes=yes)
            at.tell("pace", run=run.id, what=asked.sentence)
            _set(at, run, asked, rate)
        facts = pacing_facts.facts(runs.get(at.ledger, run.id), now())
    if output == "json":
        console.print_json({"run": run.id, **facts})
    else:
        pacing_facts.show(run.id, facts)


class _Asked:
    """What the words and flags of one command line come to."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.pace: Pace | None = None
        self.spell: timedelta | None = None
        self.schedule: Schedule | None = None
        self.per_worker: WorkerRate | None = None
        self.signals: str | None = None

    @classmethod
    def read(
        cls,
        words: tuple[str, ...],
        spell: str | None,
        schedule: str | None,
        zone: str,
        per_worker: str | None,
        signals: str | None,
    ) -> _Asked:
        """Read them.

        Raises:
            UsageError: one of them cannot be read, or they do not go together.
        """
        asked = cls()
        asked.name, typed = _name_and_pace(words)
        asked.pace = parse_pace(typed) if typed is not None else None
        asked.spell = duration(spell) if spell is not None else None
        asked.schedule = parse_schedule(schedule, zone) if schedule is not None else None
        asked.per_worker = WorkerRate.parse(per_worker) if per_worker is not None else None
        asked.signals = str(Thresholds.parse(signals)) if signals is not None else None
        if asked.pace and asked.schedule:
            raise UsageError(
                "a pace and a schedule cannot both hold",
                hint="give one of them, or a pace --for 30m",
            )
        if asked.spell and not asked.pace:
            raise UsageError(
                "--for says how long a pace holds", hint="mongosplit pace 500/s --for 30m"
            )
        return asked

    @property
    def changes(self) -> bool:
        """Whether anything is to be set."""
        return any(
            asked is not None for asked in (self.pace, self.schedule, self.per_worker, self.signals)
        )

    @property
    def sentence(self) -> str:
        """What is to be set."""
        said = []
        if self.pace:
            said.append(f"pace {self.pace}" + (f" for {self.spell}" if self.spell else ""))
        if self.schedule:
            said.append(f"pace by schedule {self.schedule} ({self.schedule.zone})")
        if self.per_worker:
            said.append(f"{self.per_worker} chunks per worker")
        if self.signals is not None:
            said.append(f"signals {self.signals}")
        return ", ".join(said)


def _name_and_pace(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The run's name and the pace: a single word that could be a name is one."""
    if len(words) > 2:
        raise UsageError("pace takes a run and a pace", hint="mongosplit pace users 5000/s")
    if len(words) == 2:
        return words[0], words[1]
    if not words:
        return None, None
    is_name = re.fullmatch(r"[A-Za-z_][\w.:-]*", words[0]) and words[0].lower() not in _WORDS
    return (words[0], None) if is_name else (None, words[0])


_WORDS = ("off", "max", "stop")


def _set(at: Connection, run: Run, asked: _Asked, rate: float | None) -> None:
    actor = at.settings.actor
    if asked.pace:
        if asked.spell:
            paces.set_spell(at.ledger, run.id, rate, now() + asked.spell, actor=actor)
        else:
            paces.set_base(at.ledger, run.id, rate, actor=actor)
    if asked.schedule:
        paces.set_schedule(at.ledger, run.id, asked.schedule, actor=actor)
    if asked.signals is not None:
        paces.set_signals(at.ledger, run.id, asked.signals, actor=actor)
    if asked.per_worker:
        paces.set_worker_rate(at.ledger, run.id, asked.per_worker.text, actor=actor)
        worker_rate.send(asked.per_worker)
