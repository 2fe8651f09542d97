"""What a state of the model is made of, and the bounds within which it is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tests.model.search import Label
from tests.model.store import Proc, Store

DERIVED = {0: (0, 0), 1: (1, 0), 2: (2, 2), 3: (1, 3)}
"""A source value to its parts: no user, a user, one with a second part, one whose base is 1's."""
FOREIGN = 9
PENDING, APPLIED, VERIFIED, UNDONE = range(4)
STATES = ("pending", "applied", "verified", "rolled back")
IN_FORCE = (APPLIED, VERIFIED)
COPY, SYNC, ROLLBACK, VERIFY = range(4)
KINDS = ("copy", "sync", "rollback", "verify")
OPS, CRASHES, ROLLBACKS, AGAINS, VERIFIES, FOREIGNS = range(6)
FOLLOWS, LATE = 0, 99

Step = tuple[Label, "State"]


class Row(NamedTuple):
    """The ledger row of a chunk; `wanted` says that somebody asked for its migration."""

    state: int
    undo: int
    written: int
    wanted: int


class State(NamedTuple):
    """Everything there is at one moment."""

    store: Store
    log: tuple[int, ...]
    """The ids written, from the saved token on."""
    marked: int
    """How many of these the follower has marked dirty."""
    doing: int
    """FOLLOWS, LATE (has not started), or 1 + an id whose token is saved before its mark."""
    procs: tuple[Proc, ...]
    left: tuple[int, ...]
    """How often something may still happen: OPS, CRASHES, ROLLBACKS, AGAINS, VERIFIES, FOREIGNS."""
    tampered: int
    """Ids with a part that a foreign writer changed and nobody wrote since, as bits."""
    fault: str


@dataclass(frozen=True)
class Variant:
    """Bounds, and the safeguards that are switched off."""

    source: tuple[int, ...] = (1, 0)
    chunk_of: tuple[int, ...] = (0, 0)
    values: tuple[int, ...] = (0, 1, 2)
    copies: int = 2
    syncs: int = 2
    ops: int = 2
    crashes: int = 0
    rollbacks: int = 0
    agains: int = 0
    verifies: int = 0
    foreigns: int = 0
    widest: int = 99
    """How many ids sync may take into its transaction because they hold a key."""
    off: frozenset[str] = frozenset()
    split: bool = False
    """Writing the parts and committing are two steps."""
