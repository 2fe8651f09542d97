"""The bounds that are searched: the protocol as it is, and without each of its safeguards."""

from __future__ import annotations

from typing import Any

from tests.model import safeguards as safe
from tests.model.states import Variant


def _without(safeguard: str, **bounds: Any) -> Variant:
    small: dict[str, Any] = {"copies": 1, "syncs": 1, "source": (1,), "chunk_of": (0,)}
    return Variant(**{**small, **bounds}, off=frozenset([safeguard]))


def _verify(**bounds: Any) -> Variant:
    return Variant(**{"copies": 1, "syncs": 1, "verifies": 1, **bounds})


_ONE: dict[str, Any] = {"source": (1,), "chunk_of": (0,)}
_TWO: dict[str, Any] = {"chunk_of": (0, 1)}
_THREE: dict[str, Any] = {"source": (1, 2, 0), "chunk_of": (0, 0, 1)}
_UNDO: dict[str, Any] = {"rollbacks": 1, "agains": 1}

HOLDS = {
    "one chunk, a crash": Variant(ops=2, crashes=1),
    "one chunk, three writes": Variant(ops=3, copies=1),
    "one chunk, undone and migrated again": Variant(ops=2, **_UNDO),
    "one id, undone and migrated again, a crash": Variant(ops=2, crashes=1, **_ONE, **_UNDO),
    "two chunks, undone and migrated again": Variant(ops=2, syncs=1, **_TWO, **_UNDO),
    "two chunks, two syncs": Variant(ops=2, **_TWO),
    "three ids": Variant(ops=2, **_THREE),
    "same base, another second part": Variant(ops=2, values=(0, 1, 3), source=(1, 3)),
    "verify": _verify(ops=2, syncs=2),
    "verify, a crash": _verify(ops=1, crashes=1),
    "verify, undone and migrated again": _verify(ops=2, **_UNDO),
    "verify, a foreign writer": _verify(ops=2, foreigns=1),
    "verify twice, a foreign writer": _verify(ops=1, verifies=2, foreigns=1, **_ONE, **_UNDO),
    "split steps": Variant(ops=2, split=True, **_UNDO),
}
"""With every safeguard, at bounds for every run of the tests."""

LARGER = {
    "one chunk, undone and migrated again, a crash": Variant(ops=2, crashes=1, **_UNDO),
    "one chunk, three writes, a crash": Variant(ops=3, crashes=1),
    "one chunk, three writes, undone": Variant(ops=3, **_UNDO),
    "one chunk, two crashes": Variant(ops=2, crashes=2),
    "one chunk, three writes, undone, a crash": Variant(ops=3, crashes=1, **_UNDO),
    "two chunks, everything": Variant(ops=2, crashes=1, **_TWO, **_UNDO),
    "three ids, three writes": Variant(ops=3, **_THREE),
    "three ids, a crash": Variant(ops=2, crashes=1, **_THREE),
    "three ids, undone and migrated again": Variant(ops=2, **_THREE, **_UNDO),
    "three copies, three syncs": Variant(copies=3, syncs=3, ops=2),
    "split steps, three writes": Variant(ops=3, split=True, **_UNDO),
    "verify, three writes": _verify(ops=3, **_UNDO),
    "verify, two chunks, a crash": _verify(ops=2, crashes=1, **_TWO),
    "verify twice, foreign writers": _verify(ops=2, verifies=2, foreigns=2),
}
"""With every safeguard, by hand."""

