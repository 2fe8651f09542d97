"""The application alone, beside a flat-out migration and beside a paced one, in one run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from mongosplit.ledger import runs
from mongosplit.ledger.book import Ledger
from mongosplit.mongo import Client
from ops.load import others
from ops.load.application import SOURCE, Application, Passed
from ops.load.commands import DATABASE, DONE_OR_DIFFERENT, Commands
from ops.load.latency import Summary, by_operation, summary
from ops.load.others import Reading

LOOK_SECONDS = 0.2
FIRST_TARGET = "base_users"
START = "start users --yes --local-workers 1"


@dataclass(frozen=True)
class Phase:
    """What the application felt under one condition.

    `split` users a second were split meanwhile, and `others` cores were busy with other work.
    """

    name: str
    passed: Passed
    split: float = 0.0
    others: float | None = None

    @property
    def felt(self) -> Summary:
        """Percentiles over all operations."""
        return summary(one.seconds for one in self.passed.samples)

    @property
    def served(self) -> Summary:
        """The same without the application's own waiting for a core of this machine."""
        return summary(max(0.0, one.seconds - one.starved) for one in self.passed.samples)

    def to_document(self, idle: Summary) -> dict[str, Any]:
        """Everything but the single latencies, for JSON."""
        felt = self.felt
        operations = by_operation(self.passed.samples)
        return {
            "phase": self.name,
            **felt.to_document(),
            "p50_to_idle": ratio(felt.p50, idle.p50),
            "p99_to_idle": ratio(felt.p99, idle.p99),
            "served": self.served.to_document(),
            "errors": self.passed.errors,
            "unstarted": self.passed.unstarted,
            "rate": self.passed.rate,
            "seconds": self.passed.seconds,
            "split": self.split,
            "others": self.others,
            "operations": {name: one.to_document() for name, one in operations.items()},
        }


@dataclass(frozen=True)
class Goal:
    """A latency of a phase in relation to idle: `percentile` is p50 or p99."""

    phase: str
    percentile: str
    most: float

    def ratio(self, phases: list[Phase]) -> float:
        """What was measured."""
        felt = {phase.name: getattr(phase.felt, self.percentile) for phase in phases}
        return ratio(felt[self.phase], felt[IDLE])


IDLE, FLAT_OUT, PACED = "idle", "flat out, one worker", "paced"
GOALS = (Goal(FLAT_OUT, "p50", 1.5), Goal(FLAT_OUT, "p99", 4.0), Goal(PACED, "p99", 1.5))


def ratio(felt: float, idle: float) -> float:
    """How many times idle; 0 when nothing was felt there."""
    return felt / idle if idle else 0.0


class Bench:
    """The application, the servers and the command line that all phases share."""

    def __init__(self, client: Client, application: Application, commands: Commands) -> None:
        self._client, self._application, self._commands = client, application, commands
        self._ledger = Ledger.at(client, "mongosplit")

    def measure(
        self, seconds: float, pace: float, on_phase: Callable[[str], None]
    ) -> tuple[list[Phase], float]:
        """All phases; half of idle is measured after the others, in case the machine has changed.

        Also returned is how many times the p50 of the first half the one of the second is.
        """
        on_phase(IDLE)
        before, others_before = self._felt(seconds / 2)
        on_phase(FLAT_OUT)
        flat_out = self._beside(FLAT_OUT, seconds, None)
        on_phase(PACED)
        paced = self._beside(PACED, seconds, pace)
        on_phase(f"{IDLE}, again")
        after, others_after = self._felt(seconds / 2)
        first, second = (Phase(IDLE, half).felt.p50 for half in (before, after))
        idle = Phase(IDLE, before + after, 0.0, (others_before + others_after).cores)
        return [idle, flat_out, paced], ratio(second, first)

    def _felt(self, seconds: float, over: Event | None = None) -> tuple[Passed, Reading]:
        before = others.read()
        passed = self._application.run(seconds, over)
        return passed, others.read().since(before)

    def _beside(self, name: str, seconds: float, pace: float | None) -> Phase:
        """Beside runs, one after the other until the time is over; between them nobody looks."""
        passed, split, beside = Passed([], 0.0), 0, Reading(0.0, 0.0)
        while passed.seconds < 0.9 * seconds:
            self._commands.run("plan users --yes")
            if pace is not None:
                self._commands.run(f"pace users {pace:g}/s --yes")
            with self._commands.running(START) as process:
                self._commands.until(self._has_begun, START, process)
                had = self._split()
                felt, took = self._while_migrating(seconds - passed.seconds, process)
                passed, beside = passed + felt, beside + took
                split += self._split() - had
            if process.returncode > 0 and process.returncode not in (*DONE_OR_DIFFERENT, 1):
                raise self._commands.failed(START, process.returncode)
            rollback = "rollback users --yes --local-workers 1"
            self._commands.run(rollback, codes=DONE_OR_DIFFERENT)
        return Phase(name, passed, split / passed.seconds, beside.cores)

    def _while_migrating(
        self, seconds: float, process: subprocess.Popen[bytes]
    ) -> tuple[Passed, Reading]:
        over, left = Event(), Event()

        def watch() -> None:
            while not left.wait(LOOK_SECONDS):
                if process.poll() is not None or not self._goes_on():
                    over.set()

        watching = Thread(target=watch, daemon=True)
        watching.start()
        try:
            return self._felt(seconds, over)
        finally:
            left.set()
            watching.join()

    def _has_begun(self) -> bool:
        return self._chunk_in("migrated", "verified")

    def _goes_on(self) -> bool:
        return self._chunk_in("pending", "migrated")

    def _chunk_in(self, *states: str) -> bool:
        run = runs.unfinished(self._ledger, f"{DATABASE}.{SOURCE}")
        query = {"run": run.id if run else None, "tail": None, "state": {"$in": states}}
        return self._ledger["chunks"].find_one(query, {"_id": 1}) is not None

    def _split(self) -> int:
        return int(self._client[DATABASE][FIRST_TARGET].estimated_document_count())
