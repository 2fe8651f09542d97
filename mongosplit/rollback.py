"""rollback_chunk: take the parts of one chunk out again, in one transaction, under its fence.

Steps of the transaction (docs/architecture.md, rollback): take the fence; if nobody asks for it any
more, do nothing; compare what stands there with what was inserted, and where that differs with what
the source derives to in this snapshot; save to `kept` what is neither; delete the parts; give
adopted documents their pre-image back; record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mongosplit import adopting, lag, standing, wake
from mongosplit.changes import There, look
from mongosplit.derive import either_way
from mongosplit.errors import Lagging, Refused, TransientError
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks, dirty, fences, kept, quarantine
from mongosplit.ledger.book import now
from mongosplit.ledger.claims import Attempt, claimed
from mongosplit.ledger.kept import Kept
from mongosplit.model import APPLIED, Chunk, ChunkState, Outcome
from mongosplit.mongo import Session, among, explained_chunk, transact
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE

WORK = "rollback"
ON_CHANGE = ("keep", "fail")
"""What happens to targets that were changed since: saved before they go, or the chunk stays."""


def rollback_chunk(at: OpenRun, n: int, attempt: Attempt) -> Outcome:
    """Roll the chunk back if that is asked of it, or report what the ledger says of it.

    Safe to call any number of times, at once, from anywhere.

    Raises:
        Refused: targets were changed since, and the ask says to leave the chunk then.
        FenceBusy: another transaction holds the chunk.
        TransientError: worth another try. Failed: another try will not help.
    """
    started = time.monotonic()
    with explained_chunk(at.run.id, n):
        chunk = chunks.get(at.ledger, at.run.id, n)
    if not _wanted(chunk):
        return Outcome(at.run.id, n, "nothing", chunk.state.value)
    with (
        explained_chunk(at.run.id, n),
        at.client.start_session() as session,
        claimed(at.ledger, at.client, session, WORK, at.run.id, n, attempt),
    ):
        return either_way(
            lambda slow: transact(session, _body(at, n, attempt, started, independent=slow))
        )


def _wanted(chunk: Chunk) -> bool:
    return chunk.undo is not None and chunk.state in APPLIED


def _body(
    at: OpenRun, n: int, attempt: Attempt, started: float, *, independent: bool
) -> Callable[[Session], Outcome]:
    def in_transaction(session: Session) -> Outcome:
        chunk = fences.take(at.ledger, session, at.run.id, n)
        if chunk.undo is None or chunk.state not in APPLIED:
            session.abort_transaction()
            return Outcome(at.run.id, n, "nothing", chunk.state.value)
        there = look(at, chunk, session, independent=independent)
        there = _without_dirty(at, there, session)
        changed = [found for target in there for found in target.changed]
        if changed and chunk.undo["on_change"] == "fail":
            _refuse_lag(at, chunk, changed)
            raise _refusal(chunk, changed)
        _take_out(at, chunk, session, there, changed)
        milliseconds = int((time.monotonic() - started) * 1000)
        _record(at, session, chunk, there, attempt, milliseconds)
        return Outcome(
            at.run.id,
            n,
            "rolled back",
            ChunkState.ROLLED_BACK.value,
            docs=chunk.docs,
            kept=len(changed),
            milliseconds=milliseconds,
        )

    return in_transaction


def _without_dirty(at: OpenRun, there: list[There], session: Session) -> list[There]:
    """Without the parts of users who are dirty: those differ because a sync is still to come."""
    ids = [found.document_id for target in there for found in target.changed]
    lagging = dirty.among(at.ledger, at.run.id, ids, session=session) if ids else set()
    return [
        replace(target, changed=[one for one in target.changed if one.document_id not in lagging])
        for target in there
    ]


def _refuse_lag(at: OpenRun, chunk: Chunk, changed: list[Kept]) -> None:
    """Whether what differs was changed in the target is not known while its user is written.

    Raises:
        Lagging: it will be, once the follower has marked what it has not seen yet.
    """
    ids = [found.document_id for found in changed]
    position = lag.look(at, ids)
    if position is not None and lag.written(at, position, ids):
        raise Lagging(f"users of chunk {chunk.n} of {chunk.run} are being written")


def _take_out(
    at: OpenRun, chunk: Chunk, session: Session, there: list[There], changed: list[Kept]
) -> None:
    kept.save(at.ledger, session, chunk, changed)
    for found in there:
        _delete(at, chunk, session, found)
        for adoption, present in found.adopted:
            adopting.give_back(at, adoption, present, session)
    kept.forget_adoptions(at.ledger, session, at.run.id, chunk.n)
    wake.where(at, union_query(chunk.ranges, field="held_by"), session)
    quarantine.clear(at.ledger, session, at.run.id, chunk.n)


def _record(
    at: OpenRun,
    session: Session,
    chunk: Chunk,
    there: list[There],
    attempt: Attempt,
    milliseconds: int,
) -> None:
    done = {"kept": sum(len(found.changed) for found in there), "milliseconds": milliseconds}
    nothing = {"docs": 0, "parts": {}, "quarantined": 0, "adopted": 0, "mismatches": 0}
    facts = {
        **nothing,
        **done,
        "digest": None,
        "check_error": None,
        "closed": False,
        "worker": attempt.worker,
        "task_id": attempt.task,
        "finished": now(),
    }
    parts = {found.target.collection: found.ours for found in there}
    told = {**done, "docs": chunk.docs, "parts": parts}
    to = ChunkState.ROLLED_BACK
    chunks.record(at.ledger, session, chunk, to, facts, actor=attempt.worker, told=told)


def refuse_changed(at: OpenRun, n: int) -> None:
    """Look whether a rollback of the chunk would take out what the source cannot give back.

    Raises:
        Refused: it would.
    """

    def looked(independent: bool) -> tuple[Chunk, list[There]]:
        with at.client.start_session(snapshot=True) as session:
            chunk = chunks.get(at.ledger, at.run.id, n, session=session)
            is_applied = chunk.state in APPLIED
            there = look(at, chunk, session, independent=independent) if is_applied else []
            return chunk, _without_dirty(at, there, session)

    with explained_chunk(at.run.id, n):
        chunk, there = either_way(looked)
    changed = [found for target in there for found in target.changed]
    if changed:
        _refuse_lag(at, chunk, changed)
        raise _refusal(chunk, changed)


def _refusal(chunk: Chunk, changed: list[Kept]) -> Refused:
    where = ", ".join(sorted({found.collection for found in changed}))
    count = len(changed)
    said = "1 document was" if count == 1 else f"{count:,} documents were"
    return Refused(
        f"chunk {chunk.n} of {chunk.run}: {said} changed in {where} since it was migrated",
        hint="--on-change keep saves them before they go",
    )


def _delete(at: OpenRun, chunk: Chunk, session: Session, there: There) -> None:
    query: Any = standing.query(there.target, chunk)
    if there.adopted:
        theirs = among("_id", (one.document_id for one, _ in there.adopted))
        query = {"$and": [query, {"$nor": [theirs]}]}
    deleted = at.target(there.target).delete_many(query, session=session, collation=SIMPLE)
    if deleted.deleted_count != there.ours:
        raise TransientError(f"chunk {chunk.n} of {chunk.run} was touched while it was rolled back")
