"""The slow path of a chunk: examine each document, name the bad ones, let the rest go through.

Only a chunk that the server refused comes here. A document whose parts break a schema is examined
by the Python reference, which names field and reason; then its unique keys are held against the
targets (`mongosplit.unique`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mongosplit import raw, reference, schema
from mongosplit.definition import Target
from mongosplit.derive import read_source, rows
from mongosplit.errors import DocumentError
from mongosplit.ledger.kept import Adoption
from mongosplit.ledger.quarantine import Bad
from mongosplit.mongo import DUPLICATE_KEY, Session, among
from mongosplit.open_run import OpenRun
from mongosplit.raw import MAX_DOCUMENT_BYTES, Value
from mongosplit.reference import Parts
from mongosplit.refusals import Refused
from mongosplit.schema import ID_TYPES, Problem
from mongosplit.unique import Duplicate, UniqueKeys, source_path


@dataclass
class Sorted:
    """A chunk's documents, sorted: parts to insert by row key, bad documents, adoptions."""

    docs: int
    parts: dict[str, list[bytes]]
    bad: list[Bad] = field(default_factory=list)
    adoptions: list[Adoption] = field(default_factory=list)


_Split = tuple[Value, Parts | DocumentError]


@dataclass(frozen=True)
class Known:
    """What is known of users who are derived again: who they are, and what of theirs stands.

    `first` are those whose parts stand as they are: they keep their unique keys. `adopted` are, by
    row key, those who have an adopted document there and need no part.
    """

    ids: frozenset[Value] = frozenset()
    first: frozenset[Value] = frozenset()
    adopted: Mapping[str, frozenset[Value]] = field(default_factory=dict)


STRANGERS = Known()
"""Users of whom nothing stands yet."""


def sort_out(
    at: OpenRun,
    match: dict[str, Any],
    session: Session,
    refused: Refused,
    *,
    by_rows: bool,
    known: Known = STRANGERS,
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
            good.append((source_id, _without_adopted(source_id, parts, known)))
    good.sort(key=lambda one: one[0] not in known.first)
    _admit(found, good, UniqueKeys(at, session, [parts for _, parts in good], known.ids))
    return found


def _without_adopted(source_id: Value, parts: Parts, known: Known) -> Parts:
    adopted = {key for key, ids in known.adopted.items() if source_id in ids}
    return {key: part for key, part in parts.items() if key not in adopted} if adopted else parts


def _admit(found: Sorted, good: list[tuple[Value, Parts]], unique: UniqueKeys) -> None:
    """Let each user through whose unique keys are free, or taken by a document to be adopted."""
    for source_id, parts in good:
        try:
            adoptions = unique.take(source_id, parts)
        except Duplicate as error:
            found.bad.append(Bad(source_id, error, error.held_by))
            continue
        except DocumentError as error:
            found.bad.append(Bad(source_id, error))
            continue
        found.adoptions += adoptions.values()
        for key in parts.keys() - adoptions.keys():
            found.parts[key].append(parts[key])


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
    return {"$and": [match, among("_id", ids)]}


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
            raise as_error(at, target, problem)
        if len(part) > MAX_DOCUMENT_BYTES:
            sentence = f"its document in {target.collection} would be larger than 16 MB"
            raise DocumentError("too-large", "", sentence, target=target.collection)
    return parts


def as_error(at: OpenRun, target: type[Target], problem: Problem) -> DocumentError:
    """A break of a target's schema in the words of the source."""
    name, *rest = problem.path
    path = ".".join((source_path(at, target, name), *rest))
    where = f"{target.collection}.{'.'.join(problem.path)}"
    sentence = f"{path} {problem.found}; {where} must be {problem.wanted}"
    return DocumentError(problem.reason, path, sentence, target=target.collection)


def _refused(target: type[Target], code: int) -> DocumentError:
    if code == DUPLICATE_KEY:
        sentence = f"{target.collection} already has a document with one of its unique keys"
        return DocumentError("duplicate", "", sentence, target=target.collection)
    sentence = f"{target.collection} refuses its document (server error {code})"
    return DocumentError("refused", "", sentence, target=target.collection)
