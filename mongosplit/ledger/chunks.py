"""Chunks in the ledger: take the fence, change state; each change is told to the audit.

The fence: a transaction that writes targets of a chunk increments the chunk's fence first, in the
same transaction. Of two that did, one has seen the other's commit (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

from mongosplit.errors import FenceBusy, MongosplitError
from mongosplit.keyspace import Range
from mongosplit.ledger import audit
from mongosplit.ledger.book import Ledger, chunk_key, now
from mongosplit.model import APPLIED, CHUNK_ARROWS, Chunk, ChunkState
from mongosplit.mongo import WRITE_CONFLICT, Session, transact

_FENCED: dict[str, Any] = {"$inc": {"fence": 1}}

WANTED: dict[str, Any] = {"$or": [{"state": ChunkState.PENDING.value}, {"mend": True}]}
"""The query for chunks that a migrate task has something to do for."""
IS_APPLIED: dict[str, Any] = {"state": {"$in": [state.value for state in APPLIED]}}


def from_row(row: dict[str, Any]) -> Chunk:
    """The chunk of a ledger row."""
    return Chunk(
        run=row["run"],
        n=row["n"],
        ranges=tuple(Range.from_document(found) for found in row["ranges"]),
        state=ChunkState(row["state"]),
        fence=row["fence"],
        planned=row["planned"],
        tail=row.get("tail", False),
        docs=row.get("docs", 0),
        parts=row.get("parts", {}),
        quarantined=row.get("quarantined", 0),
        adopted=row.get("adopted", 0),
        kept=row.get("kept", 0),
        digest=row.get("digest"),
        mend=row.get("mend", False),
        undo=row.get("undo"),
        error=row.get("error") or row.get("undo_error") or row.get("check_error"),
    )


def is_wanted(chunk: Chunk) -> bool:
    """Whether a migrate task has something to do for it."""
    return chunk.state is ChunkState.PENDING or (chunk.mend and chunk.state in APPLIED)


def get(ledger: Ledger, run: str, n: int, *, session: Session | None = None) -> Chunk:
    """The chunk, as it is in the session's snapshot."""
    row = ledger["chunks"].find_one({"_id": chunk_key(run, n)}, session=session)
    if row is None:
        raise MongosplitError(f"run {run} has no chunk {n}", hint=f"mongosplit status {run}")
    return from_row(row)


def take_fence(ledger: Ledger, session: Session, run: str, n: int) -> Chunk:
    """Increment the chunk's fence as the first write of the transaction, and read its state.

    Raises:
        FenceBusy: another transaction holds the fence.
    """
    try:
        row = ledger["chunks"].find_one_and_update(
            {"_id": chunk_key(run, n)},
            {"$inc": {"fence": 1}},
            session=session,
            return_document=ReturnDocument.AFTER,
        )
    except OperationFailure as error:
        if error.code == WRITE_CONFLICT:
            raise FenceBusy(f"chunk {n} of {run} is held by another transaction") from error
        raise
    if row is None:
        raise MongosplitError(f"run {run} has no chunk {n}", hint=f"mongosplit status {run}")
    return from_row(row)


def record(
    ledger: Ledger,
    session: Session,
    chunk: Chunk,
    to: ChunkState,
    facts: dict[str, Any],
    *,
    actor: str,
    told: dict[str, Any],
) -> None:
    """Change a chunk whose fence this transaction has taken; what was asked of it is done.

    `told` is what the audit is to have of it besides the states.

    Raises:
        MongosplitError: the tables hold no arrow to that state.
    """
    mended = chunk.mend and chunk.state is to
    if not mended and (chunk.state, to) not in CHUNK_ARROWS:
        raise MongosplitError(f"chunk {chunk.n} of {chunk.run} is {chunk.state}, not to be {to}")
    ledger["chunks"].update_one(
        {"_id": chunk_key(chunk.run, chunk.n)},
        {
            "$set": {"state": to.value, "error": None, "undo_error": None, **facts},
            "$unset": {"mend": "", "undo": "", "checked": ""},
        },
        session=session,
    )
    _tell(ledger, session, chunk, to, actor, told)


