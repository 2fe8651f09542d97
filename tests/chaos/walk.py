"""Walk: a schedule of the model carried out step by step by the real functions on a real mongod."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mongosplit.errors import FenceBusy, MongosplitError, TransientError
from mongosplit.ledger import asks, chunks, followers
from mongosplit.migrate import migrate_chunk
from mongosplit.model import APPLIED, ChunkState
from mongosplit.open_run import OpenRun
from mongosplit.rollback import rollback_chunk
from tests.chaos.stand import UNDONE, Stand, written
from tests.chaos.steps import Attempt, SteppedFollower, Worker, worker
from tests.integration.conftest import oid
from tests.model.schedules import Action, Rest
from tests.model.search import Label


class Walk(Stand):
    """One schedule: who is at work, and what the real functions came to."""

    def __init__(self, at: OpenRun, labels: Sequence[Label], *, split: bool, crashes: bool) -> None:
        super().__init__(at)
        self.labels, self.split, self.crashes = labels, split, crashes
        self.follower = SteppedFollower(at)
        self.workers: dict[int, Worker] = {}
        self.reached = 0
        self.unsaved = 0
        self.log: list[int] = []
        self.probes: list[str] = []

    def close(self) -> None:
        """Let everybody die who is still at work."""
        for one in self.workers.values():
            one.kill()
        self.follower.close()

    def step(self, label: Label) -> None:
        """Carry one step out, and see that it is the step that the model means."""
        kind, *rest = label
        if kind in ("app", "foreign", "ask"):
            getattr(self, f"_{kind}")(*rest)
        elif kind == "follower":
            self._follow(*rest)
        elif rest[1] == "crash":
            self.workers.pop(rest[0]).kill()
        else:
            getattr(self, f"_{rest[1].replace(' ', '_')}")(kind, rest[0], *rest[2:])
        self.reached += 1

    def _app(self, i: int, value: int) -> None:
        written(self.at, i, value)
        self.log.append(i)

    def _foreign(self, i: int, value: int) -> None:
        if value:
            change = {"$set": {"username": f"foreign-{i}"}}
            done: Any = self.at.data.base_users.update_one({"_id": oid(i + 1)}, change)
            assert done.modified_count == 1
        else:
            assert self.at.data.base_users.delete_one({"_id": oid(i + 1)}).deleted_count == 1

    def _ask(self, what: str, c: int) -> None:
        ledger, run, where = self.at.ledger, self.at.run.id, {"n": c + 1}
        if what == "rollback":
            asked = asks.undo(ledger, run, where, on_change="keep", actor="a test")
        else:
            asked = asks.reopen(ledger, run, ChunkState.ROLLED_BACK, where, actor="a test")
        assert asked == 1

    def _follow(self, what: str, i: int = -1) -> None:
        if what == "mark":
            # Whether the model has saved with the mark shows in whether it saves or crashes later.
            assert self.follower.mark(save=not self._held_back()) == {oid(i + 1)}
        else:
            getattr(self.follower, what)()

    def _held_back(self) -> bool:
        """Whether a save or a crash of the follower comes before its next mark saves by itself."""
        following = [one for one in self.labels[self.reached + 1 :] if one[0] == "follower"]
        return next((one[1] != "mark" for one in following if one[1] != "mark"), False)

    def _begin(self, kind: str, n: int, c: int = -1) -> None:
        if kind == "sync":
            assert self.workers[n].go() == "inside", self._came_to(n)
            return
        assert n not in self.workers
        self.workers[n] = worker(self.at, kind, c + 1, split=self.split)
        assert self.workers[n].begin() == "inside", self._came_to(n)

    def _take(self, kind: str, n: int, ids: tuple[int, ...]) -> None:
        self.workers[n] = worker(self.at, kind, 0, split=self.split)
        self.workers[n].ids = frozenset(oid(i + 1) for i in ids)
        assert self.workers[n].begin() == "taken"

    def _narrow(self, _: str, n: int, c: int) -> None:
        one = self.workers[n]
        one.only = c + 1
        assert one.go() == "narrowed", self._came_to(n)

    def _write(self, _: str, n: int) -> None:
        assert self.workers[n].go() == "commit", self._came_to(n)

    def _commit(self, kind: str, n: int) -> None:
        one = self.workers[n]
        where = one.go()
        if kind != "sync":
            assert where == "", self._came_to(n)
            done = self.workers.pop(n).outcome
            assert done is not None, one.error
            assert done.did == {"copy": "migrated", "rollback": "rolled back"}[kind]
            return
        assert where == "clear", self._came_to(n)
        if self._next_of(kind, n) not in ("clear", "crash"):
            # Nothing it remembers is still so: its delete finds nothing, whenever it comes.
            self._clear(kind, n, ())

    def _clear(self, _: str, n: int, ids: tuple[int, ...]) -> None:
        one, before = self.workers.pop(n), self.dirty()
        assert one.go() == "", self._came_to(n, one)
        assert one.error is None, one.error
        assert before - self.dirty() == {oid(i + 1) for i in ids}

    def _conflict(self, _: str, n: int) -> None:
        one = self.workers.pop(n)
        where = one.go()
        while where:  # a sync that met somebody goes on with the rest of its work
            where = one.go()
        busy = one.kind == "sync" and one.outcome is not None
        assert busy or isinstance(one.error, MongosplitError), (one.outcome, one.error)

    def _look(self, kind: str, n: int, c: int) -> None:
        followers.take(self.at.ledger, self.at.run.id, "f1")  # verify asks whether anybody follows
        self.workers[n] = worker(self.at, kind, c + 1)
        assert self.workers[n].begin() in ("wait", "record"), self._came_to(n)
        self._look_ends(n)

    def _look_again(self, _: str, n: int) -> None:
        one = self.workers[n]
        followers.take(self.at.ledger, self.at.run.id, "f1")
        # Of a chunk that was copied again the real one knows already that it starts over.
        assert one.where in ("wait", "record")
        if one.where == "wait":
            one.go()
        self._look_ends(n)

    def _look_ends(self, n: int) -> None:
        """The real look ends as the model's; one more where the position is at the very write."""
        one, following = self.workers[n], self._next_of("verify", n)
        waits = following in ("passed", "not dirty", "look again")
        for _ in range(5):
            if waits or one.where != "wait":
                break
            if not self.log_is_read():
                break
            self.follower.heartbeat()
            one.go()
        if waits and one.where == "wait":
            return
        if following in ("record", "starts over"):
            assert one.where == "record", self._came_to(n)
        elif not waits and following != "crash":
            assert one.where == "record", self._came_to(n)
            if self.workers.pop(n).go():
                one.kill()  # copied again since, it starts over and tells nothing of the old copy
                return
            if isinstance(one.error, TransientError):
                return  # what it found is written in the row, too, which somebody holds
            assert one.outcome is not None, one.error
            assert one.outcome.mismatches > 0, "the model has found a mismatch"

    def _passed(self, _: str, n: int) -> None:
        assert self.workers[n].where in ("wait", "record")

    _not_dirty = _passed

    def _record(self, _: str, n: int) -> None:
        one = self.workers.pop(n)
        assert one.go() == "", self._came_to(n, one)
        assert one.outcome is not None, one.error
        assert one.outcome.did == "verified"

    def _starts_over(self, _: str, n: int) -> None:
        one = self.workers.pop(n)
        assert one.go() in ("wait", "record"), self._came_to(n, one)
        one.kill()

    def log_is_read(self) -> bool:
        """Whether the schedule has the follower read every write so far."""
        marks = [one for one in self.labels[: self.reached + 1] if one[:2] == ("follower", "mark")]
        return not self.crashes and len(marks) == len(self.log)

    def _next_of(self, kind: str, n: int) -> str:
        later = (one for one in self.labels[self.reached + 1 :] if one[:2] == (kind, n))
        return next((str(one[2]) for one in later), "")

    def _came_to(self, n: int, one: Worker | None = None) -> str:
        one = one or self.workers[n]
        return f"{one.kind} {n} stands at {one.where!r}: {one.outcome} {one.error!r}"

    def probe(self, chance: random.Random, chunk_count: int) -> None:
        """What the model does not offer is refused: a copy or a rollback that is not its turn."""
        n = chance.randint(1, chunk_count)
        chunk = chunks.get(self.at.ledger, self.at.run.id, n)
        busy = any(n in one.held for one in self.workers.values())
        for work, wanted in (
            (migrate_chunk, chunk.state is ChunkState.PENDING),
            (rollback_chunk, chunk.undo is not None and chunk.state in APPLIED),
        ):
            if wanted and not busy:
                continue
            try:
                done = work(self.at, n, Attempt("probe@here", most=10_000)).did
            except FenceBusy:
                done = "busy"
            assert done == ("busy" if wanted else "nothing")
            self.probes.append(done)

    def compare(self, rest: Rest) -> None:
        """What stands is what the model says."""
        assert self.dirty() == set()
        found = [self.parts(i) for i in range(len(rest.sources))]
        assert found == list(rest.parts)
        for c, state in enumerate(rest.states):
            chunk = chunks.get(self.at.ledger, self.at.run.id, c + 1)
            assert (chunk.state is ChunkState.ROLLED_BACK) == (state == UNDONE)
            assert chunk.undo is None


def carried_out(walk: Walk, actions: Sequence[Action], chance: random.Random, n: int) -> int:
    """Carry a schedule out, comparing at each rest; how many rests there were."""
    rests = 0
    for action in actions:
        walk.step(action.label)
        if chance.random() < 0.15:
            walk.probe(chance, n)
        if action.rest is not None:
            walk.compare(action.rest)
            rests += 1
    return rests
