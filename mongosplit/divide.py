"""Dividing: a chunk too large for one transaction becomes two on the ledger, under its fence.

The old number keeps the lower half of the documents, a new number at the end of the run gets the
upper half. Nothing else has to know: every range is still in exactly one chunk.
"""

from __future__ import annotations

from dataclasses import replace

from pymongo import DESCENDING

from mongosplit.errors import Failed
from mongosplit.keyspace import Range
from mongosplit.ledger import audit, fences, plans
from mongosplit.model import Chunk, ChunkState
from mongosplit.mongo import Session, transact
from mongosplit.open_run import OpenRun
from mongosplit.plan import Index, PlannedChunk

TRANSACTION_TOO_LARGE = (257, 388)
"""The server's codes for a transaction that does not fit into the oplog, or into its cache."""


def divide(at: OpenRun, session: Session, n: int, *, actor: str) -> int | None:
    """Divide the chunk; the number of its upper half, None when somebody did something to it first.

    In the session of the transaction that was too large: the server ends that one then, if it has
    not yet.

    Raises:
        Failed: it holds one document only, or ids that cannot bound a range.
    """

    def body(session: Session) -> int | None:
        chunk = fences.take(at.ledger, session, at.run.id, n)
        if chunk.state is not ChunkState.PENDING:
            return None
        lower, upper = _halves(at, chunk, session)
        why = {"divided": "too large for one transaction"}
        return enter(at, session, chunk, keeps=lower, gets=upper, actor=actor, why=why)

    return transact(session, body)


def _halves(at: OpenRun, chunk: Chunk, session: Session) -> tuple[PlannedChunk, PlannedChunk]:
    index = Index(at.source, session)
    counts = [index.count(part) for part in chunk.ranges]
    whole = sum(counts)
    before = 0
    for position, (part, count) in enumerate(zip(chunk.ranges, counts, strict=True)):
        skip = whole // 2 - before
        cut = None if part.bracket.whole or skip <= 0 else index.boundary(part, skip)
        if cut is not None:
            bound, docs = cut
            low = (*chunk.ranges[:position], replace(part, hi=bound, upto=False))
            rest = Range(part.bracket, bound, part.hi, upto=part.upto)
            high = (rest, *chunk.ranges[position + 1 :])
            lower = PlannedChunk(chunk.n, low, before + docs, chunk.tail)
            return lower, PlannedChunk(0, high, whole - before - docs, chunk.tail)
        before += count
    raise Failed(
        f"chunk {chunk.n} of {chunk.run} is too large for one transaction and cannot be divided",
        hint="it holds one document, or ids without ranges",
    )


def enter(
    at: OpenRun,
    session: Session,
    chunk: Chunk,
    *,
    keeps: PlannedChunk,
    gets: PlannedChunk,
    actor: str,
    why: dict[str, str],
) -> int:
    """Let a chunk whose fence is taken keep a part of its ranges; the number that gets the rest."""
    number = _next_number(at, session)
    plans.divide(at.ledger, session, chunk, number, keeps, gets)
    _select(at, session, chunk, number)
    facts = {**why, "the rest": number}
    audit.say(
        at.ledger, "chunk", actor=actor, run=at.run.id, chunk=chunk.n, session=session, facts=facts
    )
    return number


def _next_number(at: OpenRun, session: Session) -> int:
    last = at.ledger["chunks"].find_one(
        {"run": at.run.id}, {"n": 1}, sort=[("n", DESCENDING)], session=session
    )
    assert last is not None  # the chunk that is divided is there
    return int(last["n"]) + 1


def _select(at: OpenRun, session: Session, chunk: Chunk, number: int) -> None:
    """Both halves are selected where the chunk was."""
    held = {"$elemMatch": {"0": {"$lte": chunk.n}, "1": {"$gte": chunk.n}}}
    at.ledger["runs"].update_one(
        {"_id": at.run.id, "selection": held},
        {"$push": {"selection": [number, number]}},
        session=session,
    )