def _tell(
    ledger: Ledger, session: Session, chunk: Chunk, to: ChunkState, actor: str, told: dict[str, Any]
) -> None:
    facts = {"from": chunk.state.value, "to": to.value, **told}
    audit.say(
        ledger, "chunk", actor=actor, run=chunk.run, chunk=chunk.n, session=session, facts=facts
    )


def fail(ledger: Ledger, run: str, n: int, error: dict[str, str], *, actor: str) -> bool:
    """Mark a pending chunk failed, with the class and the sentence of its error.

    Of an applied chunk whose quarantined documents were to be tried again, the ask is taken back.
    """
    failed = {"state": ChunkState.FAILED.value, "error": error, "finished": now()}
    pending = {"state": ChunkState.PENDING.value}
    if _give_up(ledger, run, n, pending, {"$set": failed, **_FENCED}, error=error, actor=actor):
        return True
    back = {"$set": {"error": error}, "$unset": {"mend": ""}, **_FENCED}
    _give_up(ledger, run, n, {"mend": True}, back, error=error, actor=actor)
    return False


def undo_refused(ledger: Ledger, run: str, n: int, error: dict[str, str], *, actor: str) -> None:
    """Take back the ask to roll a chunk back, with the reason why it was not done."""
    change = {"$set": {"undo_error": error}, "$unset": {"undo": ""}, **_FENCED}
    _give_up(ledger, run, n, {"undo": {"$exists": True}}, change, error=error, actor=actor)


def not_checked(
    ledger: Ledger, run: str, n: int, verification: int, error: dict[str, str], *, actor: str
) -> None:
    """Record that a verification could not be done, with the class and sentence of the error."""
    facts = {"checked": verification, "check_error": error}
    _give_up(ledger, run, n, {}, {"$set": facts}, error=error, actor=actor)


def _give_up(
    ledger: Ledger,
    run: str,
    n: int,
    only: dict[str, Any],
    change: dict[str, Any],
    *,
    error: dict[str, str],
    actor: str,
) -> bool:
    """Change the chunk if it is as `only` says; it is told first, and needs no transaction.

    Transactions may be the very thing that does not work, and one left open would hold the fence.
    """
    query = {"_id": chunk_key(run, n), **only}
    if ledger["chunks"].find_one(query, {"_id": 1}) is None:
        return False
    audit.say(ledger, "chunk", actor=actor, run=run, chunk=n, facts={"gave up": error})
    changed = ledger["chunks"].update_one(query, change)
    return changed.matched_count == 1


def checked(
    ledger: Ledger,
    session: Session,
    seen: Chunk,
    *,
    verification: int,
    mismatches: int,
    independent: bool,
    actor: str,
) -> bool:
    """Record a verification, unless the chunk was touched since it was seen; True if recorded."""
    good = ChunkState.VERIFIED if mismatches == 0 else ChunkState.MIGRATED
    to = good if seen.state in APPLIED else seen.state
    facts: dict[str, Any] = {
        "checked": verification,
        "mismatches": mismatches,
        "independent": independent,
        "check_error": None,
        "state": to.value,
    }
    as_seen = {
        "_id": chunk_key(seen.run, seen.n),
        "fence": seen.fence,
        "state": seen.state.value,
    }

    def body(session: Session) -> bool:
        changed = ledger["chunks"].update_one(as_seen, {"$set": facts}, session=session)
        if not changed.matched_count:
            return False
        told = {"verification": verification, "mismatches": mismatches}
        _tell(ledger, session, seen, to, actor, told)
        return True

    return transact(session, body)


def numbers(ledger: Ledger, run: str, query: dict[str, Any], *, limit: int = 0) -> list[int]:
    """The numbers of the run's chunks that a query on their rows finds, in order."""
    found = ledger["chunks"].find({"run": run, **query}, {"n": 1}).sort("n", 1).limit(limit)
    return [row["n"] for row in found]


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


def still(ledger: Ledger, run: str, numbers_: Sequence[int], query: dict[str, Any]) -> set[int]:
    """Which of these chunks a query on their rows still finds."""
    ids = [chunk_key(run, n) for n in numbers_]
    return {row["n"] for row in ledger["chunks"].find({"_id": {"$in": ids}, **query}, {"n": 1})}
