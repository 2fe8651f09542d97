"""Transactions of the model: a committed store, and snapshots as a replica set's primary has them.

Snapshot isolation as it was measured on mongod 6.0: reads come from the snapshot and the
transaction's own writes. A write conflicts when another open transaction holds an uncommitted write
of the key, or when the key was committed by someone else after the snapshot, a key that exists no
more included. A write that changes nothing writes nothing, so there is nothing to conflict with. A
plain write waits while a transaction holds the key.

A snapshot is kept as what has been overwritten since it was taken, of the keys that its transaction
may still look at: what nobody overwrote reads the same from the store. That is what keeps the
number of distinct states small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Store = tuple[Any, ...]
"""The committed value of each key, by the key's number."""
Pairs = tuple[tuple[int, Any], ...]
Txn = tuple[Any, ...]
"""`()` for none; else the keys it may look at as bits, values overwritten since, own writes."""
Proc = tuple[int, int, Txn, tuple[Any, ...]]
"""A process: its kind, where it stands (0 is idle), its transaction, what it remembers."""

KIND, AT, TXN, MEMORY = range(4)


def bits(keys: Iterable[int]) -> int:
    """The keys as one number."""
    mask = 0
    for key in keys:
        mask |= 1 << key
    return mask


def begin(keys: int) -> Txn:
    """A transaction with a snapshot of now, that may look at these keys."""
    return (keys, (), ())


def read(store: Store, txn: Txn, key: int) -> Any:
    """What the transaction sees."""
    for written, value in txn[2]:
        if written == key:
            return value
    for overwritten, value in txn[1]:
        if overwritten == key:
            return value
    return store[key]


def put(
    store: Store, txn: Txn, key: int, value: Any, held: int, *, always: bool = False
) -> Txn | None:
    """Write in the transaction; None for a conflict.

    `always` is for an increment: it changes the document though the model keeps no count.
    """
    own = any(written == key for written, _ in txn[2])
    if not own:
        if not always and read(store, txn, key) == value:
            return txn
        if held >> key & 1 or any(overwritten == key for overwritten, _ in txn[1]):
            return None
    kept = [pair for pair in txn[2] if pair[0] != key]
    return (txn[0], txn[1], tuple(sorted([*kept, (key, value)])))


def held(procs: tuple[Proc, ...], but: int = -1) -> int:
    """The keys with uncommitted writes, of all transactions but one, as bits."""
    mask = 0
    for number, proc in enumerate(procs):
        if proc[TXN] and number != but:
            for key, _ in proc[TXN][2]:
                mask |= 1 << key
    return mask


def commit(
    store: Store, procs: tuple[Proc, ...], writes: Pairs, but: int = -1
) -> tuple[Store, tuple[Proc, ...]]:
    """The store with these writes, and every other open snapshot told what it keeps of before."""
    after = list(store)
    for key, value in writes:
        after[key] = value
    told = tuple(
        _keeps(proc, store, writes) if proc[TXN] and number != but else proc
        for number, proc in enumerate(procs)
    )
    return tuple(after), told


def _keeps(proc: Proc, store: Store, writes: Pairs) -> Proc:
    mask, old, own = proc[TXN]
    known = {key for key, _ in old}
    new = [(key, store[key]) for key, _ in writes if mask >> key & 1 and key not in known]
    if not new:
        return proc
    return (proc[KIND], proc[AT], (mask, tuple(sorted([*old, *new])), own), proc[MEMORY])


def plain(
    store: Store, procs: tuple[Proc, ...], writes: Pairs
) -> tuple[Store, tuple[Proc, ...]] | None:
    """Writes outside any transaction; None when one of them has to wait."""
    real = tuple((key, value) for key, value in writes if store[key] != value)
    if held(procs) & bits([key for key, _ in writes]):
        return None
    return commit(store, procs, real)
