"""Checked chunks in the ledger: what a verification came to, and which it has yet to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mongosplit.ledger import chunks
from mongosplit.ledger.book import Ledger, chunk_key
from mongosplit.ledger.chunks import IS_APPLIED
from mongosplit.model import APPLIED, Chunk, ChunkState
from mongosplit.mongo import Session, transact


@dataclass(frozen=True, slots=True)
class Check:
    """What a verification of one chunk came to: its number, documents compared, mismatches."""

    verification: int
    docs: int
    mismatches: int
    independent: bool


def record(
    ledger: Ledger,
    session: Session,
    seen: Chunk,
    check: Check,
    *,
    actor: str,
) -> bool:
    """Record a verification, unless copy or rollback wrote the chunk since; True if recorded.

    A sync in between is no obstacle: it leaves what is derived, so the verdict stands.
    """
    good = ChunkState.VERIFIED if check.mismatches == 0 else ChunkState.MIGRATED
    to = good if seen.state in APPLIED else seen.state
    facts: dict[str, Any] = {
        "checked": check.verification,
        "mismatches": check.mismatches,
        "independent": check.independent,
        "check_error": None,
        "state": to.value,
    }
    as_seen = {
        "_id": chunk_key(seen.run, seen.n),
        "written": seen.written,
        "state": seen.state.value,
    }

    if seen.state in APPLIED:
        # What a sync has counted since is newer than what was counted here.
        unsynced = {"$eq": ["$fence", seen.fence]}
        facts["docs"] = {"$cond": [unsynced, check.docs, "$docs"]}

    def body(session: Session) -> bool:
        before = ledger["chunks"].find_one_and_update(
            as_seen, [{"$set": facts}], {"checked": 1}, session=session
        )
        if before is None:
            return False
        if before.get("checked") == check.verification and seen.state is to:
            # Comparing it once more has changed nothing; the background does so all the time.
            return True
        told = {"verification": check.verification, "mismatches": check.mismatches}
        chunks.tell(ledger, session, seen, to, actor, told)
        return True

    return transact(session, body)


def not_checked(
    ledger: Ledger, run: str, n: int, verification: int, error: dict[str, str], *, actor: str
) -> None:
    """Record that a verification could not be done, with the class and sentence of the error."""
    facts = {"checked": verification, "check_error": error}
    chunks.give_up(ledger, run, n, {}, {"$set": facts}, error=error, actor=actor)


def unchecked(verification: int) -> dict[str, Any]:
    """The query for chunks that this verification has yet to look at."""
    return {"checked": {"$ne": verification}}


def to_verify(verification: int, *, held: bool) -> dict[str, Any]:
    """The query for chunks whose outcome this verification has yet to look at.

    Applied, or rolled back: those must have left nothing. Only those while the run is `held`.
    """
    undone = {"state": ChunkState.ROLLED_BACK.value, "closed": {"$ne": True}}
    which = [undone] if held else [undone, IS_APPLIED]
    return {"$or": which, **unchecked(verification)}
