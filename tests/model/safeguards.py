"""The safeguards of the protocol that the model can switch off, each with what it says.

Names are constants, so that the protocol reads `if FENCE_SYNC in off`. What happens without one is
in `variants.py`: the smallest bounds at which its absence does harm.
"""

from __future__ import annotations

FENCE_SYNC = "sync takes the fence"
FENCE_COPY = "copy writes the ledger in its transaction"
COPY_FIRST = "copy takes the fence first"
FENCE_CHANGES = "the fence changes the row"
FENCE_SKIP = "a chunk is skipped under its fence"
SOURCE_INSIDE = "the source is read inside"
STATE_INSIDE = "the state is read inside"
TARGETS_INSIDE = "the targets are read inside"
STAMP = "dirty goes by stamp"
STAMP_UNIQUE = "stamps are unique"
DURABLE_FIRST = "dirty before token"
START_FIRST = "the follower starts first"
ROLLED_BACK = "rolled back is not pending"
ROLLBACK_FENCE = "rollback is one fenced transaction"
VERIFY_WRITTEN = "verify compares written"
VERIFY_AGAIN = "verify looks again"
VERIFY_ASKS = "verify asks the log"
VERIFY_KEEPS = "verify keeps what was written"
VERIFY_ORDER = "position before dirty"
VERIFY_STATE = "verify reads the state anew"
MARK_HELD = "who frees a key marks those held by it"
WIDEN = "sync widens"
WIDEN_FENCE = "sync widens with the fence"
COPY_MARKS = "copy marks what it holds back"

SENTENCES = {
    FENCE_SYNC: "sync increments the fence of every chunk concerned, before anything else.",
    FENCE_COPY: "copy increments the fence and records its state in the transaction of its data.",
    COPY_FIRST: "copy increments the fence before it reads; last would be as safe, but fail late.",
    FENCE_CHANGES: "the fence is an increment, never a write that may change nothing.",
    FENCE_SKIP: "sync leaves a pending chunk alone only after it took its fence.",
    SOURCE_INSIDE: "sync reads the source in the transaction that writes the targets.",
    STATE_INSIDE: "sync reads the chunk's state in the transaction that acts on it.",
    TARGETS_INSIDE: "sync compares with the targets as its own transaction sees them.",
    STAMP: "a dirty row is deleted only if it has the stamp read before the transaction.",
    STAMP_UNIQUE: "a stamp is never used twice, not even after its row is gone.",
    DURABLE_FIRST: "the follower saves its token after the dirty rows are durable.",
    START_FIRST: "the follower's position is taken before a chunk can be copied.",
    ROLLED_BACK: "a rolled back chunk waits to be asked for again; old messages do not move it.",
    ROLLBACK_FENCE: "rollback deletes and records in one transaction, fence first.",
    VERIFY_WRITTEN: "`verified` is recorded only for the very copy that was compared.",
    VERIFY_AGAIN: "a difference is looked at again after the follower and sync passed it.",
    VERIFY_ASKS: "what was written between two looks is known from the log, not from dirty rows.",
    VERIFY_KEEPS: "what was written between two looks and still differs is looked at once more.",
    VERIFY_ORDER: "verify waits for the follower's position first, then for no dirty row.",
    VERIFY_STATE: "each look of verify reads the chunk's state at its own snapshot.",
    MARK_HELD: "who deletes or changes a part marks dirty, in the same transaction, "
    "every id that is in quarantine because of it.",
    WIDEN: "sync takes who holds the key into its transaction.",
    WIDEN_FENCE: "sync takes the fence of the chunk of who holds the key, too.",
    COPY_MARKS: "whoever holds an id back without the fence of the holder's chunk, as copy does, "
    "marks the id dirty in the same transaction.",
}
