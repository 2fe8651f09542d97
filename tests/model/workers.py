"""What copy, sync and rollback have in common: how a worker ends its transaction.

Each is idle, or somewhere in its transaction, or past it. The step that reads and writes the parts
also commits, unless the variant splits them: what lies between adds only early conflicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tests.model import safeguards as safe
from tests.model import states as the
from tests.model.store import AT, KIND, MEMORY, TXN, Pairs, Proc, Txn, held, put

if TYPE_CHECKING:
    from tests.model.protocol import Protocol
    from tests.model.states import State, Step

IDLE, INSIDE, WRITTEN, AFTER, TAKEN = range(5)

Moves = dict[tuple[int, int], Callable[[Any, Any, int], Iterator[Any]]]
"""What a worker can do, by its kind and where it stands."""


def steps(model: Protocol, state: State, number: int) -> Iterator[Step]:
    """What this worker can do next."""
    kind, at = state.procs[number][KIND], state.procs[number][AT]
    if at == WRITTEN:
        yield _end(model, state, number)
        return
    yield from model.moves[kind, at](model, state, number)


def forgets(proc: Proc, marks: set[int]) -> Proc:
    """These dirty rows have another stamp now, or are gone: those remembered match no more."""
    if not proc[MEMORY]:
        return proc
    taken, before = proc[MEMORY]
    taken = tuple((i, 0 if i in marks else stamp) for i, stamp in taken)
    return (proc[KIND], proc[AT], proc[TXN], (taken, before))


def label(model: Protocol, state: State, number: int, *what: Any) -> tuple[Any, ...]:
    """The label of a step of this worker."""
    return (the.KINDS[state.procs[number][KIND]], number, *what)


def finish(model: Protocol, state: State, number: int, txn: Txn | None) -> Step:
    """The step after reading and writing: a conflict, the commit, or both writes and commit."""
    if txn is None:
        return label(model, state, number, "conflict"), model.at(state, number, IDLE)
    if model.variant.split:
        memory = state.procs[number][MEMORY]
        written = model.at(state, number, WRITTEN, txn, memory)
        return label(model, state, number, "write"), written
    return _end(model, model.at(state, number, WRITTEN, txn, state.procs[number][MEMORY]), number)


def _end(model: Protocol, state: State, number: int) -> Step:
    kind, _, txn, memory = state.procs[number]
    where, kept = IDLE, ()
    if kind == the.SYNC:
        where, kept = to_clear(model, memory[0])
    elif kind == the.COPY and safe.FENCE_COPY in model.off:
        where, kept = AFTER, memory
    done = model.committed(state, number, txn, where, kept)
    return label(model, state, number, "commit"), done


def put_all(model: Protocol, state: State, number: int, txn: Txn, writes: Pairs) -> Txn | None:
    """All these writes in the worker's transaction; None for a conflict."""
    others = held(state.procs, number)
    after: Txn | None = txn
    for key, value in writes:
        after = put(state.store, after, key, value, others) if after else None
    return after


def to_clear(model: Protocol, taken: Any) -> tuple[int, tuple[Any, ...]]:
    """Where sync stands after its commit: with dirty rows to delete, or idle again."""
    left = taken if safe.STAMP in model.off else tuple(one for one in taken if one[1])
    return (AFTER, (left, ())) if left else (IDLE, ())


def applied(model: Protocol, row: the.Row) -> the.Row:
    """The row after a copy."""
    return row._replace(state=the.APPLIED, written=row.written + _counts(model))


def _counts(model: Protocol) -> int:
    """`written` is counted only where somebody compares it."""
    return int(model.variant.verifies > 0)


def undone(model: Protocol, row: the.Row) -> the.Row:
    """The row after a rollback."""
    to = the.PENDING if safe.ROLLED_BACK in model.off else the.UNDONE
    return the.Row(to, 0, row.written + _counts(model), 0)


def rows_of(model: Protocol, ids: Any) -> list[int]:
    """The ledger rows of the chunks of these ids."""
    return [model.row + c for c in sorted({model.variant.chunk_of[i] for i in ids})]


def parts_of(model: Protocol, ids: Any) -> list[int]:
    """The keys of the parts of these ids."""
    return [key for i in ids for key in (model.first + i, model.second + i)]


def wanted(model: Protocol, i: int, source: int) -> tuple[tuple[int, int], ...]:
    """The parts of an id, by key, that this source value derives to."""
    first, second = the.DERIVED[source]
    return (model.first + i, first), (model.second + i, second)
