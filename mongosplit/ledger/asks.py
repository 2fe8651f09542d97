"""Asks in the ledger: what operators want of chunks: try again, mend, roll back, close.

What is asked stands in the chunk's own row until a transaction has done it, so nobody who carries
the asking has to live. Each ask is told to the audit before it is written.
"""

from __future__ import annotations

from typing import Any

from pymongo.errors import ExecutionTimeout

from mongosplit.ledger import audit, chunks, tally
from mongosplit.ledger.book import Ledger, now
from mongosplit.ledger.chunks import IS_APPLIED
from mongosplit.model import ChunkState

Where = dict[str, Any]
"""A query on the rows of a run's chunks that says which are meant."""

EVERYWHERE: Where = {}
UNABLE: Where = {"check_error": {"$ne": None}}
"""Could not be verified."""
HOLDING: Where = {**IS_APPLIED, "quarantined": {"$gt": 0}}
"""Applied, with documents in quarantine."""
TO_UNDO: Where = {"undo": {"$exists": True}}
"""Asked to roll back."""
OPEN = (ChunkState.PENDING.value, ChunkState.FAILED.value)


def reopen(ledger: Ledger, run: str, state: ChunkState, where: Where, *, actor: str) -> int:
    """Make failed or rolled back chunks pending again; returns how many."""
    changed = {"state": ChunkState.PENDING.value, "error": None, "closed": False}
    return _ask(ledger, run, {"state": state.value}, where, changed, actor=actor, ask="retry")


def recheck(ledger: Ledger, run: str, where: Where, *, actor: str) -> int:
    """Have chunks compared again that could not be verified; returns how many."""
    changed = {"check_error": None, "checked": None}
    return _ask(ledger, run, UNABLE, where, changed, actor=actor, ask="verify again")


def mend(ledger: Ledger, run: str, where: Where, *, actor: str) -> int:
    """Have the quarantined documents of applied chunks tried again; returns how many chunks."""
    changed = {"mend": True, "error": None}
    return _ask(ledger, run, HOLDING, where, changed, actor=actor, ask="mend")


def undo(ledger: Ledger, run: str, where: Where, *, on_change: str, actor: str) -> int:
    """Have applied chunks rolled back; returns how many.

    `on_change` says what happens to targets that were changed since: `keep` saves them first,
    `fail` leaves the chunk as it is.
    """
    ask = {"on_change": on_change, "actor": actor, "at": now()}
    changed = {"undo": ask, "undo_error": None}
    return _ask(ledger, run, IS_APPLIED, where, changed, actor=actor, ask="rollback")


def forget_refusals(ledger: Ledger, run: str) -> None:
    """Have chunks that refused to be rolled back asked again."""
    query = {"run": run, "undo_error": {"$ne": None}}
    ledger["chunks"].update_many(query, {"$set": {"undo_error": None}})


def _ask(
    ledger: Ledger,
    run: str,
    state: dict[str, Any],
    where: Where,
    changed: dict[str, Any],
    *,
    actor: str,
    ask: str,
) -> int:
    query = {"$and": [state, where]}
    spans = tally.spans(ledger, run, query)
    if not spans:
        return 0
    facts = {"ask": ask, "chunks": tally.span_words(spans, most=1000)}
    audit.say(ledger, "ask", actor=actor, run=run, facts=facts)
    written = ledger["chunks"].update_many(
        {"$and": [{"run": run}, query]}, {"$set": changed, "$inc": {"fence": 1}}
    )
    return written.matched_count


def close_rest(ledger: Ledger, run: str, *, milliseconds: int) -> bool:
    """Close what was never applied, so that no late message applies it; True when all is closed.

    The write waits for every transaction that holds a fence, at most so long; what it reached by
    then stays closed.
    """
    rest = {"run": run, "state": {"$in": list(OPEN)}}
    closed = {"state": ChunkState.ROLLED_BACK.value, "error": None, "closed": True}
    command = {"q": rest, "u": {"$set": closed, "$inc": {"fence": 1}}, "multi": True}
    try:
        ledger.database.command(
            "update",
            "chunks",
            updates=[command],
            maxTimeMS=milliseconds,
            writeConcern={"w": "majority"},
        )
    except ExecutionTimeout:
        return False
    return ledger["chunks"].find_one(rest, {"_id": 1}) is None


def left_to_undo(ledger: Ledger, run: str, *, limit: int = 0) -> list[int]:
    """The numbers of the chunks that are still to be rolled back."""
    return chunks.numbers(ledger, run, TO_UNDO, limit=limit)
