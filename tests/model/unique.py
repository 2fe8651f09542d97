"""The second model: one target with a unique index, and the quarantine of who is held back by it.

A source value is a key, or 0 for no user; a part is the key it stands under. The index has an entry
for each key, so that two transactions about one key conflict as they do in the server. A quarantine
row says who holds the key (`held_by`). The follower, the ledger, fences and stamps are those of
`protocol.py`; a dirty row may now also be written inside a transaction, and then holds up whoever
writes it plainly.

- sync: what differs is deleted, then what is missing is inserted. A key that somebody outside the
  transaction holds: abort, and begin again with the holder and its chunk's fence (widen). A key
  that is still held: quarantine.
- copy: a key that is held: quarantine at once, and the id is marked dirty in the same transaction,
  since copy has no fence of the holder's chunk and cannot know whether the key is being freed. The
  same for a sync that may widen no further.
- sync and rollback mark dirty whoever is held by an id whose part they delete or change.

Not modelled here: verify, foreign writers, content beside the key, follower crashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.model import safeguards as safe
from tests.model import states as the
from tests.model.protocol import Protocol
from tests.model.states import State, Step, Variant
from tests.model.store import MEMORY, Txn, begin, bits, held, put, read
from tests.model.workers import INSIDE, TAKEN, Moves, applied, finish, label, rows_of, undone


class Conflict(Exception):
    """The transaction met another one."""


class Held(Exception):
    """A key is held by an id outside the transaction."""

    def __init__(self, holder: int) -> None:
        super().__init__(holder)
        self.holder = holder


class UniqueKeys(Protocol):
    """The protocol with one unique key; the second block of targets is the quarantine."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.quarantine = self.second
        self.index = self.row + len(self.chunks) - 1
        self.moves |= _MOVES

    def initial(self) -> State:
        """As before, with no key held."""
        first = super().initial()
        return first._replace(store=(*first.store, *[0] * max(self.variant.values)))

    def sees(self, rows: list[int], ids: list[int]) -> int:
        """The given rows and sources; of targets, index, quarantine and dirty rows, all."""
        whole = range(self.first, self.row)
        entries = range(self.index + 1, self.index + 1 + max(self.variant.values))
        return bits([*rows, *ids, *whole, *entries])

    def fault(self, state: State) -> str:
        """What does not hold here, in words."""
        if not self.is_quiescent(state):
            return ""
        return next(filter(None, (self._wrong(state.store, i) for i in self.ids)), "")

    def _wrong(self, store: tuple[Any, ...], i: int) -> str:
        source, part, by = store[i], store[self.first + i], store[self.quarantine + i]
        c = self.variant.chunk_of[i]
        wanted = source if store[self.row + c].state in the.IN_FORCE else 0
        if part == wanted and not by:
            return ""
        holder = store[self.index + wanted] if wanted else 0
        if not part and by and by == holder:
            return ""
        where = f"in quarantine, held by id {by - 1}" if by else "not in quarantine"
        really = f"id {holder - 1} has the key" if holder else "nobody has the key"
        return f"id {i}: should be under key {wanted}, is under {part}, {where}; {really}"


class _Work:
    """The reads and writes of one transaction."""

    def __init__(self, model: UniqueKeys, state: State, number: int) -> None:
        self.model, self.store = model, state.store
        self.others = held(state.procs, number)
        self.txn: Txn = state.procs[number][2]

    def see(self, key: int) -> Any:
        return read(self.store, self.txn, key)

    def write(self, key: int, value: Any, *, always: bool = False) -> None:
        after = put(self.store, self.txn, key, value, self.others, always=always)
        if after is None:
            raise Conflict
        self.txn = after

    def delete_part(self, i: int) -> bool:
        key = self.see(self.model.first + i)
        if key:
            self.write(self.model.first + i, 0)
            self.write(self.model.index + key, 0)
        return bool(key)

    def insert_part(self, i: int, key: int) -> int:
        """Insert the part; the id that holds the key, if it cannot be."""
        holder = self.see(self.model.index + key)
        if holder:
            return int(holder)
        self.write(self.model.first + i, key)
        self.write(self.model.index + key, i + 1)
        return 0

    def hold_back(self, i: int, by: int) -> None:
        self.write(self.model.quarantine + i, by)

    def mark(self, i: int) -> None:
        self.write(self.model.dirty + i, 1, always=True)

    def mark_unfenced(self, i: int) -> None:
        if safe.COPY_MARKS not in self.model.off:
            self.mark(i)

    def mark_held_by(self, freed: list[int]) -> None:
        if safe.MARK_HELD not in self.model.off:
            for i in self.model.ids:
                if self.see(self.model.quarantine + i) - 1 in freed:
                    self.mark(i)


