"""Chunks in the ledger: read them, change their state; each change is told to the audit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pymongo import UpdateOne

from mongosplit.errors import MongosplitError
from mongosplit.keyspace import Range
from mongosplit.ledger import audit
from mongosplit.ledger.book import Ledger, chunk_key, now
from mongosplit.model import APPLIED, CHUNK_ARROWS, Chunk, ChunkState
from mongosplit.mongo import Session

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
        written=row.get("written", 0),
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
            "$inc": {"written": 1},
            "$set": {"state": to.value, "error": None, "undo_error": None, **facts},
            "$unset": {"mend": "", "undo": "", "checked": ""},
        },
        session=session,
    )
    tell(ledger, session, chunk, to, actor, told)


def adjust(ledger: Ledger, session: Session, more: Iterable[tuple[Chunk, dict[str, int]]]) -> None:
    """Add to the counts of chunks whose fences are taken; their parts are no longer as inserted.

    One write for all of them: a sync may meet many.
    """
    writes: list[UpdateOne] = []
    for chunk, counts in more:
        change: dict[str, Any] = {"$set": {"digest": None}}
        if by := {name: number for name, number in counts.items() if number}:
            change["$inc"] = by
        writes.append(UpdateOne({"_id": chunk_key(chunk.run, chunk.n)}, change))
    if writes:
        ledger["chunks"].bulk_write(writes, ordered=False, session=session)


def tell(
    ledger: Ledger, session: Session, chunk: Chunk, to: ChunkState, actor: str, told: dict[str, Any]
) -> None:
    """Tell the audit that a chunk enters a state, in the transaction in which it does."""
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
    if give_up(ledger, run, n, pending, {"$set": failed, **_FENCED}, error=error, actor=actor):
        return True
    back = {"$set": {"error": error}, "$unset": {"mend": ""}, **_FENCED}
    give_up(ledger, run, n, {"mend": True}, back, error=error, actor=actor)
    return False


def undo_refused(ledger: Ledger, run: str, n: int, error: dict[str, str], *, actor: str) -> None:
    """Take back the ask to roll a chunk back, with the reason why it was not done."""
    change = {"$set": {"undo_error": error}, "$unset": {"undo": ""}, **_FENCED}
    give_up(ledger, run, n, {"undo": {"$exists": True}}, change, error=error, actor=actor)


def give_up(
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


def numbers(ledger: Ledger, run: str, query: dict[str, Any], *, limit: int = 0) -> list[int]:
    """The numbers of the run's chunks that a query on their rows finds, in order."""
    found = ledger["chunks"].find({"run": run, **query}, {"n": 1}).sort("n", 1).limit(limit)
    return [row["n"] for row in found]


def still(ledger: Ledger, run: str, numbers_: Sequence[int], query: dict[str, Any]) -> set[int]:
    """Which of these chunks a query on their rows still finds."""
    ids = [chunk_key(run, n) for n in numbers_]
    return {row["n"] for row in ledger["chunks"].find({"_id": {"$in": ids}, **query}, {"n": 1})}


def ranges(ledger: Ledger, run: str) -> list[tuple[int, tuple[Range, ...]]]:
    """Number and ranges of every chunk of the run."""
    found = ledger["chunks"].find({"run": run}, {"n": 1, "ranges": 1})
    return [(row["n"], tuple(map(Range.from_document, row["ranges"]))) for row in found]


def count(ledger: Ledger, run: str) -> int:
    """How many chunks the run has."""
    return ledger["chunks"].count_documents({"run": run})


def any_verified(ledger: Ledger, run: str) -> int | None:
    """The number of a random verified chunk; None where there is none."""
    verified = {"run": run, "state": ChunkState.VERIFIED.value}
    rows = ledger["chunks"].aggregate(
        [{"$match": verified}, {"$project": {"n": 1}}, {"$sample": {"size": 1}}]
    )
    return next((int(row["n"]) for row in rows), None)
