"""Coverage: what the declaration takes, and for every path that occurs, mapped or residual.

A path is written with dots; arrays add no step, so `adressen.plz` is the postcode of any address.
A name that could be mistaken stands in backticks: one that is empty or `*`, starts with `$`, or
holds a dot, a backtick (doubled), a backslash or what does not print (escaped as in Python, where
`\\udcff` is a byte ff that is not UTF-8). So `` legacy.`kontakt.email` `` is one field inside
`legacy`, and `legacy.kontakt.email` is a field inside a field inside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mongosplit.coverage_data import FURTHER, Names, Occurrences, Reader, Tally
from mongosplit.definition import Field, Migration, Target
from mongosplit.errors import UsageError
from mongosplit.lens import Lens
from mongosplit.lenses import Constant, Default, Equals, NotNull, Presence
from mongosplit.mongo import Documents, raw_documents

BATCH = 1000
"""Documents fetched at a time, and between two calls of `on_progress`."""


@dataclass(frozen=True)
class Mapping:
    """One target field and the source path it reads; a constant reads none.

    `needs` are the paths that must be true for it to take anything. `whole` says that it is given
    all that is below the path, too, and not only what the value there says.
    """

    source: str | None
    target: str
    lens: str
    needs: tuple[str, ...]
    writes_back: bool
    whole: bool

    @property
    def condition(self) -> str:
        """The needs in words; empty without any."""
        if not self.needs:
            return ""
        return f"when {' and '.join(self.needs)} {'is' if len(self.needs) == 1 else 'are'} true"

    def to_json(self) -> dict[str, Any]:
        """What `-o json` prints of it."""
        return asdict(self) | {"condition": self.condition}


def declared(migration: Migration) -> list[Mapping]:
    """The static list: one row for each source path and target field, in declaration order.

    That a target exists is a field of it here, called `when`. A lens that reads a second path has
    a row for that, too.
    """
    return [mapping for target in migration.targets for mapping in _mappings(target)]


def _mappings(target: type[Target]) -> Iterator[Mapping]:
    exists: tuple[str, ...] = ()
    if target.when is not None:
        path = target.when.path
        exists = (path,)
        yield Mapping(path, f"{target.collection}.when", "exists when true", (), True, whole=False)
    for field in target.fields():
        yield from _of_field(field, f"{target.collection}.{field.name}", exists)


def _of_field(field: Field, name: str, exists: tuple[str, ...]) -> Iterator[Mapping]:
    lens, words, needs = field.lens, _words(field.lens), exists
    whole = not isinstance(lens, Equals | Presence)
    yield Mapping(field.path, name, words, exists, field.writes_back, whole)
    if isinstance(lens, Presence) and field.path is not None:
        words, needs = "copy", (*exists, field.path)
    for path in lens.reads:
        yield Mapping(path, name, words, needs, writes_back=False, whole=True)


def _words(lens: Lens) -> str:
    literal = partial(json.dumps, ensure_ascii=False, default=str)
    match lens:
        case NotNull():
            words = "copy unless null"
        case Default():
            words = f"default {literal(lens.value)}" + (', also for ""' if lens.blank else "")
        case Equals():
            words = f"equals {literal(lens.text)}"
        case Presence():
            words = "true when present"
        case Constant():
            words = f"constant {literal(lens.value)}"
        case _:
            words = type(lens).__name__.lower()
    return words


def mapping_table(migration: Migration) -> str:
    """The static list as a Markdown table."""
    lines = ["| source | target | lens | condition | written back |", "|---|---|---|---|---|"]
    for mapping in declared(migration):
        source = "–" if mapping.source is None else f"`{mapping.source}`"
        back = "yes" if mapping.writes_back else "no"
        cells = [source, f"`{mapping.target}`", mapping.lens, mapping.condition, back]
        lines.append(" | ".join(["", *(cell.replace("|", r"\|") for cell in cells), ""]).strip())
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class FieldPath:
    """One field path that occurs, in numbers of documents.

    `types` are the server's words, with "array of" before what an array holds; in a document with
    several types under one path each counts. `mapped_to` are the target fields that read it or take
    it with what is above it. `residual` counts the documents in which none of them takes it.
    """

    path: str
    documents: int
    types: dict[str, int]
    mapped_to: tuple[str, ...]
    residual: int

    @property
    def taken(self) -> int:
        """The documents in which some target takes it."""
        return self.documents - self.residual


@dataclass(frozen=True)
class Survey:
    """Which field paths occur in the documents that were read, and which of them are taken.

    Its rows are the values a document ends in, once each: scalars, nulls, empty documents and empty
    arrays. A document or array that holds something is no row of its own but its contents are,
    also where a target copies it whole; so no value is listed twice and none is left out. A row
    that ends in `*` counts further names together, where there are so many that they must be data
    (`coverage_data.MAX_NAMES` at one place, `MAX_PATHS` in all).

    It says what the declaration takes. A document in quarantine is not split at all, and an adopted
    document keeps values of its own.
    """

    complete: bool
    documents: int
    of: int
    paths: tuple[FieldPath, ...]

    @property
    def basis(self) -> str:
        """What the numbers rest on, for people."""
        if self.complete:
            return f"all {self.documents:,} documents"
        return f"a random sample of {self.documents:,} of about {self.of:,} documents"

    @property
    def residual(self) -> tuple[FieldPath, ...]:
        """The paths that in some document no target takes."""
        return tuple(path for path in self.paths if path.residual)

    def to_json(self) -> dict[str, Any]:
        """What `-o json` prints."""
        return asdict(self)


def survey(
    collection: Documents,
    migration: Migration,
    *,
    sample: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Read every document, or a random sample of that many, and count what occurs.

    Memory does not grow with the number of documents. Nothing is extrapolated: all numbers are of
    documents read. A full read sees each document that is there from its start to its end; what is
    written meanwhile may be in it or not. The server may draw a document into a sample twice.
    `on_progress` is told after each `BATCH` how many documents are read, and of about how many.

    Raises:
        UsageError: the sample is smaller than one document.
        PyMongoError: the server cannot be read.
    """
    if sample is not None and sample < 1:
        raise UsageError(
            f"a sample of {sample} documents says nothing",
            hint="--sample with 1 or more, or leave it out to read every document",
        )
    about = collection.estimated_document_count()
    expected = about if sample is None else min(sample, about)
    tally, documents = Tally(list(_readers(migration))), 0
    with _read(collection, sample) as cursor:
        for document in raw_documents(cursor):
            tally.add(document)
            documents += 1
            if on_progress is not None and documents % BATCH == 0:
                on_progress(documents, max(documents, expected))
    if on_progress is not None:
        on_progress(documents, documents)
    of = documents if sample is None else max(about, documents)
    return Survey(sample is None, documents, of, tuple(map(_field_path, tally.occurrences())))


