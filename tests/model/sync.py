"""The process about single ids, step by step: sync, over the dirty ids of any chunks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tests.model import safeguards as safe
from tests.model import states as the
from tests.model.store import MEMORY, Txn, begin, held, put, read
from tests.model.workers import (
    AFTER,
    IDLE,
    INSIDE,
    TAKEN,
    Moves,
    finish,
    label,
    parts_of,
    put_all,
    rows_of,
    to_clear,
    wanted,
)

if TYPE_CHECKING:
    from tests.model.protocol import Protocol
    from tests.model.states import State, Step


def _sync_take(model: Protocol, state: State, number: int) -> Iterator[Step]:
    store = state.store
    dirty = [i for i in model.ids if store[model.dirty + i]]
    for size in range(1, len(dirty) + 1):
        for ids in combinations(dirty, size):
            taken = tuple((i, store[model.dirty + i]) for i in ids)
            named = label(model, state, number, "take", ids)
            rows = rows_of(model, ids)
            if safe.FENCE_SKIP in model.off and all(store[r].state == the.PENDING for r in rows):
                where, kept = to_clear(model, taken)
                yield (*named, "skip"), model.at(state, number, where, (), kept)
            else:
                before = tuple((key, store[key]) for key in _read_before(model, ids, rows))
                yield named, model.at(state, number, TAKEN, (), (taken, before))


def _read_before(model: Protocol, ids: tuple[int, ...], rows: list[int]) -> list[int]:
    keys = list(ids) if safe.SOURCE_INSIDE in model.off else []
    keys += rows if safe.STATE_INSIDE in model.off else []
    return keys + (parts_of(model, ids) if safe.TARGETS_INSIDE in model.off else [])


def _sync_begin(model: Protocol, state: State, number: int) -> Iterator[Step]:
    taken, before = memory = state.procs[number][MEMORY]
    ids = [i for i, _ in taken]
    rows, others = rows_of(model, ids), held(state.procs, number)
    txn: Txn | None = begin(model.sees(rows, ids))
    for row in rows:
        if txn and safe.FENCE_SYNC not in model.off:
            counted = safe.FENCE_CHANGES not in model.off
            txn = put(state.store, txn, row, state.store[row], others, always=counted)
    if txn:
        yield label(model, state, number, "begin"), model.at(state, number, INSIDE, txn, memory)
        return
    for row in rows:
        if len(rows) > 1:
            c = row - model.row
            fewer = tuple((i, stamp) for i, stamp in taken if model.variant.chunk_of[i] == c)
            narrow = model.at(state, number, TAKEN, (), (fewer, before))
            yield label(model, state, number, "narrow", c), narrow


def _sync_work(model: Protocol, state: State, number: int) -> Iterator[Step]:
    _, _, txn, (taken, before) = state.procs[number]
    store, known = state.store, dict(before)

    def seen(key: int) -> Any:
        return known[key] if key in known else read(store, txn, key)

    writes = []
    for i, _ in taken:
        if seen(model.row + model.variant.chunk_of[i]).state in the.IN_FORCE:
            parts = wanted(model, i, seen(i))
            writes += [(key, value) for key, value in parts if seen(key) != value]
    yield finish(model, state, number, put_all(model, state, number, txn, tuple(writes)))


def _sync_clear(model: Protocol, state: State, number: int) -> Iterator[Step]:
    def goes(key: int, stamp: int) -> bool:
        return bool(state.store[key]) and (safe.STAMP in model.off or state.store[key] == stamp)

    rows = [(model.dirty + i, stamp) for i, stamp in state.procs[number][MEMORY][0]]
    deletes = tuple((key, 0) for key, stamp in rows if goes(key, stamp))
    after = model.wrote(model.at(state, number, IDLE), deletes)
    if after:
        ids = tuple(key - model.dirty for key, _ in deletes)
        yield label(model, state, number, "clear", ids), after


MOVES: Moves = {
    (the.SYNC, IDLE): _sync_take,
    (the.SYNC, TAKEN): _sync_begin,
    (the.SYNC, INSIDE): _sync_work,
    (the.SYNC, AFTER): _sync_clear,
}
