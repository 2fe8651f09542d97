"""The two processes about whole chunks, step by step: copy and rollback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.model import safeguards as safe
from tests.model import states as the
from tests.model.store import MEMORY, Txn, begin, bits, held, put, read
from tests.model.workers import (
    AFTER,
    IDLE,
    INSIDE,
    Moves,
    applied,
    finish,
    label,
    parts_of,
    put_all,
    undone,
    wanted,
)

if TYPE_CHECKING:
    from tests.model.protocol import Protocol
    from tests.model.states import State, Step


def _copy_begin(model: Protocol, state: State, number: int) -> Iterator[Step]:
    for c in model.chunks:
        row = model.row + c
        if state.store[row].state != the.PENDING:
            continue
        ids = model.of_chunk[c]
        txn: Txn | None = begin(model.sees([row], ids))
        if safe.FENCE_COPY not in model.off and safe.COPY_FIRST not in model.off:
            others = held(state.procs, number)
            txn = put(state.store, txn, row, state.store[row], others, always=True)
        if txn:
            named = label(model, state, number, "begin", c)
            yield named, model.at(state, number, INSIDE, txn, (c,))


def _copy_work(model: Protocol, state: State, number: int) -> Iterator[Step]:
    _, _, txn, (c,) = state.procs[number]
    store, row = state.store, model.row + c
    derived = [part for i in model.of_chunk[c] for part in wanted(model, i, read(store, txn, i))]
    writes = [(key, value) for key, value in derived if value]
    if any(read(store, txn, key) for key, _ in writes):
        yield label(model, state, number, "duplicate"), model.at(state, number, IDLE)
        return
    if safe.FENCE_COPY not in model.off:
        writes.append((row, applied(model, read(store, txn, row))))
    yield finish(model, state, number, put_all(model, state, number, txn, tuple(writes)))


def _copy_after(model: Protocol, state: State, number: int) -> Iterator[Step]:
    row = model.row + state.procs[number][MEMORY][0]
    after = model.wrote(state, ((row, applied(model, state.store[row])),))
    if after:
        yield label(model, state, number, "record"), model.at(after, number, IDLE)


def _rollback_begin(model: Protocol, state: State, number: int) -> Iterator[Step]:
    for c in model.chunks:
        row, ids = model.row + c, model.of_chunk[c]
        if not (state.store[row].undo and state.store[row].state in the.IN_FORCE):
            continue
        named = label(model, state, number, "begin", c)
        if safe.ROLLBACK_FENCE in model.off:
            gone = model.wrote(state, tuple((key, 0) for key in parts_of(model, ids)))
            if gone:
                yield (*named, "delete"), model.at(gone, number, AFTER, (), (c,))
            continue
        others = held(state.procs, number)
        txn = begin(model.sees([row], []) | bits(parts_of(model, ids)))
        fenced = put(state.store, txn, row, state.store[row], others, always=True)
        if fenced:
            yield named, model.at(state, number, INSIDE, fenced, (c,))


def _rollback_work(model: Protocol, state: State, number: int) -> Iterator[Step]:
    _, _, txn, (c,) = state.procs[number]
    row = model.row + c
    deletes = [(key, 0) for key in parts_of(model, model.of_chunk[c])]
    writes = ((row, undone(model, read(state.store, txn, row))), *deletes)
    yield finish(model, state, number, put_all(model, state, number, txn, writes))


def _rollback_after(model: Protocol, state: State, number: int) -> Iterator[Step]:
    row = model.row + state.procs[number][MEMORY][0]
    if after := model.wrote(state, ((row, undone(model, state.store[row])),)):
        yield label(model, state, number, "record"), model.at(after, number, IDLE)


MOVES: Moves = {
    (the.COPY, IDLE): _copy_begin,
    (the.COPY, INSIDE): _copy_work,
    (the.COPY, AFTER): _copy_after,
    (the.ROLLBACK, IDLE): _rollback_begin,
    (the.ROLLBACK, INSIDE): _rollback_work,
    (the.ROLLBACK, AFTER): _rollback_after,
}
