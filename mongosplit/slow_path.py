"""The slow path of a chunk: examine each document, name the bad ones, let the rest go through.

Only a chunk that the server refused comes here. A document whose parts break a schema is examined
by the Python reference, which names field and reason; unique keys are held against the targets, and
a document of the application that has a subscriber's key is adopted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import raw, reference, schema
from mongosplit.definition import Index, Target
from mongosplit.derive import read_source, rows
from mongosplit.errors import DocumentError
from mongosplit.ledger.quarantine import Adoption, Bad
from mongosplit.mongo import DUPLICATE_KEY, Session, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import MAX_DOCUMENT_BYTES, Value
from mongosplit.reference import Parts
from mongosplit.schema import ID_TYPES, Problem


@dataclass
class Sorted:
    """A chunk's documents, sorted: parts to insert by row key, bad documents, adoptions."""

    docs: int
    parts: dict[str, list[bytes]]
    bad: list[Bad] = field(default_factory=list)
    adoptions: list[Adoption] = field(default_factory=list)


@dataclass(frozen=True)
class _Taken:
    """A document that already has a unique key in a target."""

    document: bytes
    adoptable: bool


Refused = dict[bytes, int]
"""Parts the server refused, with its error code."""

_Split = tuple[Value, Parts | DocumentError]
_Key = tuple[str, str, Value]
"""A unique key: row key of the target, path, value."""


def sort_out(
    at: OpenRun, match: dict[str, Any], session: Session, refused: Refused, *, by_rows: bool
) -> Sorted:
    """Sort the source documents that `match` finds, in this transaction's snapshot.

    `refused` are parts that passed here before and the server refused all the same, with its code.
    With `by_rows` the server picks the rows that break a schema and only those are examined in
    Python; without, every document is, which needs no row to fit in 16 MB.

    Raises:
        RowTooLarge: with `by_rows`, the parts of one document together exceed 16 MB.
    """
    found = Sorted(0, {key: [] for key in at.migration.keys})
    good: list[tuple[Value, Parts]] = []
    split = _by_rows if by_rows else _by_reference
    for source_id, parts in split(at, match, session, refused):
        found.docs += 1
        if isinstance(parts, DocumentError):
            found.bad.append(Bad(source_id, parts))
        else:
            good.append((source_id, parts))
    taken = _taken(at, session, good)
    for source_id, parts in good:
        _admit(at, found, source_id, parts, taken)
    return found


def _by_rows(
    at: OpenRun, match: dict[str, Any], session: Session, refused: Refused
) -> Iterator[_Split]:
    breaks = {"$nor": [{"$jsonSchema": {"properties": at.schemas}}]}
    flagged = [_source_id(parts) for parts in rows(at, match, session, {"$match": breaks})]
    wrong = dict(_by_reference(at, _with_ids(match, flagged), session, refused))
    for parts in rows(at, match, session):
        source_id = _source_id(parts)
        if isinstance(error := wrong.get(source_id), DocumentError):
            yield source_id, error
        else:
            yield source_id, _unless_refused(at, parts, refused)


def _with_ids(match: dict[str, Any], ids: list[Value]) -> dict[str, Any]:
    return {"$and": [match, _among("_id", ids)]}


def _among(path: str, values: list[Value]) -> RawBSONDocument:
    """The query for these values, which stay bytes: not all text that is stored can be decoded."""
    return RawBSONDocument(raw.build([(path, raw.subdocument([("$in", raw.array(values))]))]))


def _source_id(parts: Parts) -> Value:
    """The id that every part carries; a document without parts has nothing to tell apart."""
    found = (raw.field(part, "_id") for part in parts.values())
    return next(found, None) or raw.encode(None)


def _by_reference(
    at: OpenRun, match: dict[str, Any], session: Session, refused: Refused
) -> Iterator[_Split]:
    for user in read_source(at, match, session):
        source_id = raw.field(user, "_id")
        assert source_id is not None  # the server gives every document an _id
        try:
            yield source_id, _unless_refused(at, _examined(at, source_id, user), refused)
        except DocumentError as error:
            yield source_id, error


def _unless_refused(at: OpenRun, parts: Parts, refused: Refused) -> Parts | DocumentError:
    for key, part in parts.items() if refused else ():
        if part in refused:
            return _refused(at.migration.keys[key], refused[part])
    return parts


