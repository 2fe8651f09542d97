"""Derive: the parts of a set of source documents, by the split pipeline or by the reference.

Copying, verifying and syncing all derive through here, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pymongo.errors import OperationFailure

from mongosplit import raw, reference
from mongosplit.mongo import TOO_LARGE, Session, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE, split_stages
from mongosplit.reference import Parts

T = TypeVar("T")
WHOLE_CHUNK = 100_000
"""Batch size that asks for a whole chunk at once; the server still cuts at 16 MB."""


@dataclass
class Derived:
    """The parts of some source documents: BSON documents by row key, in `_id` order."""

    docs: int = 0
    parts: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, key: str, document: bytes) -> None:
        """One part more."""
        self.parts.setdefault(key, []).append(document)


class RowTooLarge(Exception):
    """A row of the split pipeline is larger than a document may be; the reference takes over."""


def by_pipeline(at: OpenRun, match: dict[str, Any], session: Session) -> Derived:
    """The parts of the source documents that `match` finds, cut from raw rows, nothing decoded.

    Raises:
        RowTooLarge: the parts of one document together exceed 16 MB.
    """
    derived = Derived(parts={key: [] for key in at.migration.keys})
    lists = {ord(key): documents for key, documents in derived.parts.items()}
    for batch in _row_batches(at, match, session):
        derived.docs += _cut_rows(batch, lists)
    return derived


def of_match(
    at: OpenRun, match: dict[str, Any], session: Session, *, independent: bool = False
) -> Derived:
    """The parts, by the pipeline; by the reference where asked.

    Raises:
        RowTooLarge: no row can carry the parts of one document; the reference can.
    """
    return (by_reference if independent else by_pipeline)(at, match, session)


def either_way(work: Callable[[bool], T]) -> T:
    """The work by the pipeline, or else by the reference, which has no rows.

    The server ends a transaction in which a row was too large, so the work begins one of its own.
    """
    try:
        return work(False)
    except RowTooLarge:
        return work(True)


def rows(
    at: OpenRun, match: dict[str, Any], session: Session, *only: dict[str, Any]
) -> Iterator[Parts]:
    """The parts of each source document by itself; `only` are stages that choose among the rows.

    Raises:
        RowTooLarge: the parts of one document together exceed 16 MB.
    """
    for batch in _row_batches(at, match, session, *only):
        for row in raw.documents(batch):
            yield {key: part.data for key, part in raw.elements(row)}


def _row_batches(
    at: OpenRun, match: dict[str, Any], session: Session, *only: dict[str, Any]
) -> Iterator[bytes]:
    stages = [*split_stages(at.split_row, match), *only]
    try:
        yield from cast(
            Iterator[bytes],
            at.source.aggregate_raw_batches(
                stages, session=session, batchSize=WHOLE_CHUNK, collation=SIMPLE
            ),
        )
    except OperationFailure as error:
        if error.code in TOO_LARGE:
            raise RowTooLarge from error
        raise


def _cut_rows(batch: bytes, lists: dict[int, list[bytes]]) -> int:
    """Cut `{a: part, b: part?}` rows into their parts; the hot loop of a migration.

    A row's elements are all `type 3, one-letter name, 0, document`.
    """
    to_int = int.from_bytes
    at, end, rows = 0, len(batch), 0
    while at < end:
        row_end = at + to_int(batch[at : at + 4], "little")
        at += 4
        while batch[at]:
            start = at + 3
            stop = start + to_int(batch[start : start + 4], "little")
            lists[batch[at + 1]].append(batch[start:stop])
            at = stop
        at = row_end
        rows += 1
    return rows


def by_reference(at: OpenRun, match: dict[str, Any], session: Session) -> Derived:
    """The same parts from the Python reference: independent of the pipeline, and slower."""
    derived = Derived(parts={key: [] for key in at.migration.keys})
    for user in read_source(at, match, session):
        derived.docs += 1
        for key, part in reference.split(at.migration, user).items():
            derived.add(key, part)
    return derived


def read_source(at: OpenRun, match: dict[str, Any], session: Session) -> Iterator[bytes]:
    """The source documents that `match` finds, as bytes, in `_id` order."""
    batches = at.source.find_raw_batches(
        match, session=session, batch_size=WHOLE_CHUNK, collation=SIMPLE
    )
    return raw_documents(batches.sort("_id", 1))
