"""The looks of the dashboard: one task for each run that is watched, shared by all browsers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mongosplit import mongo
from mongosplit.errors import MongosplitError
from mongosplit.ledger.book import Ledger
from producer.dashboard.facts import Look, Lookout

LOOK_SECONDS = 1.0
SHARE = 0.2
"""Of the time at most that share is spent looking, so that a large ledger is not kept busy."""

LEAVE_SECONDS = 2.0
"""How long those who watch have to leave when the dashboard ends."""


@dataclass(frozen=True)
class Seen:
    """A look by its number, or why there was none: a sentence and what to type next."""

    number: int
    look: Look | None
    trouble: str = ""
    hint: str = ""


class Watch:
    """Looks at one run for as long as somebody watches it."""

    def __init__(self, ledger: Ledger, url: str, name: str, ended: asyncio.Event) -> None:
        self.watchers, self._ended = 0, ended
        self._lookout, self._url = Lookout(ledger, name), url
        self._latest: Seen | None = None
        self._fresh = asyncio.Event()
        self._task = asyncio.ensure_future(self._go())

    async def after(self, number: int, seconds: float) -> Seen | None:
        """The latest look once it is newer than that number; None when none comes in time."""
        if self._latest is None or self._latest.number <= number:
            waits = [asyncio.ensure_future(one.wait()) for one in (self._fresh, self._ended)]
            await asyncio.wait(
                {self._task, *waits}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for one in waits:
                one.cancel()
            if self._task.done():
                self._task.result()
        latest = self._latest
        return latest if latest is not None and latest.number > number else None

    def end(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def _go(self) -> None:
        number = 0
        while True:
            number, began = number + 1, time.monotonic()
            self._latest = await asyncio.to_thread(self._look, number)
            self._fresh.set()
            self._fresh = asyncio.Event()
            took = time.monotonic() - began
            await asyncio.sleep(max(LOOK_SECONDS - took, took * (1 / SHARE - 1)))

    def _look(self, number: int) -> Seen:
        try:
            with mongo.explained(self._url):
                return Seen(number, self._lookout.look())
        except MongosplitError as error:
            return Seen(number, None, error.message, error.hint)


class Watches:
    """The watches by the name of what is watched; each ends when nobody does any more.

    `ended` is set when everybody is to leave.
    """

    def __init__(self, ledger: Ledger, url: str) -> None:
        self.ended = asyncio.Event()
        self._ledger, self._url = ledger, url
        self._by_name: dict[str, Watch] = {}

    @contextmanager
    def watched(self, name: str) -> Iterator[Watch]:
        """Watch a run meanwhile."""
        watch = self._by_name.get(name)
        if watch is None:
            watch = self._by_name[name] = Watch(self._ledger, self._url, name, self.ended)
        watch.watchers += 1
        try:
            yield watch
        finally:
            watch.watchers -= 1
            if not watch.watchers:
                watch.end()
                if self._by_name.get(name) is watch:
                    del self._by_name[name]

    async def end(self) -> None:
        """Let everybody leave; who has not left by then is cut off."""
        self.ended.set()
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._by_name and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def __len__(self) -> int:
        return len(self._by_name)
