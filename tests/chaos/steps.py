"""Steps: the real functions in threads that stop wherever a step of the model ends.

Each worker is a real call (`migrate_chunk`, `sync_chunks`, `rollback_chunk`, `verify_chunk`) in a
thread of its own. It stops after it took its fence, before it commits, before it forgets dirty
rows, before verify looks again or records; and goes on when it is told to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from mongosplit import change_stream, follow, lag, migrate, mongo, rollback, sync, verify
from mongosplit.errors import FenceBusy
from mongosplit.ledger import checked, dirty, fences, followers
from mongosplit.ledger.claims import Attempt
from mongosplit.model import Outcome
from mongosplit.open_run import OpenRun

STEP_SECONDS = 30
_here = threading.local()


class Killed(BaseException):
    """The process dies here."""


class Worker:
    """A real call in a thread; `where` names the step it stopped at, empty once it has ended."""

    def __init__(self, kind: str, work: Callable[[], Outcome], *, split: bool = False) -> None:
        self.kind, self.split = kind, split
        self.where, self.killed, self.held = "", False, set[int]()
        self.ids: frozenset[Any] | None = None
        self.only, self.reads, self.narrowed = 0, 0, False
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self._work, self._went, self._rested = work, threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=kind, daemon=True)

    def begin(self) -> str:
        """Start it; where it stops first."""
        self._thread.start()
        return self._await()

    def go(self) -> str:
        """Let it go on; where it stops next."""
        self._went.release()
        return self._await()

    def kill(self) -> None:
        """Let it die where it stands; its transaction is aborted."""
        self.killed = True
        while self.where:
            self.go()

    def stop(self, where: str) -> None:
        """Stop here until told to go on; called in the worker's own thread."""
        self.where = where
        self._rested.release()
        self._went.acquire()
        self.where = ""
        if self.killed:
            raise Killed

    def _await(self) -> str:
        assert self._rested.acquire(timeout=STEP_SECONDS), f"{self.kind} does not come to its step"
        return self.where

    def _run(self) -> None:
        _here.worker = self
        try:
            self.outcome = self._work()
        except Killed:
            self.outcome = None
        except Exception as error:  # noqa: BLE001 - whoever follows the schedule judges it
            self.error = error
        self.where, self.held = "", set()
        self._rested.release()


def worker(at: OpenRun, kind: str, n: int, *, split: bool = False) -> Worker:
    """The real work of one kind on chunk `n`, or on what is dirty, as a worker yet to begin."""
    attempt = Attempt(f"{kind}@here", most=10_000)
    works: dict[str, Callable[[], Outcome]] = {
        "copy": lambda: migrate.migrate_chunk(at, n, attempt),
        "sync": lambda: sync.sync_chunks(at, 0, 1, attempt),
        "rollback": lambda: rollback.rollback_chunk(at, n, attempt),
        "verify": lambda: verify.verify_chunk(at, n, attempt, verification=1, independent=False),
    }
    return Worker(kind, works[kind], split=split)


def _now() -> Worker | None:
    return getattr(_here, "worker", None)


def _take(real: Any) -> Any:
    def take(ledger: Any, session: Any, run: str, n: int) -> Any:
        chunk = real(ledger, session, run, n)
        if (now := _now()) and not now.held:
            now.held = {n}
            now.stop("inside")
        return chunk

    return take


def _take_all(real: Any) -> Any:
    def take_all(ledger: Any, session: Any, run: str, numbers: Any) -> Any:
        now, numbers = _now(), set(numbers)
        if now and now.narrowed:
            if now.only not in numbers:
                raise FenceBusy("of those that the schedule leaves for later")
            now.stop("narrowed")
        try:
            found = real(ledger, session, run, numbers)
        except FenceBusy:
            if now:
                now.narrowed = len(numbers) > 1
            raise
        if now and not now.held:
            now.held = numbers
            now.stop("inside")
        return found

    return take_all


def _read(real: Any) -> Any:
    def read(*arguments: Any, **named: Any) -> Any:
        now = _now()
        if now is None:
            return real(*arguments, **named)
        now.reads += 1
        if now.reads > 1:  # what is dirty by now is for another of the model's syncs
            return []
        rows = real(*arguments, **named)
        found = [row for row in rows if now.ids is None or row.source_id.decode() in now.ids]
        now.stop("taken")
        return found

    return read


def _before(real: Any, where: str, *kinds: str) -> Any:
    def stopped(*arguments: Any, **named: Any) -> Any:
        now = _now()
        if now and now.kind in kinds and (where != "commit" or now.split):
            if where == "clear":
                now.held = set()
            now.stop(where)
        return real(*arguments, **named)

    return stopped


@contextmanager
def stepwise() -> Iterator[None]:
    """The real functions stop at their steps, try once, and the follower reads event by event."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (migrate, rollback, sync):
            patch.setattr(module, "transact", partial(mongo.transact, tries=1))
        patch.setattr(fences, "take", _take(fences.take))
        patch.setattr(fences, "take_all", _take_all(fences.take_all))
        patch.setattr(dirty, "read", _read(dirty.read))
        patch.setattr(dirty, "forget", _before(dirty.forget, "clear", "sync"))
        patch.setattr(
            mongo, "_commit", _before(mongo._commit, "commit", "copy", "sync", "rollback")
        )
        patch.setattr(lag, "look", _before(lag.look, "wait", "verify"))
        patch.setattr(checked, "record", _before(checked.record, "record", "verify"))
        patch.setattr(verify, "LOOK_SECONDS", 0)
        patch.setattr(change_stream, "_AT_ONCE", 1)
        patch.setattr(follow, "SAVE_SECONDS", 0)
        yield


class SteppedFollower:
    """The real follower: one event for each mark; what it saves may be held back for a while."""

    def __init__(self, at: OpenRun) -> None:
        self._at, self._follower = at, follow.Follower(at, "f1")
        self._saves: list[Callable[[], bool]] = []
        self._marks = 0

    def mark(self, *, save: bool) -> set[Any]:
        """Mark the next event; who is marked. With `save` the position moves at once."""
        with self._holding():
            while not (marked := self._step()):
                assert len(self._saves) < 1000, "the event does not come"
        if save:
            self.save()
        return marked

    def _step(self) -> set[Any]:
        marked: set[Any] = set()
        real = dirty.mark

        def mark(ledger: Any, run: str, marks: Any, **named: Any) -> int:
            marks = list(marks)
            marked.update(one.source_id.decode() for one in marks)
            count = real(ledger, run, marks, **named)
            self._marks += count
            return count

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dirty, "mark", mark)
            self._marks = 0
            assert self._follower.step(50) is not None, "somebody else follows"
        return marked

    @contextmanager
    def _holding(self) -> Iterator[None]:
        real = followers.reach

        def reach(*arguments: Any, **named: Any) -> bool:
            assert self._marks == named["events"], "the position is saved before the marks"
            self._saves.append(lambda: real(*arguments, **named))
            return True

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(followers, "reach", reach)
            yield

    def save(self) -> None:
        """Save the position behind all that was marked."""
        if self._saves:
            assert self._saves[-1](), "somebody else follows"
            self._saves.clear()

    def heartbeat(self) -> set[Any]:
        """One look at the stream that saves at once; who was marked, if anybody was written."""
        return self._step()

    def crash(self) -> None:
        """Die with what was not saved, and start again."""
        self.close()
        self._follower, self._saves = follow.Follower(self._at, "f1"), []

    def close(self) -> None:
        """End the stream."""
        self._follower.close()
