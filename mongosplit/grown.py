"""Grown: an applied chunk into which the application inserts is divided before it gets too large.

What a chunk holds must fit into one transaction, or it could no longer be rolled back. The tail
chunk gets every new user, so it is cut again and again: the new number gets what is there, the tail
keeps the open end.
"""

from __future__ import annotations

from dataclasses import replace

from mongosplit import standing
from mongosplit.divide import enter
from mongosplit.keyspace import Range
from mongosplit.ledger import chunks, fences, kept, plans, quarantine, quarantined
from mongosplit.model import APPLIED, Chunk
from mongosplit.mongo import Session, explained_chunk, transact
from mongosplit.open_run import OpenRun
from mongosplit.plan import Index, PlannedChunk

TIMES = 2
"""How many times the planned size a chunk may have."""


def divide_grown(at: OpenRun, *, actor: str) -> int | None:
    """Divide one chunk that has grown; the number of the new one, None where none has.

    Raises:
        FenceBusy: another transaction holds it; it comes again.
    """
    size = int(at.run.options.get("chunk_size", 1000))
    grown = {**chunks.IS_APPLIED, "docs": {"$gt": TIMES * size}, "undo": {"$exists": False}}
    found = chunks.numbers(at.ledger, at.run.id, grown, limit=1)
    if not found:
        return None
    with explained_chunk(at.run.id, found[0]), at.client.start_session() as session:
        return transact(session, lambda within: _divide(at, found[0], size, within, actor))


def _divide(at: OpenRun, n: int, size: int, session: Session, actor: str) -> int | None:
    chunk = fences.take(at.ledger, session, at.run.id, n)
    cut = _cut(at, chunk, size, session) if chunk.state in APPLIED else None
    if cut is None:
        session.abort_transaction()
        return None
    low, rest = cut
    keeps = PlannedChunk(n, rest, 0, chunk.tail)
    gets = PlannedChunk(0, (low,), 0)
    why = {"divided": "has grown"}
    number = enter(at, session, chunk, keeps=keeps, gets=gets, actor=actor, why=why)
    docs = _share(at, session, chunk, low, number)
    plans.set_planned(at.ledger, session, chunk, chunk.docs - docs)
    plans.set_planned(at.ledger, session, replace(chunk, n=number), docs)
    return number


def _cut(
    at: OpenRun, chunk: Chunk, size: int, session: Session
) -> tuple[Range, tuple[Range, ...]] | None:
    """The lower part of one range, and the other ranges."""
    index = Index(at.source, session)
    for position, part in enumerate(chunk.ranges):
        found = None if part.bracket.whole else index.boundary(part, size)
        if found is not None:
            bound, _ = found
            low = replace(part, hi=bound, upto=False)
            rest = Range(part.bracket, bound, part.hi, upto=part.upto)
            return low, (*chunk.ranges[:position], rest, *chunk.ranges[position + 1 :])
    return None


def _share(at: OpenRun, session: Session, chunk: Chunk, low: Range, number: int) -> int:
    """Give the new chunk its share of the counts and of the rows that name the old one.

    Returns its documents: those of which anything stands or is in quarantine, as a sync counts
    them. What was inserted and not synced yet is counted by its sync.
    """
    run = at.run.id
    held = quarantined.hand_over(at.ledger, session, run, chunk.n, number, low)
    adopted = kept.hand_over(at.ledger, session, run, chunk.n, number, low)
    share = {"quarantined": held, "adopted": adopted}
    counted = quarantine.held(at.ledger, run, number, session=session)
    counted |= {one.source_id for one in kept.adoptions(at.ledger, run, number, session=session)}
    its = replace(chunk, ranges=(low,))
    for target in at.migration.targets:
        there = {standing.id_of(row) for row in standing.ids(at, target, its, session)}
        share[f"parts.{target.collection}"] = len(there)
        counted |= there
    share["docs"] = len(counted)
    fewer = {name: -count for name, count in share.items()}
    more = [(chunk, fewer), (replace(chunk, n=number), share)]
    chunks.adjust(at.ledger, session, more)
    return len(counted)
