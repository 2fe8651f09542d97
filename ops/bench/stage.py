"""The stage of the benchmark: seeded users, targets made anew, cells in shuffled rounds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mongosplit import definition
from mongosplit.errors import Failed
from mongosplit.ledger.book import Ledger
from mongosplit.mongo import Client, Data, connect, exact
from mongosplit.open_run import open_run
from mongosplit.settings import Settings
from ops.bench.jobs import OWN_LEDGER
from ops.bench.workers import Job, Place, carry_out
from ops.seed import seed
from producer import planning
from producer.findings import Subject

QUIET = 0.25
"""Cores that other work may take before a measurement is repeated."""

TRIES = 3
SPEC = "users"


@dataclass(frozen=True)
class Cell:
    """One thing measured: a job and its number of worker processes.

    A cell begins with empty targets and a new plan, or, when `goes_on`, with what the cell before
    it left behind. The validators of the targets are on when `validators`. A cell that `empties`
    must leave nothing in the targets, every other one the same bytes.
    """

    name: str
    job: Job
    workers: int
    validators: bool = False
    goes_on: bool = False
    empties: bool = False


@dataclass(frozen=True)
class Sample:
    """One measurement: users done, seconds, CPU seconds of both sides, cores others kept busy.

    `targets` holds the md5 over all bytes of each target afterwards.
    """

    users: int
    seconds: float
    mongod: float | None
    clients: float
    foreign: float | None
    targets: dict[str, str]

    @property
    def rate(self) -> float:
        """Users a second."""
        return self.users / self.seconds

    @property
    def cost(self) -> float | None:
        """CPU seconds of the server and its clients for one user."""
        return None if self.mongod is None else (self.mongod + self.clients) / self.users

    @property
    def quiet(self) -> bool:
        """Whether other work left the machine to us, as far as is known."""
        return (self.foreign or 0.0) < QUIET


Samples = dict[str, list[Sample]]
"""By cell: one sample for each round."""


@dataclass
class Stage:
    """The servers and the source that all cells share, and how a cell is measured.

    A measurement beside other work is repeated, up to three times in each of the `rounds`, and the
    one with the least other work counts; `patience` are the seconds a section has for repeating.
    `on_sample` is called after each measurement, also of one that will be repeated.
    """

    client: Client
    settings: Settings
    rounds: int = 5
    patience: float = 60.0
    on_sample: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._shuffled = random.Random(1)
        self._patience = self.patience
        self._moved: dict[str, str] = {}
        self.migration = definition.load(SPEC)
        self.ledger = Ledger.at(self.client, self.settings.ledger_database)
        self.mongod = int(self.client.admin.command("serverStatus")["pid"])

    @property
    def data(self) -> Data:
        """The database of source and targets."""
        return exact(self.client[self.settings.data_database])

    def fill(self, users: int) -> None:
        """Put seeded, clean users into the source."""
        seed(self.data[self.migration.source], users)

    def measure(self, groups: Sequence[Sequence[Cell]]) -> Samples:
        """Measure all cells in so many rounds; the groups of a round come in shuffled order.

        The cells of a group follow one another, so that a later one may go on from an earlier one.

        Raises:
            Failed: the cells do not leave the same bytes in the targets.
        """
        self._patience = self.patience
        samples: Samples = {cell.name: [] for group in groups for cell in group}
        for _ in range(self.rounds):
            for group in self._shuffled.sample(groups, len(groups)):
                for cell in group:
                    samples[cell.name].append(self._quietest(cell))
        return samples

    def _quietest(self, cell: Cell) -> Sample:
        taken = [self._sample(cell)]
        while not taken[-1].quiet and len(taken) < TRIES and self._patience > 0:
            began = time.monotonic()
            taken.append(self._sample(cell))
            self._patience -= time.monotonic() - began
        return min(taken, key=lambda sample: sample.foreign or 0.0)

    def _sample(self, cell: Cell) -> Sample:
        run = self._run() if cell.goes_on else self.begin(validators=cell.validators)
        took = carry_out(cell.job, self.place(run), cell.workers, self.mongod)
        targets = self._bytes_of_targets()
        if cell.empties:
            self._refuse_leftovers(cell)
        elif targets != (self._moved or targets):
            raise Failed(f"cell {cell.name} left other bytes in the targets than those before it")
        else:
            self._moved = targets
        self.on_sample()
        return Sample(
            users=took.users,
            seconds=took.passed.wall,
            mongod=took.passed.mongod,
            clients=took.clients,
            foreign=took.passed.foreign(took.clients),
            targets=targets,
        )

    def place(self, run: str) -> Place:
        """Where the workers of a cell find the run."""
        own = self.settings
        return Place(own.mongo_url, own.redis_url, own.ledger_database, run)

    def _refuse_leftovers(self, cell: Cell) -> None:
        for target in self.migration.targets:
            if self.data[target.collection].find_one({}, {"_id": 1}) is not None:
                raise Failed(f"cell {cell.name} left documents in {target.collection}")

    def _run(self) -> str:
        row = self.ledger["runs"].find_one({}, {"_id": 1})
        if row is None:
            raise Failed("a cell that goes on from another one came first")
        return str(row["_id"])

    def begin(self, *, validators: bool) -> str:
        """Empty targets as a start makes them, and a new run with its plan; returns its id."""
        self.client.drop_database(self.settings.ledger_database)
        targets = [target.collection for target in self.migration.targets]
        for name in (*targets, OWN_LEDGER):
            self.data.drop_collection(name)
        self.data.create_collection(OWN_LEDGER)
        at = Subject(self.client, self.ledger, self.settings, self.migration, SPEC)
        run = planning.make(at, lambda _: None).run
        if run is None:
            raise Failed("the plan of the benchmark made no run")
        opened = open_run(self.client, self.ledger, run.id, holder=self.settings.actor)
        planning.begin_running(opened, None, actor=self.settings.actor, why="a benchmark")
        if not validators:
            for name in targets:
                self.data.command("collMod", name, validator={})
        # A checkpoint now, or the clearing away would be paid by the cell.
        self.client.admin.command("fsync")
        return run.id

    def _bytes_of_targets(self) -> dict[str, str]:
        names = [target.collection for target in self.migration.targets]
        found: dict[str, Any] = self.data.command("dbHash", collections=names)
        return dict(found["collections"])


def settings(url: str, redis_url: str, *, database: str, chunk: int) -> Settings:
    """The settings of a benchmark: none are taken from the environment."""
    return Settings(
        mongo_url=url,
        redis_url=redis_url,
        database=database,
        ledger_database=f"{database}_ledger",
        chunk_size=chunk,
        verify_share=0.0,
        throttle="off",
        actor="bench",
    )


def open_client(url: str) -> Client:
    """A client for the stage; the workers make their own."""
    return connect(url, application="mongosplit-bench")
