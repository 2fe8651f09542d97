"""Health: looks at the database once a second for the whole fleet, and publishes the verdict."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from pymongo.errors import PyMongoError

from mongosplit import signals
from mongosplit.ledger import audit, dirty, followers, paces, runs
from mongosplit.ledger.book import now
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from mongosplit.signal_command import CommandLine
from mongosplit.signal_thresholds import Thresholds
from mongosplit.throttle import Throttle
from mongosplit.verdict import Verdict

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass
class Doctor:
    """Looks, judges and publishes; `throughput` is what the driver sees of late, documents/s."""

    at: OpenRun
    command: CommandLine | None
    throughput: float = 0.0
    stopped: Event = field(default_factory=Event)
    throttle: Throttle = field(default_factory=lambda: Throttle(Thresholds.parse("off")))
    thresholds: str = "off"
    said: tuple[str, bool] = ("", False)

    def look(self) -> None:
        """One look, one verdict; none where the run's throttle is off."""
        ledger, run = self.at.ledger, runs.get(self.at.ledger, self.at.run.id)
        text = run.options.get("throttle", "off")
        if text != self.thresholds:
            self.thresholds, self.throttle = text, Throttle(Thresholds.parse(text))
        if not self.throttle.thresholds.of:
            return
        backlog = dirty.backlog(ledger, run.id) if followers.get(ledger, run.id) else None
        sources = signals.Sources(
            self.at.client, ledger["probe"], follower_backlog=backlog, command=self.command
        )
        readings = signals.read_all(sources, self.throttle.thresholds)
        limit = paces.limit_of(run.pace, now()).rate
        rate = max(0.0, self.throughput)
        verdict = self.throttle.observe(readings, rate_limit=limit, throughput=rate)
        paces.publish(ledger, run.id, verdict)
        self._tell(verdict)

    def _tell(self, verdict: Verdict) -> None:
        """Tell the audit what holds the run back, once each time that changes."""
        held_back = verdict.stop or (verdict.allowed is not None and bool(verdict.signal))
        now_said = (verdict.signal, verdict.stop) if held_back else ("", False)
        if now_said == self.said:
            return
        self.said = now_said
        facts = {"signal": verdict.signal or "none", "stop": verdict.stop, "why": verdict.reason}
        audit.say(self.at.ledger, "throttle", actor="throttle", run=self.at.run.id, facts=facts)

    def run(self) -> None:
        """Look every second until stopped."""
        while not self.stopped.wait(LOOK_SECONDS):
            try:
                self.look()
            except PyMongoError as error:
                # What is not published grows stale, which stops the workers.
                log.warning("health could not be published: %s", type(error).__name__)


@contextmanager
def watching(at: OpenRun, settings: Settings) -> Iterator[Doctor]:
    """Watch the database's health meanwhile, in a thread of its own."""
    line = settings.throttle_command
    doctor = Doctor(at, CommandLine.parse(line) if line else None)
    doctor.look()
    thread = Thread(target=doctor.run, name="health", daemon=True)
    thread.start()
    try:
        yield doctor
    finally:
        doctor.stopped.set()
        thread.join()
