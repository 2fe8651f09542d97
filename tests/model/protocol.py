"""The protocol as a model: data, application, operator and follower; what must hold.

Modelled: a source document, a base part and an optional second part for each id; one ledger row for
each chunk; one dirty row for each id; the log of source writes from the follower's saved token on;
any number of deliveries of every message (a worker may begin whatever its ledger row allows, any
time, again); concurrent copies and syncs; conflicts; plain writes that wait; crashes at every step,
also between a commit and its acknowledgement; slow workers (every interleaving).

Not modelled: an election (the log is what a majority has), chunks that are divided, documents that
the targets refuse, adoption, pre-images, claims, cutover. Time: that somebody wins a conflict is
argued in docs/architecture.md; here only that no state is a dead end.

The fence and the stamps have no numbers here: an increment is a write that always counts, and what
a worker remembers of a stamp is only whether the row still carries it. Both make equal what the
protocol cannot tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tests.model import copy_and_rollback, outside, sync, verifier, workers
from tests.model.safeguards import DURABLE_FIRST, STAMP_UNIQUE, START_FIRST
from tests.model.states import (
    COPY,
    CRASHES,
    DERIVED,
    FOLLOWS,
    IN_FORCE,
    KINDS,
    LATE,
    PENDING,
    ROLLBACK,
    STATES,
    SYNC,
    VERIFY,
    Row,
    State,
    Step,
    Variant,
)
from tests.model.store import AT, KIND, Store, Txn, bits, commit, held, plain


class Protocol:
    """The protocol within the bounds of a variant."""

    def __init__(self, variant: Variant) -> None:
        self.variant, self.off = variant, variant.off
        self.moves: workers.Moves = {**copy_and_rollback.MOVES, **sync.MOVES}
        count = len(variant.source)
        self.ids, self.chunks = range(count), range(max(variant.chunk_of) + 1)
        self.first, self.second, self.dirty, self.row = (count * n for n in range(1, 5))
        self.of_chunk = [[i for i in self.ids if variant.chunk_of[i] == c] for c in self.chunks]

    def initial(self) -> State:
        """Nothing is copied; the follower's position is taken."""
        its = self.variant
        rows = [Row(PENDING, 0, 0, 1) for _ in self.chunks]
        store = (*its.source, *[0] * (3 * len(self.ids)), *rows)
        counts = (its.copies, its.syncs, int(its.rollbacks > 0), int(its.verifies > 0))
        procs = [(kind, 0, (), ()) for kind in (COPY, SYNC, ROLLBACK, VERIFY)]
        workers_ = tuple(p for p, count in zip(procs, counts, strict=True) for _ in range(count))
        left = (its.ops, its.crashes, its.rollbacks, its.agains, its.verifies, its.foreigns)
        doing = LATE if START_FIRST in self.off else FOLLOWS
        return State(store, (), 0, doing, workers_, left, 0, "")

    def canonical(self, state: State) -> State:
        """Workers of one kind are interchangeable."""
        procs = state.procs
        if all(one <= other for one, other in pairwise(procs)):
            return state
        return state._replace(procs=tuple(sorted(procs)))

    def is_quiescent(self, state: State) -> bool:
        """Log consumed, nothing dirty, nobody in flight, nothing asked that is not done."""
        rows = self.rows(state)
        return (
            not state.log
            and state.doing == FOLLOWS
            and not any(state.store[self.dirty : self.row])
            and all(proc[AT] == 0 for proc in state.procs)
            and all(row.state != PENDING and not row.undo for row in rows)
        )

    def fault(self, state: State) -> str:
        """What does not hold here, in words."""
        if state.fault:
            return state.fault
        if self.is_quiescent(state):
            return self._wrong_part(state) or self._unasked(state)
        # With every safeguard on, state and data change together: no need to wait for quiescence.
        return "" if self.off else self._wrong_part(state, only_undone=True)

    def _wrong_part(self, state: State, *, only_undone: bool = False) -> str:
        store = state.store
        for i, c in enumerate(self.variant.chunk_of):
            applied = store[self.row + c].state in IN_FORCE
            if state.tampered >> i & 1 or (applied and only_undone):
                continue
            expected, found = self.expected(store, i), self.parts(store, i)
            if expected != found:
                said = f"chunk {c} is {STATES[store[self.row + c].state]}, source is {store[i]}"
                return f"id {i}: {said}: targets should be {expected} and are {found}"
        return ""

    def _unasked(self, state: State) -> str:
        for c in self.chunks:
            row = state.store[self.row + c]
            if row.state in IN_FORCE and not row.wanted:
                return f"chunk {c} was rolled back, nobody asked for it again, and it is applied"
        return ""

    def rows(self, state: State) -> tuple[Row, ...]:
        """The ledger rows as they stand."""
        return state.store[self.row : self.row + len(self.chunks)]

    def sees(self, rows: list[int], ids: list[int]) -> int:
        """The keys that a transaction about these rows and ids may look at, as bits."""
        return bits([*rows, *ids, *(at + i for i in ids for at in (self.first, self.second))])

    def parts(self, store: Store, i: int) -> tuple[int, int]:
        """The two parts of an id as they stand."""
        return store[self.first + i], store[self.second + i]

    def expected(self, store: Store, i: int) -> tuple[int, int]:
        """The two parts that the committed source and state ask for."""
        applied = store[self.row + self.variant.chunk_of[i]].state in IN_FORCE
        return DERIVED[store[i]] if applied else (0, 0)

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        yield from outside.steps(self, state)
        yield from self._follower(state)
        for number, proc in enumerate(state.procs):
            if proc in state.procs[:number]:
                continue  # what it can do, its equal has done
            if proc[AT] and state.left[CRASHES]:
                idle = self.at(self.spent(state, CRASHES), number, 0)
                yield (KINDS[proc[KIND]], number, "crash"), idle
            if proc[KIND] == VERIFY:
                yield from verifier.steps(self, state, number)
            else:
                yield from workers.steps(self, state, number)

    def _follower(self, state: State) -> Iterator[Step]:
        log, marked, doing = state.log, state.marked, state.doing
        if doing == LATE:
            if any(row.state in IN_FORCE for row in self.rows(state)):
                yield ("follower", "start"), state._replace(doing=FOLLOWS, log=())
        elif DURABLE_FIRST in self.off:
            yield from self._token_first(state)
        else:
            if marked < len(log) and (after := self._mark(state, log[marked])):
                after = after._replace(marked=marked + 1)
                # Without a crash to come, when the token is saved makes no difference to sync.
                merged = not state.left[CRASHES] and not marked
                yield ("follower", "mark", log[marked]), self._saved(after) if merged else after
            if marked:
                yield ("follower", "save"), self._saved(state)
                if state.left[CRASHES]:
                    yield ("follower", "crash"), self.spent(state, CRASHES)._replace(marked=0)

    def _token_first(self, state: State) -> Iterator[Step]:
        if state.doing != FOLLOWS:
            if after := self._mark(state, state.doing - 1):
                yield ("follower", "mark", state.doing - 1), after._replace(doing=FOLLOWS)
            if state.left[CRASHES]:
                yield ("follower", "crash"), self.spent(state, CRASHES)._replace(doing=FOLLOWS)
        elif state.log:
            after = self._saved(state._replace(marked=1))
            yield ("follower", "save"), after._replace(doing=1 + state.log[0])

    def _mark(self, state: State, i: int) -> State | None:
        count = state.store[self.dirty + i] + 1 if STAMP_UNIQUE in self.off else 1
        if held(state.procs) >> (self.dirty + i) & 1:
            return None
        store, procs = commit(state.store, state.procs, ((self.dirty + i, count),))
        return self.noticed(state._replace(store=store, procs=procs), [self.dirty + i])

    def _saved(self, state: State) -> State:
        procs = tuple(verifier.passed(proc, state.marked) for proc in state.procs)
        return state._replace(log=state.log[state.marked :], marked=0, procs=procs)

    def at(
        self, state: State, number: int, where: int, txn: Txn = (), memory: tuple[Any, ...] = ()
    ) -> State:
        """The state with one process elsewhere."""
        procs = state.procs
        moved = (procs[number][KIND], where, txn, memory)
        return state._replace(procs=(*procs[:number], moved, *procs[number + 1 :]))

    def spent(self, state: State, what: int) -> State:
        """The state with one less left of what is bounded."""
        left = state.left
        return state._replace(left=(*left[:what], left[what] - 1, *left[what + 1 :]))

    def committed(
        self, state: State, number: int, txn: Txn, where: int, memory: tuple[Any, ...] = ()
    ) -> State:
        """The state after the process's transaction, which ends with it."""
        store, procs = commit(state.store, state.procs, txn[2], number)
        after = state._replace(store=store, procs=procs)
        return self.noticed(self.at(after, number, where, (), memory), [k for k, _ in txn[2]])

    def wrote(self, state: State, writes: tuple[tuple[int, Any], ...]) -> State | None:
        """The state after plain writes; None when one has to wait."""
        found = plain(state.store, state.procs, writes)
        if found is None:
            return None
        changed = [key for key, value in writes if state.store[key] != value]
        return self.noticed(state._replace(store=found[0], procs=found[1]), changed)

    def noticed(self, state: State, keys: list[int]) -> State:
        """What processes remember, and who is blamed, after these keys were committed."""
        marks = {key - self.dirty for key in keys if self.dirty <= key < self.row}
        if STAMP_UNIQUE in self.off:
            marks = set()
        if not marks and not self.variant.verifies:
            return state
        data = bits(key % len(self.ids) for key in keys if key < self.dirty)
        sources = bits(key for key in keys if key < self.first)
        tampered = state.tampered & ~data
        procs = tuple(
            workers.forgets(proc, marks)
            if proc[KIND] == SYNC and marks
            else verifier.notices(proc, sources, tampered)
            for proc in state.procs
        )
        return state._replace(procs=procs, tampered=tampered)