WITHOUT = {
    safe.FENCE_SYNC: _without(safe.FENCE_SYNC, ops=1),
    safe.FENCE_COPY: _without(safe.FENCE_COPY, ops=1),
    safe.FENCE_CHANGES: _without(safe.FENCE_CHANGES, ops=1),
    safe.FENCE_SKIP: _without(safe.FENCE_SKIP, ops=1),
    safe.SOURCE_INSIDE: _without(safe.SOURCE_INSIDE, syncs=2, ops=2),
    safe.STATE_INSIDE: _without(safe.STATE_INSIDE, ops=1),
    safe.TARGETS_INSIDE: _without(safe.TARGETS_INSIDE, ops=1),
    safe.STAMP: _without(safe.STAMP, ops=2),
    safe.STAMP_UNIQUE: _without(safe.STAMP_UNIQUE, syncs=2, ops=2),
    safe.DURABLE_FIRST: _without(safe.DURABLE_FIRST, ops=1, crashes=1),
    safe.START_FIRST: _without(safe.START_FIRST, ops=1),
    safe.ROLLED_BACK: _without(safe.ROLLED_BACK, ops=0, rollbacks=1),
    safe.ROLLBACK_FENCE: _without(safe.ROLLBACK_FENCE, ops=1, rollbacks=1),
    safe.VERIFY_WRITTEN: _without(safe.VERIFY_WRITTEN, ops=0, verifies=1, **_UNDO),
    safe.VERIFY_AGAIN: _without(safe.VERIFY_AGAIN, ops=1, verifies=1),
    safe.VERIFY_ASKS: _without(safe.VERIFY_ASKS, ops=2, verifies=1),
    safe.VERIFY_KEEPS: _without(safe.VERIFY_KEEPS, ops=2, verifies=1, foreigns=1),
    safe.VERIFY_ORDER: _without(safe.VERIFY_ORDER, ops=1, verifies=1),
    safe.VERIFY_STATE: _without(safe.VERIFY_STATE, ops=1, verifies=1, rollbacks=1),
}
"""Without one safeguard, at the smallest bounds at which its absence does harm."""

HARMLESS = {
    safe.COPY_FIRST: Variant(ops=2, syncs=1, off=frozenset([safe.COPY_FIRST])),
}
"""Without what only saves work."""

_SAME: dict[str, Any] = {"source": (1, 1), "chunk_of": (0, 0)}
_SAME_TWO: dict[str, Any] = {"source": (1, 1), "chunk_of": (0, 1)}
_SWAP: dict[str, Any] = {"source": (1, 2), "ops": 2}

UNIQUE_HOLDS = {
    "one chunk, swap": Variant(**_SWAP),
    "two chunks, swap": Variant(syncs=1, chunk_of=(0, 1), **_SWAP),
    "two chunks, two syncs": Variant(ops=1, **_SAME_TWO),
    "two chunks, undone and migrated again": Variant(ops=1, syncs=1, **_SAME_TWO, **_UNDO),
    "three ids": Variant(source=(1, 1, 2), chunk_of=(0, 0, 1), ops=1, copies=1),
}

UNIQUE_LARGER = {
    "two chunks, swap, two syncs": Variant(chunk_of=(0, 1), **_SWAP),
    "two chunks, two syncs, undone": Variant(ops=1, **_SAME_TWO, **_UNDO),
    "three ids, three chunks": Variant(source=(1, 1, 2), chunk_of=(0, 1, 2), ops=1, copies=2),
    "two chunks, swap, widened once": Variant(copies=1, chunk_of=(0, 1), widest=1, **_SWAP),
    "three ids, three chunks, widened once": Variant(
        source=(1, 1, 0), values=(0, 1), chunk_of=(0, 1, 2), ops=1, copies=1, widest=1
    ),
    "three writes, a crash": Variant(
        source=(1, 2), chunk_of=(0, 1), ops=3, copies=1, syncs=1, crashes=1
    ),
}

_SKEW: dict[str, Any] = {"source": (1, 0), "values": (0, 1), "chunk_of": (0, 1)}

UNIQUE_WITHOUT = {
    safe.COPY_MARKS: _without(safe.COPY_MARKS, ops=1, **_SAME_TWO),
    safe.MARK_HELD: _without(safe.MARK_HELD, ops=1, **_SAME),
    safe.WIDEN: _without(safe.WIDEN, syncs=2, ops=2, **_SKEW),
    safe.WIDEN_FENCE: _without(safe.WIDEN_FENCE, syncs=2, ops=2, **_SKEW),
}

NEVER_WIDENED = Variant(
    source=(1, 0), values=(0, 1), chunk_of=(0, 1), ops=1, copies=1, syncs=1, widest=0
)
"""Sync marks whom it holds back, like copy, instead of taking the holder's fence."""

UNIQUE_HARMLESS = {
    "a swap in one chunk, not widened": _without(safe.WIDEN, syncs=2, chunk_of=(0, 0), **_SWAP),
    "copy does not mark, one chunk": _without(safe.COPY_MARKS, ops=2, copies=2, syncs=2, **_SAME),
}
"""Without a safeguard that one fence makes up for: who holds a key is behind the same fence."""