def _read(collection: Documents, sample: int | None) -> Any:
    if sample is None:
        return collection.find_raw_batches({}, batch_size=BATCH)
    draw = [{"$sample": {"size": sample}}]
    return collection.aggregate_raw_batches(draw, batchSize=BATCH, allowDiskUse=True)


def _readers(migration: Migration) -> Iterator[Reader]:
    for mapping in declared(migration):
        if mapping.source is not None:
            needs = frozenset(tuple(path.split(".")) for path in mapping.needs)
            names = tuple(mapping.source.split("."))
            yield Reader(mapping.target, names, mapping.whole, needs)


def _field_path(found: Occurrences) -> FieldPath:
    mapped_to = tuple(dict.fromkeys(reader.name for reader in found.readers))
    return FieldPath(shown(found.names), found.documents, found.types, mapped_to, found.residual)


def shown(names: Names) -> str:
    """The path for people; different paths never look the same."""
    return ".".join(map(_shown, names))


def _shown(name: str) -> str:
    if name == FURTHER:
        return "*"
    if name not in ("", "*") and not re.search(r"^\$|[.`\\]", name) and name.isprintable():
        return name
    return f"`{''.join(map(_escaped, name))}`"


def _escaped(character: str) -> str:
    if character == "`":
        return "``"
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode()
