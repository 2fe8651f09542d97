"""Following while a run lives: the follower and the syncs it asks for, in threads of this process.

Workers that listen on `sync` derive what is dirty; where there are none this process does. Once for
each run and process, however many ask for it.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

import redis
from kombu.exceptions import OperationalError
from pymongo.errors import PyMongoError

from mongosplit import foreign, grown
from mongosplit.errors import Failed, FenceBusy, MongosplitError
from mongosplit.follow import Follower
from mongosplit.ledger import audit, dirty, followers
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import dispatch, rechecking
from producer.dispatch import BrokerAway
from worker import place, syncing

READ_MILLISECONDS = 200
"""How long one look at the stream waits; events come at once."""
LOOK_SECONDS = 1.0
"""How often it is looked who listens, what stays dirty, and who else writes the targets."""
AWAY_SECONDS = 0.5
LOST_SECONDS = 5.0
JOIN_SECONDS = 6.0
MOST_PARTS = 8

log = logging.getLogger(__name__)


@dataclass
class Following:
    """The threads of one run, and what they know."""

    at: OpenRun
    settings: Settings
    users: int = 0
    stopped: Event = field(default_factory=Event)
    dirty: Event = field(default_factory=Event)
    leads: bool = False
    listening: int = 0
    looked: float = 0.0
    threads: list[Thread] = field(default_factory=list)

    @property
    def name(self) -> str:
        """This process in the ledger's words."""
        return place.name_here(self.settings.actor)

    def start(self) -> None:
        """Begin its threads."""
        follower = Follower(self.at, self.name)
        works = {"follow": lambda: self._follow(follower), "sync": self._sync}
        if self.settings.recheck_seconds:
            works["recheck"] = self._recheck
        for name, work in works.items():
            run = f"{name} {self.at.run.id}"
            thread = Thread(target=self._on_and_on, args=(work,), name=run, daemon=True)
            thread.start()
            self.threads.append(thread)
        self.follower = follower

    def stop(self) -> None:
        """End its threads and make room for another follower."""
        self.stopped.set()
        self.dirty.set()
        for thread in self.threads:
            # A comparison may wait for the follower that has just ended; it is left behind.
            thread.join(JOIN_SECONDS)
        self.follower.let_go()

    def _on_and_on(self, work: Callable[[], None]) -> None:
        """Do the work until stopped; what keeps it from being done is noted for `status`."""
        while not self.stopped.is_set():
            try:
                work()
            except PyMongoError as error:
                log.info("following %s again: %s", self.at.run.id, type(error).__name__)
                self.stopped.wait(AWAY_SECONDS)
            except MongosplitError as error:
                self._obstacle(error)
            except Exception as error:  # noqa: BLE001 - a thread that dies in silence follows nothing
                # The message may hold values of documents; where it happened holds none.
                log.error("".join(traceback.format_tb(error.__traceback__)))
                self._obstacle(Failed(f"{type(error).__name__} in the follower; see the log"))

    def _obstacle(self, error: MongosplitError) -> None:
        self.leads = False
        log.warning("following %s: %s", self.at.run.id, error.message)
        ledger, run = self.at.ledger, self.at.run.id
        with suppress(PyMongoError):
            position = followers.get(ledger, run)
            if position is not None and position.obstacle != error.to_document():
                facts = {"stopped": error.message}
                audit.say(ledger, "follower", actor="follower", run=run, facts=facts)
                followers.obstructed(ledger, run, error.to_document())
        self.stopped.wait(LOST_SECONDS)

    def _follow(self, follower: Follower) -> None:
        marked = follower.step(READ_MILLISECONDS)
        self.leads = marked is not None
        if marked:
            self.dirty.set()
        elif not self.leads:
            self.stopped.wait(LOOK_SECONDS)

    def _sync(self) -> None:
        self.dirty.wait(LOOK_SECONDS)
        self.dirty.clear()
        if not self.leads or self.stopped.is_set():
            return
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            self.looked = time.monotonic()
            self.listening = _listening()
            self._derive()
            foreign.look(self.at)
            with suppress(FenceBusy):
                grown.divide_grown(self.at, actor=self.name)
        else:
            self._derive()

    def _recheck(self) -> None:
        if self.stopped.wait(self.settings.recheck_seconds) or not self.leads:
            return
        try:
            rechecking.recheck(self.at, self.name, self.settings.max_attempts)
        except MongosplitError as error:
            # It says nothing about following, and another chunk is next.
            log.warning("rechecking %s: %s", self.at.run.id, error.message)

    def _derive(self) -> None:
        """Have the dirty users derived: by workers that listen, or here."""
        if self.listening:
            try:
                for part in dirty.parts_waiting(self.at.ledger, self.at.run.id, self.listening):
                    syncing.ask(self.at.run.id, part, self.listening)
            except (redis.RedisError, OperationalError):
                # Without Redis the writes go on, so somebody has to derive them.
                self.listening = 0
            else:
                return
        done = syncing.carry_out(self.at, 0, 1, worker=self.name)
        if done["did"] != "synced":
            self.stopped.wait(AWAY_SECONDS)


def _listening() -> int:
    """Into how many parts the chunks are to be shared out: workers on `sync`; 0 without any."""
    try:
        return min(MOST_PARTS, len(dispatch.listeners("sync")))
    except BrokerAway:
        return 0


_lock = Lock()
_here: dict[str, Following] = {}


@contextmanager
def following(at: OpenRun, settings: Settings) -> Iterator[Following]:
    """Follow the run's source meanwhile, unless another process does; writes show in seconds."""
    with _lock:
        found = _here.get(at.run.id)
        if found is None:
            found = _here[at.run.id] = Following(at, settings)
            found.start()
        found.users += 1
    try:
        yield found
    finally:
        with _lock:
            found.users -= 1
            last = not found.users
            if last:
                del _here[at.run.id]
        if last:
            found.stop()