def _copy_work(model: Any, state: State, number: int) -> Iterator[Step]:
    work, (c,) = _Work(model, state, number), state.procs[number][MEMORY]
    try:
        for i in model.of_chunk[c]:
            key = work.see(i)
            if key and (holder := work.insert_part(i, key)):
                work.hold_back(i, holder)
                work.mark_unfenced(i)
        work.write(model.row + c, applied(model, work.see(model.row + c)))
    except Conflict:
        yield finish(model, state, number, None)
    else:
        yield finish(model, state, number, work.txn)


def _sync_begin(model: Any, state: State, number: int) -> Iterator[Step]:
    taken, wider = memory = state.procs[number][MEMORY]
    ids = [i for i, _ in taken] + list(wider)
    fenced = [i for i, _ in taken] if safe.WIDEN_FENCE in model.off else ids
    others = held(state.procs, number)
    txn: Txn | None = begin(model.sees(rows_of(model, ids), ids))
    for row in rows_of(model, fenced):
        if txn:
            txn = put(state.store, txn, row, state.store[row], others, always=True)
    if txn:
        yield label(model, state, number, "begin"), model.at(state, number, INSIDE, txn, memory)
    else:
        yield finish(model, state, number, None)


def _sync_work(model: Any, state: State, number: int) -> Iterator[Step]:
    work, (taken, wider) = _Work(model, state, number), state.procs[number][MEMORY]
    ids = sorted([i for i, _ in taken] + list(wider))
    rows = {i: work.see(model.row + model.variant.chunk_of[i]) for i in ids}
    try:
        may_widen = safe.WIDEN not in model.off and len(wider) < model.variant.widest
        _derive(work, [i for i in ids if rows[i].state in the.IN_FORCE], may_widen)
    except Conflict:
        yield finish(model, state, number, None)
    except Held as found:
        again = model.at(state, number, TAKEN, (), (taken, tuple(sorted([*wider, found.holder]))))
        yield label(model, state, number, "widen", found.holder), again
    else:
        yield finish(model, state, number, work.txn)


def _derive(work: _Work, ids: list[int], may_widen: bool) -> None:
    part, held_by = work.model.first, work.model.quarantine
    wrong = [i for i in ids if work.see(part + i) != work.see(i) or work.see(held_by + i)]
    freed = [i for i in wrong if work.delete_part(i)]
    for i in wrong:
        key = work.see(i)
        holder = work.insert_part(i, key) if key else 0
        outside = holder and holder - 1 not in ids
        if outside and may_widen:
            raise Held(holder - 1)
        work.hold_back(i, holder)
        if outside and safe.WIDEN not in work.model.off:
            work.mark_unfenced(i)
    work.mark_held_by(freed)


def _rollback_work(model: Any, state: State, number: int) -> Iterator[Step]:
    work, (c,) = _Work(model, state, number), state.procs[number][MEMORY]
    try:
        freed = [i for i in model.of_chunk[c] if work.delete_part(i)]
        for i in model.of_chunk[c]:
            work.hold_back(i, 0)
        work.mark_held_by(freed)
        work.write(model.row + c, undone(model, work.see(model.row + c)))
    except Conflict:
        yield finish(model, state, number, None)
    else:
        yield finish(model, state, number, work.txn)


_MOVES: Moves = {
    (the.COPY, INSIDE): _copy_work,
    (the.SYNC, TAKEN): _sync_begin,
    (the.SYNC, INSIDE): _sync_work,
    (the.ROLLBACK, INSIDE): _rollback_work,
}
