"""Trespass: a trace that ends in harm without a safeguard, tried on the real functions.

The real functions have the safeguard, so somewhere on the way they do something else: they find the
fence busy, do nothing, or leave a dirty row. Whoever has ended is past the rest of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mongosplit.errors import FenceBusy
from mongosplit.follow import Follower
from mongosplit.ledger import dirty, followers
from mongosplit.ledger.claims import Attempt
from mongosplit.model import APPLIED, Outcome
from mongosplit.open_run import OpenRun
from mongosplit.sync import sync_chunks
from tests.chaos.steps import Killed, worker
from tests.chaos.walk import Walk
from tests.conditions import until
from tests.integration.conftest import oid
from tests.model.search import Label


class Trespass(Walk):
    """One trace; `told` is what each worker came to, in order."""

    def __init__(self, at: OpenRun, labels: Sequence[Label]) -> None:
        super().__init__(at, labels, split=False, crashes=False)
        self.told: list[str] = []
        self.mismatches = 0

    def step(self, label: Label) -> None:
        """Try one step."""
        kind, *rest = label
        self.reached += 1
        if kind in ("app", "foreign", "ask"):
            super().step(label)
            self.reached -= 1
        elif kind == "follower":
            self._followed(*rest)
        elif rest[1] in ("begin", "look") and kind != "sync":
            self._started(kind, rest[0], rest[2])
        elif rest[1] == "take":
            self._take(kind, rest[0], rest[2])
            if "skip" in rest:
                self._on(rest[0])
        elif rest[1] in ("begin", "commit", "clear", "look again", "record"):
            self._on(rest[0], looks=rest[1] == "look again")
        else:
            assert rest[1] in ("passed", "not dirty"), label

    def _followed(self, what: str, _: int = -1) -> None:
        if what == "mark":
            until(self.follower.heartbeat, what="the event does not come")
        elif what == "save":
            self._killed_after_the_first_write()

    def _killed_after_the_first_write(self) -> None:
        """The follower dies as soon as anything of an event is written, be it mark or position."""

        def dies(real: Any) -> Any:
            def writes(*arguments: Any, **named: Any) -> Any:
                if real(*arguments, **named) and named.get("events", 1):
                    raise Killed
                return 0

            return writes

        follower = Follower(self.at, "f1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dirty, "mark", dies(dirty.mark))
            patch.setattr(followers, "reach", dies(followers.reach))
            with pytest.raises(Killed):
                until(lambda: follower.step(50))

    def _started(self, kind: str, n: int, c: int) -> None:
        followers.take(self.at.ledger, self.at.run.id, "f1")
        one = self.workers[n] = worker(self.at, kind, c + 1)
        one.begin()
        self._ended(n)

    def _on(self, n: int, *, looks: bool = False) -> None:
        one = self.workers.get(n)
        if one is None or (looks and one.where != "wait"):
            return
        one.go()
        self._ended(n)

    def _ended(self, n: int) -> None:
        one = self.workers[n]
        if one.where:
            return
        del self.workers[n]
        if isinstance(one.error, FenceBusy):
            self.told.append(f"{one.kind}: busy")
            return
        assert one.error is None, one.error
        assert isinstance(one.outcome, Outcome)
        self.mismatches += one.outcome.mismatches if one.kind == "verify" else 0
        left = one.kind == "sync" and self.dirty()
        self.told.append(f"{one.kind}: {one.outcome.did}{', still dirty' if left else ''}")

    def settle(self) -> None:
        """Everybody comes to the end; the log is read, and what is dirty is derived."""
        while waiting := [n for n, one in self.workers.items() if one.kind != "verify"]:
            self._on(waiting[0])
        end = self.at.client.admin.command("ping")["operationTime"]

        def read() -> bool:
            self.follower.heartbeat()
            found = followers.get(self.at.ledger, self.at.run.id)
            return found is not None and found.reached > end

        until(read)
        attempt = Attempt("settling@here", most=10_000)
        until(lambda: sync_chunks(self.at, 0, 1, attempt) and not self.dirty())
        while self.workers:
            self.follower.heartbeat()
            self._on(next(iter(self.workers)))

    def harm(self, chunk_of: Sequence[int]) -> str:
        """What is wrong now that everybody rests; empty when nothing is."""
        if wrong := self.wrong(range(1, max(chunk_of) + 2)):
            return f"parts of {wrong} are not what they should be"
        for i, c in enumerate(chunk_of):
            row = self.at.ledger["chunks"].find_one({"n": c + 1}) or {}
            if row["state"] not in APPLIED and self.parts(i) != (0, 0):
                return f"{oid(i + 1)} is in no applied chunk and has parts"
        return ""
