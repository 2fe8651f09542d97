"""A part of a run: chunks chosen by number, by range, by ids, or as a sample of all."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from shlex import quote
from typing import Any, Self

from bson import Binary
from bson.binary import UUID_SUBTYPE

from mongosplit.errors import Refused, UsageError
from mongosplit.id_text import from_text
from mongosplit.keyspace import Bracket, Range, sort_key
from mongosplit.ledger.book import Ledger
from mongosplit.plan import KeyMap
from mongosplit.range_text import range_text, read_range

Span = tuple[int, int]
Types = tuple[Bracket, ...]
Row = tuple[int, tuple[Range, ...]]
_MOST_CLAUSES = 100
_HINT = "write --chunks 1-20,37"


@dataclass(frozen=True, slots=True)
class Selection:
    """Numbers of chunks, as spans (first, last) in order that neither overlap nor touch.

    ValueError when they are not so, or there is none: a selection never means everything.
    """

    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        ends = [-1, *(last for _, last in self.spans)]
        in_order = all(
            1 <= first <= last and before + 1 < first
            for before, (first, last) in zip(ends, self.spans, strict=False)
        )
        if not self.spans or not in_order:
            raise ValueError("the spans of a selection are in order, apart, and at least one")

    @classmethod
    def merged(cls, spans: Iterable[Span]) -> Self:
        """The chunks that lie in any of the spans, given in any order; ValueError for none."""
        held: list[Span] = []
        for first, last in sorted(spans):
            if held and first <= held[-1][1] + 1:
                held[-1] = (held[-1][0], max(last, held[-1][1]))
            else:
                held.append((first, last))
        return cls(tuple(held))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """The chunks with these numbers; ValueError for none."""
        return cls.merged((n, n) for n in numbers)

    def __str__(self) -> str:
        return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in self.spans)

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return sum(last - first + 1 for first, last in self.spans)

    @property
    def last(self) -> int:
        """The largest number."""
        return self.spans[-1][1]

    def numbers(self) -> Iterator[int]:
        """Every number, in order."""
        return chain.from_iterable(range(first, last + 1) for first, last in self.spans)

    def contains(self, n: int) -> bool:
        """Whether the chunk is selected."""
        at = bisect_right(self.spans, n, key=lambda span: span[0]) - 1
        return at >= 0 and n <= self.spans[at][1]

    def query(self, field: str = "n") -> dict[str, Any]:
        """The filter for rows whose `field` is selected; may be an `$or`: combine it by `$and`."""
        if len(self.spans) > _MOST_CLAUSES:
            # The server plans every clause of an $or by itself, but searches one $in.
            return {field: {"$in": list(self.numbers())}}
        clauses = [{field: {"$gte": first, "$lte": last}} for first, last in self.spans]
        return clauses[0] if len(clauses) == 1 else {"$or": clauses}

    def to_document(self) -> list[list[int]]:
        """The selection as the ledger keeps it."""
        return [[first, last] for first, last in self.spans]

    @classmethod
    def from_document(cls, document: Sequence[Sequence[int]]) -> Self:
        """What `to_document` wrote, and halves of divided chunks behind it; ValueError for none."""
        return cls.merged((first, last) for first, last in document)


def parse(text: str) -> Selection:
    """The selection that `1-20,37` means; UsageError when it means none."""
    return Selection.merged(map(_span, text.split(",")))


def of_chunks(ledger: Ledger, run: str, asked: Selection) -> Selection:
    """What was asked by number, the tail perhaps among it.

    Raises:
        UsageError: the run has not so many chunks.
    """
    row = ledger["chunks"].find_one({"run": run}, {"n": 1}, sort=[("n", -1)])
    if row is None:
        raise UsageError(f"{run} has no chunks", hint=f"mongosplit status {run}")
    if asked.last > row["n"]:
        raise UsageError(
            f"chunk {asked.last} does not exist: the last one of {run} is {row['n']}",
            hint=f"write --chunks 1-{row['n']}",
        )
    return asked


def of_range(ledger: Ledger, run: str, text: str) -> Selection:
    """The chunks that lie wholly in a range of ids; the tail is never one of them.

    Raises:
        UsageError: the text is no range, or the range holds no part of a chunk.
        Refused: the range holds a part of a chunk only.
    """
    known = brackets(ledger, run)
    wanted = read_range(text, known)
    _expect_uuids(ledger, run, known, (wanted.lo, wanted.hi))
    inside: list[int] = []
    cut: dict[int, Range] = {}
    for n, ranges in _rows(ledger, run, {"tail": None, "ranges.bracket": wanted.bracket.value}):
        for part in ranges:
            if wanted.start <= part.start and part.end <= wanted.end:
                inside.append(n)
            elif part.start < wanted.end and wanted.start < part.end:
                cut[n] = part
    shown = range_text(wanted, known)
    if cut:
        more = replace(wanted, upto=True)
        lacks_one = wanted.hi is not None and more.end in {part.end for part in cut.values()}
        also = f"; with the last id: --range {quote(range_text(more, known))}" if lacks_one else ""
        raise _refused(shown, run, inside, cut, also)
    if not inside:
        raise UsageError(
            f"range {shown} holds no id that a chunk of {run} was planned with",
            hint=f"ids inserted later are in the last chunk, by number: mongosplit status {run}",
        )
    return Selection.of(inside)


def of_ids(
    ledger: Ledger, run: str, lines: Iterable[str], *, name: str = "the file"
) -> tuple[Selection, int]:
    """The chunks, the tail among them, that hold the ids of these lines; and how many ids.

    Blank lines count for nothing, an id that is there twice counts once.

    Raises:
        UsageError: a line of `name` is no id, or there is none.
    """
    known = brackets(ledger, run)
    ids = {sort_key(value): value for value in _ids(lines, name, known)}
    if not ids:
        raise UsageError(f"{name} holds no _id", hint="write one _id on each line")
    _expect_uuids(ledger, run, known, ids.values())
    where = KeyMap(_rows(ledger, run, {}))
    return Selection.of({where.chunk_of(value) for value in ids.values()}), len(ids)


def canary(ledger: Ledger, run: str, share: Fraction) -> Selection:
    """A share of the chunks but the tail: at least one, from the first to the last, evenly spread.

    The same for the same run and share; one chunk alone is the middle one.

    Raises:
        UsageError: no chunk but the tail is there.
    """
    rows = ledger["chunks"].find({"run": run, "tail": None}, {"n": 1}).sort("n", 1)
    numbers = [row["n"] for row in rows]
    if not numbers:
        raise UsageError(f"{run} has no chunk with documents", hint=f"mongosplit status {run}")
    wanted = max(1, math.ceil(share * len(numbers)))
    if wanted == 1:
        return Selection.of([numbers[len(numbers) // 2]])
    top = len(numbers) - 1
    return Selection.of(numbers[step * top // (wanted - 1)] for step in range(wanted))


def brackets(ledger: Ledger, run: str) -> Types:
    """The types of `_id` that the run's chunks were planned with, in the order of the index."""
    found = ledger["chunks"].distinct("ranges.bracket", {"run": run, "tail": None})
    return tuple(bracket for bracket in Bracket if bracket.value in found)


