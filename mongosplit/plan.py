"""Dividing a collection into chunks: the walk over its `_id` index, and which chunk an id is in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from mongosplit.errors import Failed, Refused, UsageError
from mongosplit.keyspace import EXACT_IDS, Bracket, Range, sort_key, union_query

LARGEST_CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """A chunk before it is in the ledger: number from 1, ranges, documents when it was planned.

    Ordinary chunks have one range. The last chunk is the tail: all that no other chunk covers.
    """

    n: int
    ranges: tuple[Range, ...]
    docs: int
    tail: bool = False


def walk(
    collection: Collection[Any],
    *,
    chunk_size: int,
    on_progress: Callable[[int], None] | None = None,
    session: ClientSession | None = None,
) -> Iterator[PlannedChunk]:
    """Divide the whole key space of a collection into chunks of `chunk_size` documents, lazily.

    Each step skips along the `_id` index: constant memory, linear time. The last chunk of a type
    bracket is smaller, the tail comes last. `on_progress` gets the number of documents planned so
    far, after every chunk. Raises UsageError for a chunk size outside 1 to 100,000, and Refused
    when a collation orders ids of text, since only the order of their bytes is known here.
    """
    if not 1 <= chunk_size <= LARGEST_CHUNK:
        raise UsageError(
            f"chunk size {chunk_size:,} is not between 1 and {LARGEST_CHUNK:,}",
            hint="give --chunk-size 1000 (MONGOSPLIT_CHUNK_SIZE)",
        )
    index = Index(collection, session)
    if index.has_collated_ids():
        raise Refused(
            f"{collection.name} has ids of text, ordered by a collation that ranges cannot follow",
            hint=f"copy {collection.name} into a collection without a default collation",
        )
    return _chunks(index, chunk_size, on_progress or (lambda _: None))


class KeyMap:
    """Which chunk an `_id` is in, for chunks that divide the whole key space.

    Made from the number and the ranges of every chunk, in any order; raises Failed when the
    chunks overlap or leave a gap.
    """

    def __init__(self, chunks: Iterable[tuple[int, Sequence[Range]]]) -> None:
        spans = sorted((part.start, part.end, n) for n, ranges in chunks for part in ranges)
        self._starts = [start for start, _, _ in spans]
        self._chunks = [n for _, _, n in spans]
        ends = [end for _, end, _ in spans]
        bottom, top = Range(Bracket.MIN_KEY).start, Range(Bracket.MAX_KEY).end
        if [bottom, *ends] != [*self._starts, top]:
            raise Failed(
                "the chunks do not divide the key space: they overlap or leave a gap",
                hint="plan the run again: mongosplit plan",
            )

    def chunk_of(self, value: object) -> int:
        """The number of the chunk that a decoded `_id` is in; TypeError for what cannot be one."""
        return self._chunks[bisect_right(self._starts, sort_key(value)) - 1]


class Index:
    """The `_id` index of one collection, read by position."""

    def __init__(self, collection: Collection[Any], session: ClientSession | None) -> None:
        self._rows: Collection[RawBSONDocument] = collection.with_options(codec_options=EXACT_IDS)
        self._session = session

    def id_at(self, within: dict[str, Any], skip: int, direction: int = ASCENDING) -> object | None:
        """The id at a position of what a query finds, None beyond its end."""
        row = self._rows.find_one(
            within,
            {"_id": 1},
            sort=[("_id", direction)],
            hint={"_id": 1},
            skip=skip,
            session=self._session,
        )
        return None if row is None else row["_id"]

    def boundary(self, within: Range, size: int) -> tuple[object, int] | None:
        """The first id from position `size` on that can be a bound, and its position."""
        skip = size
        found = self.id_at(within.query(), skip)
        while found is not None and not _restorable(found):
            skip += 1
            found = self.id_at(within.query(), skip)
        return None if found is None else (found, skip)

    def largest(self, within: Range) -> object | None:
        """The largest id, or None when there is none that can be a bound."""
        found = self.id_at(within.query(), 0, DESCENDING)
        return found if _restorable(found) else None

    def count(self, within: Range) -> int:
        """How many documents the range holds."""
        return self._rows.count_documents(within.query(), hint={"_id": 1}, session=self._session)

    def has_collated_ids(self) -> bool:
        """Whether a collation orders ids that are there (documents may hold text, too)."""
        text = union_query([Range(Bracket.STRING), Range(Bracket.OBJECT)])
        return "collation" in self._rows.options() and self.id_at(text, 0) is not None


def _restorable(value: object) -> bool:
    """Whether a decoded id can be sent back as a bound; text of invalid UTF-8 cannot."""
    try:
        bson.encode({"": value})
    except UnicodeEncodeError:
        return False
    return True


def _divide(
    index: Index, bracket: Bracket, size: int, tail: list[Range]
) -> Iterator[tuple[Range, int]]:
    """The ranges of one bracket and their sizes; what they leave over is added to `tail`."""
    rest = Range(bracket)
    while not bracket.whole and (cut := index.boundary(rest, size)):
        bound, docs = cut
        yield replace(rest, hi=bound), docs
        rest = Range(bracket, lo=bound)
    largest = None if bracket.whole else index.largest(rest)
    if largest is not None:
        last = replace(rest, hi=largest, upto=True)
        yield last, index.count(last)
        tail.append(Range(bracket, lo=largest, above=True))
    elif docs := index.count(rest):
        yield rest, docs
    else:
        tail.append(rest)


def _chunks(index: Index, size: int, on_progress: Callable[[int], None]) -> Iterator[PlannedChunk]:
    tail: list[Range] = []
    n = planned = 0
    for bracket in Bracket:
        for part, docs in _divide(index, bracket, size, tail):
            n += 1
            planned += docs
            on_progress(planned)
            yield PlannedChunk(n, (part,), docs)
    yield PlannedChunk(n + 1, tuple(tail), 0, tail=True)
