"""Fences in the ledger: a counter on each chunk's row that orders who writes its targets.

A transaction that writes targets of a chunk increments the chunk's fence first, in the same
transaction. Of two that did, one has seen the other's commit (docs/architecture.md, I1). It must be
an increment: a write that changes nothing orders nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

from mongosplit.errors import FenceBusy, MongosplitError
from mongosplit.ledger.book import Ledger, chunk_key
from mongosplit.ledger.chunks import from_row
from mongosplit.model import Chunk
from mongosplit.mongo import WRITE_CONFLICT, Session


def take(ledger: Ledger, session: Session, run: str, n: int) -> Chunk:
    """Increment the chunk's fence as the first write of the transaction, and read its state.

    Raises:
        FenceBusy: another transaction holds the fence.
    """
    with _busy(f"chunk {n} of {run} is held by another transaction"):
        row = ledger["chunks"].find_one_and_update(
            {"_id": chunk_key(run, n)},
            {"$inc": {"fence": 1}},
            session=session,
            return_document=ReturnDocument.AFTER,
        )
    if row is None:
        raise MongosplitError(f"run {run} has no chunk {n}", hint=f"mongosplit status {run}")
    return from_row(row)


def take_all(ledger: Ledger, session: Session, run: str, numbers: Iterable[int]) -> list[Chunk]:
    """Increment the fences of several chunks as the first write, and read their states.

    One write for all: a find-and-modify for each costs five times as much (measured).

    Raises:
        FenceBusy: another transaction holds the fence of one of them.
    """
    here = {"_id": {"$in": [chunk_key(run, n) for n in numbers]}}
    with _busy(f"a chunk of {run} is held by another transaction"):
        ledger["chunks"].update_many(here, {"$inc": {"fence": 1}}, session=session)
    return [from_row(row) for row in ledger["chunks"].find(here, session=session)]


@contextmanager
def _busy(sentence: str) -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        if error.code == WRITE_CONFLICT:
            raise FenceBusy(sentence) from error
        raise