def _span(text: str) -> Span:
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text.strip())
    if found is None:
        raise UsageError("chunks are not given as numbers and spans of numbers", hint=_HINT)
    if max(map(len, found.groups(""))) > 9:
        raise UsageError("no chunk has a number of more than 9 digits", hint=_HINT)
    first, last = int(found[1]), int(found[2] or found[1])
    if first == 0:
        raise UsageError("there is no chunk 0: the first one is 1", hint=_HINT)
    if last < first:
        raise UsageError(f"chunks {first}-{last} run backwards", hint=f"write {last}-{first}")
    return first, last


def _rows(ledger: Ledger, run: str, query: dict[str, Any]) -> Iterator[Row]:
    for row in ledger["chunks"].find({"run": run, **query}, {"n": 1, "ranges": 1}):
        yield row["n"], tuple(map(Range.from_document, row["ranges"]))


def _ids(lines: Iterable[str], name: str, known: Types) -> Iterator[object]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield from_text(line.rstrip("\r\n"), known)
            except UsageError as error:
                raise UsageError(f"line {number} of {name}: {error}", hint=error.hint) from None


def _expect_uuids(ledger: Ledger, run: str, known: Types, ids: Iterable[object]) -> None:
    # Where ids are other binaries a UUID lies beyond all of them, so that `..UUID` is everything.
    asked = any(isinstance(value, Binary) and value.subtype == UUID_SUBTYPE for value in ids)
    if asked and Bracket.BIN_DATA in known:
        least, most = (Binary(byte * 16, UUID_SUBTYPE) for byte in (b"\0", b"\xff"))
        bounds = [{f"ranges.{side}": {"$gte": least, "$lte": most}} for side in ("lo", "hi")]
        if ledger["chunks"].find_one({"run": run, "$or": bounds}, {"_id": 1}) is None:
            hint = 'write {"$binary": {"base64": "…", "subType": "03"}}'
            raise UsageError(f"the binary ids of {run} are no UUIDs of subtype 4", hint=hint)


def _refused(range_: str, run: str, inside: list[int], cut: Iterable[int], also: str) -> Refused:
    named = " and ".join(f"chunk {n}" for n in sorted(cut))
    whole = f"--chunks {Selection.of(inside)}" if inside else "none"
    every = Selection.of([*inside, *cut])
    return Refused(
        f"range {range_} cuts through {named} of {run}",
        hint=f"whole chunks inside: {whole}; with the cut ones: --chunks {every}{also}",
    )
