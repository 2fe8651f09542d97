"""verify_chunk: compare a chunk with what its source derives to, and tell a lag from a mismatch.

While the application writes, a target may be a moment behind. What differs at one snapshot is
looked at again, until the log itself says that the user was not written meanwhile: then the
difference is real. It goes away by itself where it was a lag (docs/architecture.md, verify).
"""

from __future__ import annotations

import time
import zlib

from mongosplit import gate, lag
from mongosplit.compare import Compared, compare
from mongosplit.derive import either_way
from mongosplit.errors import Lagging, TransientError
from mongosplit.ledger import checked, chunks, mismatches
from mongosplit.ledger.checked import Check
from mongosplit.ledger.claims import Attempt, claimed
from mongosplit.ledger.mismatches import Mismatch
from mongosplit.model import Outcome
from mongosplit.mongo import Session, explained_chunk, present, transact
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value

WORK = "verify"

TRIES = 5
"""How often a chunk is compared again when copy or rollback wrote it meanwhile."""
LAG_SECONDS = 20.0
"""How long it is waited for the follower to catch up with what differs."""
LOOK_SECONDS = 0.2
MOVING_LOOKS = 10
"""After so many looks a user who was written before each is taken for one who always is."""


def verify_chunk(
    at: OpenRun, n: int, attempt: Attempt, *, verification: int, independent: bool
) -> Outcome:
    """Compare the chunk, list its mismatches, and mark it verified when there are none.

    A chunk that is not applied must have nothing in the targets. A verification of a later number
    replaces what an earlier one listed.

    Raises:
        TransientError: worth another try. Failed: another try will not help.
        HistoryLost: the follower is too far behind for the log to tell a lag from a mismatch.
    """
    started = time.monotonic()
    with (
        explained_chunk(at.run.id, n),
        at.client.start_session(causal_consistency=True) as session,
        claimed(at.ledger, at.client, session, WORK, at.run.id, n, attempt),
    ):
        if held := gate.holds_verification(at, n, verification):
            return Outcome(at.run.id, n, "held", held)
        for _ in range(TRIES):
            seen = _compare(at, n, session, independent=independent)
            found = _without_lag(at, session, seen)
            mismatches.replace(at.ledger, at.run.id, n, found)
            check = Check(verification, seen.docs, len(found), independent)
            if checked.record(at.ledger, session, seen.chunk, check, actor=attempt.worker):
                break
        else:
            raise TransientError(f"chunk {n} of {at.run.id} was written each time it was compared")
    state = chunks.get(at.ledger, at.run.id, n).state
    return Outcome(
        at.run.id,
        n,
        "verified" if not found else "compared",
        state.value,
        docs=seen.docs,
        mismatches=len(found),
        milliseconds=int((time.monotonic() - started) * 1000),
    )


def is_in_share(n: int, share: float) -> bool:
    """Whether chunk `n` is among the stated share; the same chunks each time, spread evenly."""
    return zlib.crc32(n.to_bytes(8, "little")) / 2**32 < share


def _compare(
    at: OpenRun,
    n: int,
    session: Session,
    *,
    independent: bool = False,
    only: list[Value] | None = None,
) -> Compared:
    def compared(by_reference: bool) -> Compared:
        slow = independent or by_reference
        return transact(session, lambda within: compare(at, n, within, independent=slow, only=only))

    return either_way(compared)


def differing(at: OpenRun, n: int) -> Compared:
    """What differs in a chunk at this moment, lag and all."""
    with at.client.start_session(causal_consistency=True) as session:
        return _compare(at, n, session)


def _without_lag(at: OpenRun, session: Session, seen: Compared) -> list[Mismatch]:
    """Those of the mismatches that are none of a target a moment behind.

    Raises:
        Lagging: that cannot be told yet.
    """
    real: list[Mismatch] = []
    looks = 0
    first, deadline = present(at.client), time.monotonic() + LAG_SECONDS
    looked = seen
    while looked.mismatches:
        position = lag.look(at, looked.ids)
        if position is None:
            return looked.mismatches
        session.advance_operation_time(present(at.client))
        looked = _compare(at, seen.chunk.n, session, only=looked.ids)
        if looked.chunk.written != seen.chunk.written:
            # Copied or rolled back meanwhile: recording will notice, and all of it comes again.
            return real
        written = lag.written(at, position, looked.ids)
        settled = set(looked.ids) - position.dirty
        real += [one for one in looked.mismatches if one.source_id in settled - written]
        looks += 1
        # One that is written all the time has been derived since the first look, so it was right.
        at_rest = looks < MOVING_LOOKS or position.reached < first
        moving = set() if at_rest else settled & written
        left = set(looked.ids) - (settled - written) - moving
        if not left:
            break
        if time.monotonic() > deadline or not position.alive:
            raise Lagging(lag.sentence(at, position, len(left)))
        time.sleep(LOOK_SECONDS)
        looked = Compared(
            looked.chunk, looked.docs, [one for one in looked.mismatches if one.source_id in left]
        )
    return real
