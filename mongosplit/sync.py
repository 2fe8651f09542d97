"""sync_chunks: derive the dirty users of a part of the chunks again, beside the other parts.

Rows are read first, with their stamps. Then, in one transaction: the fences of all chunks
concerned; users of applied chunks are derived again in this snapshot; of users of other chunks
nothing is written, but the fences commit. Only then the rows go, by their stamps
(docs/architecture.md, sync).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from mongosplit.chunk_map import ChunkMap, decoded
from mongosplit.derive import RowTooLarge
from mongosplit.divide import TRANSACTION_TOO_LARGE
from mongosplit.errors import Failed, FenceBusy
from mongosplit.ledger import audit, dirty, fences
from mongosplit.ledger.claims import Attempt, claimed, end_dead, others_of_chunk
from mongosplit.ledger.dirty import Dirty
from mongosplit.model import APPLIED, Chunk, Outcome
from mongosplit.mongo import TOO_LARGE, Session, explained_chunk, transact
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value
from mongosplit.rederive import Changed, Way, Widen, rederive
from mongosplit.refusals import refusals
from mongosplit.stand import Users

WORK = "sync"

MOST_IDS = 500
"""Users in one transaction: more make it no faster (measured: 8,200 ids/s)."""
MOST_SECONDS = 5.0
"""How long one task goes on while there is more."""
WIDER = 4
"""How often others are derived together with a batch who have unique keys that it wants."""
ROUNDS = 12
"""How often the server may refuse a part of a batch before the batch is halved."""


@dataclass(frozen=True)
class _Batch:
    """Dirty rows that are to be derived together, and those who were found to belong to them."""

    rows: Sequence[Dirty]
    beside: frozenset[tuple[Value, int]] = frozenset()

    @property
    def numbers(self) -> set[int]:
        """The chunks whose fences it needs."""
        return {row.chunk for row in self.rows} | {n for _, n in self.beside}

    def halves(self) -> tuple[_Batch, _Batch]:
        """The batch in two, without those beside it."""
        middle = len(self.rows) // 2
        return _Batch(self.rows[:middle]), _Batch(self.rows[middle:])


@dataclass
class _Done:
    """What came of a batch: what was written, and rows whose id another chunk has by now."""

    changed: Changed
    astray: list[Dirty]


def sync_chunks(at: OpenRun, part: int, parts: int, attempt: Attempt) -> Outcome:
    """Derive what is dirty in the chunks whose number modulo `parts` is `part`.

    Goes on for a few seconds while there is more. Chunks that another transaction holds are left
    dirty. Safe to call any number of times, at once, from anywhere.

    Raises:
        TransientError: worth another try. Failed: another try will not help.
    """
    started = time.monotonic()
    busy: set[int] = set()
    docs = quarantined = 0
    with (
        explained_chunk(at.run.id, part),
        at.client.start_session() as session,
        claimed(at.ledger, at.client, session, WORK, at.run.id, part, attempt),
    ):
        while time.monotonic() - started < MOST_SECONDS:
            rows = dirty.read(
                at.ledger, at.run.id, limit=MOST_IDS, part=part, parts=parts, without=busy
            )
            if not rows:
                break
            done = _sync(at, session, _Batch(rows), busy)
            docs, quarantined = docs + len(rows), quarantined + done.bad
        if busy:
            holders = [one for n in busy for one in others_of_chunk(at.ledger, WORK, at.run.id, n)]
            end_dead(at.ledger, at.client, holders, attempt.is_dead)
    return Outcome(
        at.run.id,
        part,
        "synced",
        "",
        docs=docs,
        quarantined=quarantined,
        milliseconds=int((time.monotonic() - started) * 1000),
    )


def _sync(at: OpenRun, session: Session, batch: _Batch, busy: set[int]) -> Changed:
    """Derive a batch; where one of its chunks is busy, chunk by chunk."""
    try:
        done = _until_good(at, session, batch)
    except FenceBusy:
        numbers = {row.chunk for row in batch.rows}
        if len(numbers) == 1:
            busy |= numbers
            return Changed()
        return _together(
            _sync(at, session, _Batch([row for row in batch.rows if row.chunk == n]), busy)
            for n in sorted(numbers)
        )
    except _TooMuch:
        return _together(_sync(at, session, half, busy) for half in batch.halves())
    _put_right(at, done.astray)
    astray = {row.key for row in done.astray}
    dirty.forget(at.ledger, [row for row in batch.rows if row.key not in astray])
    return done.changed


def _together(found: Iterable[Changed]) -> Changed:
    return Changed(bad=sum(one.bad for one in found))


class _TooMuch(Exception):
    """The batch does not go through as one; its halves may."""


def _until_good(at: OpenRun, session: Session, batch: _Batch) -> _Done:
    way = Way()
    for round_ in range(ROUNDS):
        try:
            return transact(session, _body(at, batch, way), wait_for_fence=False)
        except Widen as others:
            batch = _wider(at, batch, others.ids)
            way = replace(way, widen=round_ < WIDER)
        except (RowTooLarge, DocumentTooLarge):
            way = replace(way, slow=True, by_rows=False)
        except BulkWriteError as error:
            found = refusals(error)
            way = replace(way, slow=True, refused={**way.refused, **found} if way.slow else {})
        except OperationFailure as error:
            if error.code not in (*TRANSACTION_TOO_LARGE, *TOO_LARGE):
                raise
            break
    if len(batch.rows) == 1:
        raise Failed(
            f"the server refuses every way to derive a document of chunk {batch.rows[0].chunk} "
            f"of {at.run.id}"
        )
    raise _TooMuch


def _wider(at: OpenRun, batch: _Batch, ids: set[Value]) -> _Batch:
    chunk_map = ChunkMap(at)
    more = {(one, chunk_map.chunk_of(one)) for one in ids}
    return replace(batch, beside=batch.beside | more)


def _body(at: OpenRun, batch: _Batch, way: Way) -> Callable[[Session], _Done]:
    times = [row.time for row in batch.rows if row.time is not None]

    def in_transaction(session: Session) -> _Done:
        if times:
            # The snapshot is not to be older than the newest write that is known.
            session.advance_operation_time(max(times))
        found = fences.take_all(at.ledger, session, at.run.id, batch.numbers)
        by_number = {chunk.n: chunk for chunk in found}
        astray = [row for row in batch.rows if not _is_in(row, by_number)]
        away = {row.key for row in astray}
        chunk_of = {
            row.source_id: by_number[row.chunk]
            for row in batch.rows
            if row.key not in away and by_number[row.chunk].state in APPLIED
        }
        for source_id, n in batch.beside:
            if _holds(by_number.get(n), source_id) and by_number[n].state in APPLIED:
                chunk_of.setdefault(source_id, by_number[n])
        repair = frozenset(row.source_id for row in batch.rows if row.repair)
        changed = Changed()
        if chunk_of:
            changed = rederive(at, Users(chunk_of, repair), way, session)
        if changed.repaired:
            _tell(at, changed, session)
        return _Done(changed, astray)

    return in_transaction


def _tell(at: OpenRun, changed: Changed, session: Session) -> None:
    facts = {"parts": changed.repaired}
    audit.say(at.ledger, "repair", actor="verify", run=at.run.id, session=session, facts=facts)


def _is_in(row: Dirty, by_number: dict[int, Chunk]) -> bool:
    """Whether the row's chunk still holds its id: a chunk may have been divided since."""
    return _holds(by_number.get(row.chunk), row.source_id)


def _holds(chunk: Chunk | None, source_id: Value) -> bool:
    value = decoded(source_id)
    return chunk is not None and any(part.contains(value) for part in chunk.ranges)


def _put_right(at: OpenRun, astray: Sequence[Dirty]) -> None:
    if astray:
        chunk_map = ChunkMap(at)
        dirty.move(at.ledger, ((row, chunk_map.chunk_of(row.source_id)) for row in astray))
