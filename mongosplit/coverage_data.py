"""Walks documents as bytes and counts which field paths occur, of which types, taken or not.

A path is the names of the fields on the way to a value; arrays add no name. What a field of one
type and name in one container means is worked out when it is first met, then looked up by bytes.
Layout of BSON: https://bsonspec.org/spec.html.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

from mongosplit.raw import KINDS

Names = tuple[str, ...]

MAX_NAMES, MAX_PATHS = 500, 10_000
"""At one place, and in all: where names are data (a map by customer number) there is no end."""

FURTHER = "\0"
"""Stands for all names of a place beyond these limits; no field can be called that."""

_MOST_COMBINATIONS = 64
_ANYWHERE = 1 << 30
_NESTED = 2
_EMPTY_BYTES = 5
_OBJECT, _ARRAY, _BOOL, _REGEX = 0x03, 0x04, 0x08, 0x0B
_IN_ARRAYS = ("", "array of ", "nested array of ")
_int32 = Struct("<i").unpack_from

# Bytes of a value, and beside what the int32 at its start says; types without any are left out.
_FIXED = {_BOOL: 1, 0x10: 4, 0x01: 8, 0x09: 8, 0x11: 8, 0x12: 8, 0x07: 12, 0x13: 16}
_PREFIXED = {_OBJECT: 0, _ARRAY: 0, 0x0F: 0, 0x02: 4, 0x0D: 4, 0x0E: 4, 0x05: 5, 0x0C: 16}


class Reader(NamedTuple):
    """A target field, called `name`, as seen from the source: the path it reads and when.

    `whole`: it takes what is below the path, too, and not only what the value there says.
    `needs`: the paths that must be true in a document for it to take anything.
    """

    name: str
    names: Names
    whole: bool
    needs: frozenset[Names]


class Occurrences(NamedTuple):
    """One path: in how many documents, with which types, its readers, and how often none takes."""

    names: Names
    documents: int
    types: dict[str, int]
    readers: list[Reader]
    residual: int


@dataclass(slots=True)
class _Container:
    """The fields of the documents at a path (`depth` 0) or the elements of the arrays there.

    `depth` counts arrays up to two; `direct` says that none is on the way. Readers of more than
    `reach` names do not get here: an expression does not look into an array inside an array.
    """

    names: Names
    depth: int
    direct: bool
    reach: int
    steps: dict[bytes, _Step] = field(default_factory=dict)


# Bytes of the value and whether it has a prefix; the condition it decides; its mark, which stands
# for path and type; what to walk instead unless it is empty. A plain tuple unpacks fastest.
_Step = tuple[int, bool, Names | None, int, _Container | None]


class Tally:
    """What occurs in the documents added; its size does not grow with their number.

    A path counts once for a document, and a type once for a path of a document. A value counts at
    its own path unless it is a container that is not empty: then what it holds counts. Of two
    fields of one name in one document, which no driver writes, both count.
    """

    def __init__(self, readers: list[Reader], *, max_paths: int = MAX_PATHS) -> None:
        self._readers = readers
        self._max_paths = max_paths
        self._read = {r.names[: n + 1] for r in readers for n in range(len(r.names))}
        self._read_below = {names[:-1] for names in self._read}
        self._conditions = _deciding(readers)
        self._containers: dict[tuple[Names, int, bool, int], _Container] = {}
        self._places: dict[tuple[Names, int], int] = {}
        self._readers_of: list[list[Reader]] = []
        self._marks: dict[tuple[int, str], int] = {}
        self._place_of: list[int] = []
        # A path beyond an array in an array counts apart, and only where it is nowhere else.
        self._place_twins: dict[int, int] = {}
        self._mark_twins: dict[int, int] = {}
        self._marked: Counter[int] = Counter()
        self._found: dict[frozenset[Names], Counter[int]] = defaultdict(Counter)
        self._documents: Counter[int] = Counter()
        self._residual: Counter[int] = Counter()
        self._root = self._container((), 0, True, _ANYWHERE)

    def add(self, document: bytes) -> None:
        """Count one document."""
        marks: set[int] = set()
        true: set[Names] = set()
        self._walk(document, 0, self._root, marks, true)
        if self._mark_twins:
            marks = _without_twins(marks, self._mark_twins)
        self._marked.update(marks)
        places = set(map(self._place_of.__getitem__, marks))
        if self._place_twins:
            places = _without_twins(places, self._place_twins)
        self._found[frozenset(true)].update(places)
        if len(self._found) > _MOST_COMBINATIONS:
            self._settle()

    def occurrences(self) -> Iterator[Occurrences]:
        """Every path that occurred, sorted by its names."""
        self._settle()
        types: dict[int, Counter[str]] = defaultdict(Counter)
        for (place, word), mark in self._marks.items():
            types[place][word] = self._marked[mark]
        places_of: dict[Names, list[int]] = defaultdict(list)
        for (names, _), place in self._places.items():
            places_of[names].append(place)
        for names, places in sorted(places_of.items()):
            if documents := sum(self._documents[place] for place in places):
                words = sum((types[place] for place in places), Counter[str]())
                residual = sum(self._residual[place] for place in places)
                readers = self._readers_of[self._places[names, _ANYWHERE]]
                yield Occurrences(names, documents, dict(words.most_common()), readers, residual)

    def _settle(self) -> None:
        for true, found in self._found.items():
            self._documents.update(found)
            for place, documents in found.items():
                if not any(reader.needs <= true for reader in self._readers_of[place]):
                    self._residual[place] += documents
        self._found.clear()

    def _walk(
        self, document: bytes, at: int, container: _Container, marks: set[int], true: set[Names]
    ) -> None:
        """Add the marks of all that the container at this byte holds, and the true conditions."""
        find, steps, in_array = document.find, container.steps, container.depth
        add, int32 = marks.add, _int32
        at += 4
        while document[at]:
            start = find(b"\0", at + 1) + 1
            key = document[at : at + 1] if in_array else document[at : start - 1]
            size, prefixed, condition, mark, inside = steps.get(key) or self._learn(container, key)
            at = start + size
            if prefixed:
                at += int32(document, start)[0]
                if inside is not None and at - start > _EMPTY_BYTES:
                    self._walk(document, start, inside, marks, true)
                    continue
            elif condition is not None:
                if document[start]:
                    true.add(condition)
            elif key[0] == _REGEX:
                at = find(b"\0", find(b"\0", start) + 1) + 1
            add(mark)

    def _learn(self, container: _Container, key: bytes) -> _Step:
        kind, depth, reach = key[0], container.depth, container.reach
        prefixed, word = kind in _PREFIXED, KINDS[kind]
        size = _PREFIXED[kind] if prefixed else _FIXED.get(kind, 0)
        names, direct = container.names, container.direct
        if not depth:
            names = (*names, key[1:].decode("utf-8", "surrogateescape"))
            if self._is_one_too_many(container, names):
                mark = self._mark((*container.names, FURTHER), reach, word)
                return size, prefixed, None, mark, None
        inside = condition = None
        if kind == _ARRAY:
            inside = self._container(names, min(depth + 1, _NESTED), False, reach)
        elif kind == _OBJECT:
            hidden = depth == _NESTED and names in self._read_below
            inside = self._container(names, 0, direct, min(reach, len(names)) if hidden else reach)
        elif kind == _BOOL and direct and names in self._conditions:
            condition = names
        word = _IN_ARRAYS[depth] + ("empty " if inside else "") + word
        step = (size, prefixed, condition, self._mark(names, reach, word), inside)
        container.steps[key] = step
        return step

    def _is_one_too_many(self, container: _Container, names: Names) -> bool:
        full = len(container.steps) >= MAX_NAMES or len(self._places) >= self._max_paths
        known = names in self._read or (names, container.reach) in self._places
        return full and not known

    def _container(self, names: Names, depth: int, direct: bool, reach: int) -> _Container:
        fresh = _Container(names, depth, direct, reach)
        return self._containers.setdefault((names, depth, direct, reach), fresh)

    def _mark(self, names: Names, reach: int, word: str) -> int:
        place = self._place(names, reach)
        mark = self._marks.setdefault((place, word), len(self._marks))
        if mark == len(self._place_of):
            self._place_of.append(place)
            if reach != _ANYWHERE:
                self._mark_twins[mark] = self._mark(names, _ANYWHERE, word)
        return mark

    def _place(self, names: Names, reach: int) -> int:
        place = self._places.setdefault((names, reach), len(self._places))
        if place == len(self._readers_of):
            self._readers_of.append([r for r in self._readers if _takes(r, names, reach)])
            if reach != _ANYWHERE:
                self._place_twins[place] = self._place(names, _ANYWHERE)
        return place


def _takes(reader: Reader, names: Names, reach: int) -> bool:
    depth = len(reader.names)
    near = reader.whole or depth == len(names)
    return depth <= reach and near and names[:depth] == reader.names


def _deciding(readers: list[Reader]) -> set[Names]:
    """The conditions on which it depends whether some path is taken."""
    always = [reader.names for reader in readers if reader.whole and not reader.needs]
    decided: set[Names] = set()
    for reader in readers:
        if not any(reader.names[: len(names)] == names for names in always):
            decided |= reader.needs
    return decided


def _without_twins(found: set[int], twins: dict[int, int]) -> set[int]:
    return {each for each in found if twins.get(each) not in found}
