"""What a worker does in each cell: the ways to move a chunk, to check it, to plan it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import plan
from mongosplit.derive import WHOLE_CHUNK, by_pipeline
from mongosplit.errors import Failed
from mongosplit.keyspace import union_query
from mongosplit.ledger import asks, plans
from mongosplit.ledger.book import now
from mongosplit.ledger.claims import Attempt
from mongosplit.migrate import migrate_chunk
from mongosplit.model import Chunk, Outcome
from mongosplit.mongo import Documents, Session, transact
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.rollback import rollback_chunk
from mongosplit.verify import verify_chunk
from ops.bench import by_hand
from ops.bench.workers import Share, Work
from worker import pacing

OWN_LEDGER = "bench_done"
"""The collection in which the chunk transactions written by hand note that a chunk is done."""

WALKS = 10
"""How often the plan is walked in one measurement: once is over in milliseconds."""

Parts = list[tuple[Documents, list[Any]]]
Mover = Callable[[Chunk, Session], int]
"""Moves a chunk inside an open transaction; returns how many users it had."""


def raw_inserts(at: OpenRun, share: Share) -> Work:
    """Insert prebuilt documents, all at once and without a transaction: the ceiling."""
    chunks_ = share.chunks[share.number :: share.workers]
    documents: dict[str, list[Any]] = {}
    for chunk in chunks_:
        for target, parts in _prebuilt(at, chunk):
            documents.setdefault(target.name, []).extend(parts)

    def work() -> int:
        for name, parts in documents.items():
            at.data[name].insert_many(parts, ordered=False)
        return sum(chunk.planned for chunk in chunks_)

    return work


def transform_free(at: OpenRun, share: Share) -> Work:
    """Read each chunk raw and insert what was built before: a transform that costs nothing."""
    built = {chunk.n: _prebuilt(at, chunk) for chunk in share.chunks}

    def move(chunk: Chunk, session: Session) -> int:
        batches = at.source.find_raw_batches(
            union_query(chunk.ranges), session=session, batch_size=WHOLE_CHUNK, collation=SIMPLE
        )
        for _ in batches.sort("_id", 1):
            pass
        _insert(built[chunk.n], session)
        return chunk.planned

    return _in_transactions(at, share, move)


def ours(at: OpenRun, share: Share) -> Work:
    """`migrate_chunk` as a Celery task calls it: claim, fence, split, inserts, ledger."""
    return _outcomes(share, lambda n: migrate_chunk(at, n, _attempt(share)), did="migrated")


def ours_again(at: OpenRun, share: Share) -> Work:
    """`migrate_chunk` for chunks that are migrated already."""
    return _outcomes(share, lambda n: migrate_chunk(at, n, _attempt(share)), did="nothing")


def plain_dicts(at: OpenRun, share: Share) -> Work:
    """Find, split with dicts written by hand, insert, note the chunk as done."""
    return _in_transactions(at, share, lambda chunk, session: _by_hand(at, chunk, session))


def pydantic_models(at: OpenRun, share: Share) -> Work:
    """The same, and each document is validated by the pydantic model of its target."""
    return _in_transactions(
        at, share, lambda chunk, session: _by_hand(at, chunk, session, models=True)
    )


def verify_raw(at: OpenRun, share: Share) -> Work:
    """`verify_chunk`: every byte against the split pipeline."""
    return _verify(at, share, independent=False)


def verify_independent(at: OpenRun, share: Share) -> Work:
    """`verify_chunk`: every byte against the Python reference."""
    return _verify(at, share, independent=True)


def ours_permitted(at: OpenRun, share: Share) -> Work:
    """`migrate_chunk` with a permit for each chunk, at the rate limit that the run has."""

    def move(n: int) -> Outcome:
        if not pacing.admitted(at.ledger, at.run.id, n).granted:
            raise Failed(f"chunk {n} got no permit")
        return migrate_chunk(at, n, _attempt(share))

    return _outcomes(share, move, did="migrated")


def ours_until_held(at: OpenRun, share: Share) -> Work:
    """`migrate_chunk` until the run holds its chunks back."""

    def work() -> int:
        for chunk in share.take():
            if migrate_chunk(at, chunk.n, _attempt(share)).did == "held":
                break
        return 0

    return work


def roll_back(at: OpenRun, share: Share) -> Work:
    """`rollback_chunk` for every chunk; that it is asked for is written before, untimed."""
    if share.number == 0:
        asks.undo(at.ledger, at.run.id, {"tail": None}, on_change="keep", actor="bench")
    return _outcomes(share, lambda n: rollback_chunk(at, n, _attempt(share)), did="rolled back")


def plan_chunks(at: OpenRun, _: Share) -> Work:
    """Walk the source and write the chunks into the ledger, several times over."""
    size = int(at.run.options["chunk_size"])
    names = [f"{at.run.id}-planned-{number}" for number in range(WALKS)]
    for name in names:
        plans.discard_plan(at.ledger, name)

    def work() -> int:
        return sum(
            plans.write_plan(at.ledger, name, plan.walk(at.source, chunk_size=size))["docs"]
            for name in names
        )

    return work


def _attempt(share: Share) -> Attempt:
    return Attempt(worker=f"bench-{share.number}")


def _verify(at: OpenRun, share: Share, *, independent: bool) -> Work:
    def verify(n: int) -> Outcome:
        number = 2 if independent else 1
        return verify_chunk(at, n, _attempt(share), verification=number, independent=independent)

    return _outcomes(share, verify, did="verified")


def _outcomes(share: Share, task: Callable[[int], Outcome], *, did: str) -> Work:
    def work() -> int:
        users = 0
        for chunk in share.take():
            outcome = task(chunk.n)
            if outcome.did != did:
                raise Failed(f"chunk {chunk.n} was to be {did}, and is {outcome.did}")
            users += chunk.planned
        return users

    return work


def _in_transactions(at: OpenRun, share: Share, move: Mover) -> Work:
    def work() -> int:
        with at.client.start_session() as session:
            return sum(transact(session, _moving(chunk, move)) for chunk in share.take())

    return work


def _moving(chunk: Chunk, move: Mover) -> Callable[[Session], int]:
    return lambda session: move(chunk, session)


def _by_hand(at: OpenRun, chunk: Chunk, session: Session, *, models: bool = False) -> int:
    found = at.source.find(
        union_query(chunk.ranges), session=session, batch_size=WHOLE_CHUNK, collation=SIMPLE
    )
    users = list(found.sort("_id", 1))
    targets = at.migration.targets
    made = by_hand.split(users)
    if models:
        for target, documents in zip(targets, made, strict=True):
            for document in documents:
                target.model_validate(document)
    _insert([(at.target(t), rows) for t, rows in zip(targets, made, strict=True)], session)
    at.data[OWN_LEDGER].insert_one(
        {"_id": chunk.n, "docs": len(users), "finished": now()}, session=session
    )
    return len(users)


def _insert(parts: Parts, session: Session) -> None:
    for target, documents in parts:
        if documents:
            target.insert_many(documents, ordered=False, session=session)


def _prebuilt(at: OpenRun, chunk: Chunk) -> Parts:
    with at.client.start_session() as session:
        parts = by_pipeline(at, union_query(chunk.ranges), session).parts
    return [
        (at.target(at.migration.keys[key]), [RawBSONDocument(part) for part in documents])
        for key, documents in parts.items()
    ]
