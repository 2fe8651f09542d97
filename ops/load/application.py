"""The marketplace's application: threads that write their own users, open-loop at a stated rate."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Lock
from types import TracebackType
from typing import Self

from bson import ObjectId

from mongosplit import raw
from mongosplit.mongo import Client, exact, raw_documents
from ops.load.clerk import Clerk
from ops.load.customers import Customers
from ops.load.habits import Habits
from ops.load.journal import Journal, known
from ops.load.latency import Sample, errors
from ops.load.roster import Roster
from ops.load.working import Due, Working
from ops.seed_hostile import Draw

SOURCE = "users"

USUAL = Habits()


@dataclass(frozen=True)
class Passed:
    """What the application did in so many seconds; `unstarted` were due and never begun."""

    samples: list[Sample]
    seconds: float
    unstarted: int = 0

    @property
    def rate(self) -> float:
        """Acknowledged operations a second."""
        return sum(not one.error for one in self.samples) / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> dict[str, int]:
        """Operations whose outcome is unknown, by the driver's error."""
        return errors(self.samples)

    def __add__(self, other: Passed) -> Passed:
        """Both, as if one had followed the other."""
        samples, unstarted = self.samples + other.samples, self.unstarted + other.unstarted
        return Passed(samples, self.seconds + other.seconds, unstarted)


class Application:
    """Writes to `users` of a database as the marketplace does, `rate` operations a second in all.

    Each of the threads owns the users whose number modulo `threads` is its own, so it knows the
    last acknowledged state of each. An operation that comes late counts from when it was due. With
    a journal every user found at the beginning is entered, too. `seed` decides who does what; names
    and addresses are new in each process. Nobody else may write these users meanwhile. Close it.

    Raises:
        PyMongoError: the users cannot be read at the beginning.
    """

    def __init__(
        self,
        client: Client,
        database: str,
        *,
        seed: int,
        threads: int,
        rate: float,
        journal: Journal | None = None,
        habits: Habits = USUAL,
    ) -> None:
        self.rate = rate
        self.spared: list[raw.Value] = []
        self._data, self._journal = exact(client[database]), journal
        self._token, self._numbers = secrets.token_hex(4), itertools.count(1)
        self._lock, self._last_id = Lock(), int.from_bytes(ObjectId().binary)
        self._rosters = [Roster() for _ in range(threads)]
        self._data[SOURCE].create_index("username")
        self._enter(habits.spared)
        self._closing = ExitStack()
        sessions = [
            self._closing.enter_context(client.start_session(causal_consistency=False))
            for _ in range(threads)
        ]
        self._threads = [
            Working(
                Clerk(self._data, SOURCE, session, roster, journal),
                roster,
                Customers(
                    roster,
                    Draw(f"application {seed} {number}"),
                    habits,
                    new_key=self._new_key,
                    fresh=self._fresh,
                ),
            )
            for number, (session, roster) in enumerate(zip(sessions, self._rosters, strict=True))
        ]

    @property
    def users(self) -> int:
        """How many users it writes."""
        return sum(map(len, self._rosters))

    def run(self, seconds: float, stopping: Event | None = None) -> Passed:
        """Write for so long, or until `stopping` is set; return what was felt.

        At the end the outcome of every write is asked for that is unknown; what cannot be found out
        stays unknown.
        """
        stopping = stopping or Event()
        began = time.monotonic()
        every = len(self._threads) / self.rate
        with ThreadPoolExecutor(len(self._threads)) as pool:
            firsts = [began + number / self.rate for number in range(len(self._threads))]
            working = [
                pool.submit(thread.run, Due(first, every, began + seconds), stopping)
                for thread, first in zip(self._threads, firsts, strict=True)
            ]
            found = [one.result() for one in working]
        took = time.monotonic() - began
        samples = sorted((one for part, _ in found for one in part), key=lambda one: one.start)
        return Passed(samples, took, sum(unstarted for _, unstarted in found))

    def close(self) -> None:
        """End the sessions; harmless when repeated."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _enter(self, spared: int) -> None:
        """Read all users, by `_id`; the journal learns of each, and of each that is gone."""
        gone = set() if not self._journal or self._journal.is_new else {*known(self._journal.file)}
        keys: list[raw.Value] = []
        for number, user in enumerate(self._whole_source()):
            key = raw.field(user, "_id")
            assert key is not None  # every stored document has one
            keys.append(key)
            gone.discard(key)
            self._rosters[number % len(self._rosters)].put(key, user)
            if self._journal:
                self._journal.read(key, user)
            if key.type_name == "objectId":
                self._last_id = max(self._last_id, int.from_bytes(key.data))
        for key in gone:
            if self._journal:
                self._journal.read(key, None)
        self._spare(keys, spared)

    def _whole_source(self) -> Sequence[bytes]:
        return list(raw_documents(self._data[SOURCE].find_raw_batches({}).sort("_id", 1)))

    def _spare(self, keys: list[raw.Value], count: int) -> None:
        step = max(1, len(keys) // count) if count else 1
        self.spared = keys[::step][:count]
        for roster in self._rosters:
            roster.without(self.spared)

    def _new_key(self) -> raw.Value:
        with self._lock:
            self._last_id += 1
            return raw.encode(ObjectId(self._last_id.to_bytes(12)))

    def _fresh(self) -> str:
        return f"{self._token}-{next(self._numbers)}"