def _examined(at: OpenRun, source_id: Value, user: bytes) -> Parts:
    """The parts of one document.

    Raises:
        DocumentError: the document cannot be split.
    """
    if source_id.type_name not in ID_TYPES:
        raise DocumentError(
            "id-type", "_id", f"_id is of type {source_id.type_name}, which has no ranges"
        )
    parts = reference.split(at.migration, user)
    for key, part in parts.items():
        target = at.migration.keys[key]
        for problem in schema.problems(at.schemas[key], Value(3, part)):
            raise _wrong(at, target, problem)
        if len(part) > MAX_DOCUMENT_BYTES:
            sentence = f"its document in {target.collection} would be larger than 16 MB"
            raise DocumentError("too-large", "", sentence, target=target.collection)
    return parts


def _wrong(at: OpenRun, target: type[Target], problem: Problem) -> DocumentError:
    name, *rest = problem.path
    fields = at.migration.fields[target.collection]
    source = next((f.path for f in fields if f.name == name), None) or name
    path = ".".join((source, *rest))
    where = f"{target.collection}.{'.'.join(problem.path)}"
    sentence = f"{path} {problem.found}; {where} must be {problem.wanted}"
    return DocumentError(problem.reason, path, sentence, target=target.collection)


def _refused(target: type[Target], code: int) -> DocumentError:
    if code == DUPLICATE_KEY:
        sentence = f"{target.collection} already has a document with one of its unique keys"
        return DocumentError("duplicate", "", sentence, target=target.collection)
    sentence = f"{target.collection} refuses its document (server error {code})"
    return DocumentError("refused", "", sentence, target=target.collection)


def _keys(at: OpenRun, key: str, part: bytes) -> Iterator[tuple[_Key, Index]]:
    """The unique keys of a part that the server will check."""
    for index in (Index("_id", unique=True), *at.migration.keys[key].indexes):
        if not index.unique:
            continue
        value = raw.lookup(part, index.path)
        if index.only and (value is None or value.type_name not in index.only):
            continue
        # A unique index holds a missing value as null.
        yield (key, index.path, value or raw.encode(None)), index


def _taken(at: OpenRun, session: Session, good: list[tuple[Value, Parts]]) -> dict[_Key, _Taken]:
    """The unique keys of these parts that documents in the targets have already."""
    wanted: dict[tuple[str, str], list[Value]] = {}
    for _, parts in good:
        for key, part in parts.items():
            for (_, path, value), _ in _keys(at, key, part):
                wanted.setdefault((key, path), []).append(value)
    taken: dict[_Key, _Taken] = {}
    for (key, path), values in wanted.items():
        target = at.migration.keys[key]
        cursor = at.target(target).find_raw_batches(
            _among(path, values), session=session, collation=SIMPLE
        )
        for document in raw_documents(cursor):
            adoptable = path == target.adopt_by and _is_free(target, document)
            value = raw.lookup(document, path) or raw.encode(None)
            taken[key, path, value] = _Taken(document, adoptable)
    return taken


def _is_free(target: type[Target], document: bytes) -> bool:
    owner = raw.field(document, target.owner)
    return owner is None or owner.is_null


def _admit(
    at: OpenRun, found: Sorted, source_id: Value, parts: Parts, taken: dict[_Key, _Taken]
) -> None:
    """Let a user through if each unique key of its parts is free or adoptable."""
    adoptions: dict[str, Adoption] = {}
    for key, part in parts.items():
        target = at.migration.keys[key]
        hits = [(name, taken[name]) for name, _ in _keys(at, key, part) if name in taken]
        adopted = next((hit for _, hit in hits if hit.adoptable), None)
        if adopted is not None and all(hit.document == adopted.document for _, hit in hits):
            document_id = raw.field(adopted.document, "_id")
            assert document_id is not None
            adoptions[key] = Adoption(
                target.collection, target.owner, document_id, adopted.document, source_id
            )
        elif hits:
            found.bad.append(Bad(source_id, _duplicate(at, target, hits[0][0])))
            return
    for key, part in parts.items():
        # Whoever comes next finds these keys taken, by a document that is not to be adopted.
        taken.update({name: _Taken(part, False) for name, _ in _keys(at, key, part)})
        if key in adoptions:
            found.adoptions.append(adoptions[key])
        else:
            found.parts[key].append(part)


def _duplicate(at: OpenRun, target: type[Target], key: _Key) -> DocumentError:
    _, name, _ = key
    fields = at.migration.fields[target.collection]
    path = next((f.path for f in fields if f.name == name), None) or name
    sentence = f"{target.collection} already has a document with the same {name}, from {path}"
    return DocumentError("duplicate", path, sentence, target=target.collection)
