"""Worker processes: each makes its own client, gets ready, and works from one signal to another."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.sharedctypes import Synchronized

from mongosplit.errors import Failed
from mongosplit.ledger import chunks
from mongosplit.ledger.book import Ledger
from mongosplit.model import Chunk
from mongosplit.mongo import connect
from mongosplit.open_run import OpenRun, open_run
from ops.bench import meter
from ops.bench.meter import Reading
from worker.app import app

READY_SECONDS, WORK_SECONDS = 120.0, 600.0

# A process forked from this one would take over its threads' locks and its connections.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["ops.bench.command"])


@dataclass(frozen=True)
class Place:
    """Where the run is that the workers open."""

    url: str
    redis_url: str
    ledger: str
    run: str


@dataclass(frozen=True)
class Share:
    """What one worker of several has to do: `number` from 0, all chunks but the empty tail."""

    number: int
    workers: int
    chunks: list[Chunk]
    taken: Synchronized[int]

    def take(self) -> Iterator[Chunk]:
        """The next chunk that no worker has taken, as long as there is one."""
        while True:
            with self.taken.get_lock():
                position = self.taken.value
                self.taken.value += 1
            if position >= len(self.chunks):
                return
            yield self.chunks[position]


Work = Callable[[], int]
Job = Callable[[OpenRun, Share], Work]
"""Gets ready, untimed, and gives the work to be timed, which returns how many users it did."""


@dataclass(frozen=True)
class Took:
    """What the workers took together: users done, clocks, CPU seconds of the worker processes."""

    users: int
    passed: Reading
    clients: float


def carry_out(job: Job, place: Place, workers: int, mongod: int) -> Took:
    """Do the job with so many processes, timed from the common start to the last one's end.

    Raises:
        Failed: a worker died or hangs.
    """
    taken = _CONTEXT.Value("i", 0)
    with ExitStack() as stack:
        pipes = [
            stack.enter_context(_worker(job, place, number, workers, taken))
            for number in range(workers)
        ]
        for pipe in pipes:
            _receive(pipe, READY_SECONDS)
        before = meter.read(mongod)
        for pipe in pipes:
            pipe.send(None)
        done = [_receive(pipe, WORK_SECONDS) for pipe in pipes]
        passed = meter.read(mongod).since(before)
    return Took(int(sum(users for users, _ in done)), passed, sum(cpu for _, cpu in done))


@contextmanager
def _worker(
    job: Job, place: Place, number: int, workers: int, taken: Synchronized[int]
) -> Iterator[Connection]:
    here, there = _CONTEXT.Pipe()
    process = _CONTEXT.Process(
        target=_work, args=(there, job, place, number, workers, taken), daemon=True
    )
    try:
        process.start()
        # Held open here too, the other end would hide that the worker has died.
        there.close()
        yield here
    finally:
        here.close()
        _end(process)


def _end(process: ForkServerProcess) -> None:
    process.join(READY_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
    process.close()


def _receive(pipe: Connection, seconds: float) -> tuple[int, float]:
    if not pipe.poll(seconds):
        raise Failed(f"a worker of the benchmark was not done within {seconds:.0f} s")
    try:
        said: tuple[int, float] = pipe.recv()
    except EOFError as error:
        raise Failed(
            "a worker of the benchmark died", hint="see above for its traceback"
        ) from error
    return said


def _work(
    pipe: Connection, job: Job, place: Place, number: int, workers: int, taken: Synchronized[int]
) -> None:
    app.conf.broker_url = place.redis_url
    with connect(place.url, application="mongosplit-bench") as client, pipe:
        ledger = Ledger.at(client, place.ledger)
        at = open_run(client, ledger, place.run, holder=f"bench worker {number}")
        work = job(at, Share(number, workers, _chunks(at), taken))
        pipe.send((0, 0.0))
        pipe.recv()
        before = time.process_time()
        users = work()
        pipe.send((users, time.process_time() - before))


def _chunks(at: OpenRun) -> list[Chunk]:
    numbers = chunks.numbers(at.ledger, at.run.id, {"tail": None})
    return [chunks.get(at.ledger, at.run.id, n) for n in numbers]
