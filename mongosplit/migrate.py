"""migrate_chunk: copy one chunk, in one transaction, under its fence.

Steps of the transaction (docs/architecture.md, copy): take the fence; if the chunk is not pending,
say what the ledger says; derive the range in this snapshot; insert; record state and counts. The
insert is optimistic: validators and unique indexes of the targets judge it. When they refuse, the
transaction is gone and the chunk takes the slow path, which finds the bad documents by name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from mongosplit import breaker, gate, wake
from mongosplit.derive import RowTooLarge, by_pipeline
from mongosplit.divide import TRANSACTION_TOO_LARGE, divide
from mongosplit.errors import Failed
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks, fences, kept, quarantine
from mongosplit.ledger.book import now
from mongosplit.ledger.claims import Attempt, claimed
from mongosplit.model import Chunk, ChunkState, Outcome
from mongosplit.mongo import (
    Session,
    among,
    explained_chunk,
    transact,
)
from mongosplit.open_run import OpenRun
from mongosplit.probe import refused_among
from mongosplit.raw import MAX_DOCUMENT_BYTES
from mongosplit.refusals import Refused, refusals
from mongosplit.slow_path import Sorted, sort_out

WORK = "migrate"

SLOW_ROUNDS = 25
"""How often the server may refuse what the slow path held for good, or the chunk is divided."""
PROBE_EVERY = 8
"""After so many rounds, each of which has named one document, the others are found by halving."""


@dataclass(frozen=True)
class _Copy:
    """One attempt at one chunk."""

    at: OpenRun
    n: int
    attempt: Attempt
    attempts: int
    started: float

    @property
    def milliseconds(self) -> int:
        """Since the attempt began."""
        return int((time.monotonic() - self.started) * 1000)


@dataclass(frozen=True)
class _Way:
    """How to derive: at once, or sorting out the bad documents, by rows or one by one."""

    slow: bool = False
    by_rows: bool = True
    refused: Refused = field(default_factory=dict)


@dataclass
class _Tried:
    """The parts that the last round has tried to insert, by row key."""

    parts: dict[str, list[bytes]] = field(default_factory=dict)


def migrate_chunk(at: OpenRun, n: int, attempt: Attempt) -> Outcome:
    """Migrate the chunk, or report what the ledger says of it.

    Safe to call any number of times, at once, from anywhere.

    Raises:
        FenceBusy: another transaction holds the chunk.
        TransientError: worth another try. Failed: another try will not help.
    """
    started = time.monotonic()
    with explained_chunk(at.run.id, n):
        chunk = chunks.get(at.ledger, at.run.id, n)
    if not chunks.is_wanted(chunk):
        return Outcome(at.run.id, n, "nothing", chunk.state.value)
    with (
        explained_chunk(at.run.id, n),
        at.client.start_session() as session,
        claimed(at.ledger, at.client, session, WORK, at.run.id, n, attempt) as attempts,
    ):
        if held := gate.holds_migration(at):
            return Outcome(at.run.id, n, "held", held)
        outcome = _until_good(_Copy(at, n, attempt, attempts, started), session)
    if outcome.quarantined:
        with explained_chunk(at.run.id, n):
            breaker.look(at.ledger, at.run.id)
    return outcome


def _until_good(copy: _Copy, session: Session) -> Outcome:
    way, tried = _Way(), _Tried()
    for round_ in range(1, SLOW_ROUNDS + 1):
        try:
            return transact(session, _body(copy, way, tried))
        except (RowTooLarge, DocumentTooLarge):
            way = replace(way, slow=True, by_rows=False)
        except BulkWriteError as error:
            way = _slower(way, refusals(error))
        except OperationFailure as error:
            if error.code not in TRANSACTION_TOO_LARGE:
                raise
            divide(copy.at, session, copy.n, actor=copy.attempt.worker)
        if round_ % PROBE_EVERY == 0:
            way = replace(way, refused=way.refused | refused_among(copy.at, tried.parts))
    raise Failed(
        f"chunk {copy.n} of {copy.at.run.id}: the server still refused a document "
        f"after {SLOW_ROUNDS} rounds"
    )


def _slower(way: _Way, found: Refused) -> _Way:
    """The way to take after these refusals; the first only starts the slow path."""
    fits = all(len(part) <= MAX_DOCUMENT_BYTES for part in found)
    known = {**way.refused, **found} if way.slow else {}
    return _Way(slow=True, by_rows=way.by_rows and fits, refused=known)


def _body(copy: _Copy, way: _Way, tried: _Tried) -> Callable[[Session], Outcome]:
    at = copy.at

    def in_transaction(session: Session) -> Outcome:
        chunk = fences.take(at.ledger, session, at.run.id, copy.n)
        if not chunks.is_wanted(chunk):
            session.abort_transaction()
            return Outcome(at.run.id, copy.n, "nothing", chunk.state.value)
        found = _derived(at, chunk, session, way)
        tried.parts = found.parts
        _write(copy, session, chunk, found)
        return Outcome(
            at.run.id,
            copy.n,
            "migrated",
            ChunkState.MIGRATED.value,
            docs=found.docs,
            quarantined=len(found.bad),
            milliseconds=copy.milliseconds,
        )

    return in_transaction


def _derived(at: OpenRun, chunk: Chunk, session: Session, way: _Way) -> Sorted:
    match: Any = union_query(chunk.ranges)
    if chunk.mend:
        held = quarantine.held(at.ledger, at.run.id, chunk.n, session=session)
        match = {"$and": [match, among("_id", held)]}
    # Ids without ranges are found by looking at each; a schema may not speak of ids at all.
    ranged = all(found.bracket.accepted for found in chunk.ranges)
    if way.slow or chunk.mend or not ranged:
        by_rows = way.by_rows and ranged
        return sort_out(at, match, session, way.refused, by_rows=by_rows)
    derived = by_pipeline(at, match, session)
    return Sorted(derived.docs, derived.parts)


def _write(copy: _Copy, session: Session, chunk: Chunk, found: Sorted) -> None:
    at = copy.at
    digest = hashlib.sha256()
    for key, documents in found.parts.items():
        if documents:
            at.sub_batches(key).insert(documents, _inserter(at, key, session))
            digest.update(b"".join(documents))
    for adoption in found.adoptions:
        kept.adopt(at.data, session, adoption)
    kept.keep_adopted(at.ledger, session, at.run.id, chunk.n, found.adoptions)
    if found.bad or chunk.quarantined:
        quarantine.replace(at.ledger, session, at.run.id, chunk.n, found.bad, copy.attempts)
        # The holder may give the key up at this moment, under a fence that is not held here.
        wake.again(at, ((chunk.n, one) for one in found.bad), session)
    done = _done(copy, chunk, found, digest.hexdigest())
    ours = {
        "wave": copy.attempt.wave,
        "worker": copy.attempt.worker,
        "task_id": copy.attempt.task,
        "finished": now(),
    }
    worker, to = copy.attempt.worker, ChunkState.MIGRATED
    chunks.record(at.ledger, session, chunk, to, done | ours, actor=worker, told=done)


def _inserter(at: OpenRun, key: str, session: Session) -> Callable[[Sequence[bytes]], None]:
    target = at.target(at.migration.keys[key])

    def insert(documents: Sequence[bytes]) -> None:
        rows = [RawBSONDocument(document) for document in documents]
        target.insert_many(rows, ordered=False, session=session)

    return insert


def _done(copy: _Copy, chunk: Chunk, found: Sorted, digest: str) -> dict[str, Any]:
    """What was done, in numbers; mended documents are added to what the chunk had already."""
    parts = {
        target.collection: len(found.parts.get(key, ()))
        + (chunk.parts.get(target.collection, 0) if chunk.mend else 0)
        for key, target in copy.at.migration.keys.items()
    }
    gone = chunk.quarantined - found.docs if chunk.mend else 0
    return {
        "docs": chunk.docs - gone if chunk.mend else found.docs,
        "parts": parts,
        "quarantined": len(found.bad),
        "adopted": len(found.adoptions) + (chunk.adopted if chunk.mend else 0),
        "digest": None if chunk.mend else digest,
        "attempts": copy.attempts,
        "milliseconds": copy.milliseconds,
    }
