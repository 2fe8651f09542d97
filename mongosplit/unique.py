"""Unique keys of a chunk's parts: which are taken, and by a document that is to be adopted."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from mongosplit import raw, schema, standing
from mongosplit.definition import Index, Target
from mongosplit.errors import DocumentError
from mongosplit.ledger.kept import Adoption
from mongosplit.mongo import Session, among, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import Value
from mongosplit.reference import Parts

_Key = tuple[str, str, Value]
"""A unique key: row key of the target, path, value."""


@dataclass(frozen=True)
class _Taken:
    """A document that already has a unique key in a target."""

    document: bytes
    adoptable: bool


class Duplicate(DocumentError):
    """A unique key is taken; `held_by` is the user whose part has it, None when it is nobody's."""

    def __init__(self, path: str, message: str, *, target: str, held_by: Value | None) -> None:
        super().__init__("duplicate", path, message, target=target)
        self.held_by = held_by


class UniqueKeys:
    """The unique keys that a chunk's parts want, and who has them in this snapshot."""

    def __init__(
        self, at: OpenRun, session: Session, good: Iterable[Parts], ours: Container[Value] = ()
    ) -> None:
        """`ours` are users whose own parts are in nobody's way: they are derived again here."""
        self._at = at
        self._taken = _taken(at, session, good, ours)

    def take(self, source_id: Value, parts: Parts) -> dict[str, Adoption]:
        """Take the unique keys of one user's parts; the adoptions that this means, by row key.

        Raises:
            Duplicate: a key is taken, and not by a document that can be adopted.
            DocumentError: the document that would be adopted cannot be.
        """
        adoptions: dict[str, Adoption] = {}
        for key, part in parts.items():
            target = self._at.migration.keys[key]
            names = [name for name in _keys(target, key, part) if name in self._taken]
            hits = [self._taken[name] for name in names]
            adopted = next((hit.document for hit in hits if hit.adoptable), None)
            if adopted is not None and all(hit.document == adopted for hit in hits):
                adoptions[key] = self._adoption(key, adopted, source_id)
            elif names:
                raise self._duplicate(target, names[0], hits[0].document)
        for key, part in parts.items():
            # Whoever comes next finds these keys taken, by a document that is not to be adopted.
            target = self._at.migration.keys[key]
            self._taken.update({name: _Taken(part, False) for name in _keys(target, key, part)})
        return adoptions

    def _adoption(self, key: str, document: bytes, source_id: Value) -> Adoption:
        target = self._at.migration.keys[key]
        document_id = raw.field(document, "_id")
        assert document_id is not None  # the server gives every document an _id
        adoption = Adoption(target.collection, target.owner, document_id, document, source_id)
        if document_id == source_id:
            self._refuse_wrong(key, adoption)
        return adoption

    def _refuse_wrong(self, key: str, adoption: Adoption) -> None:
        """Under the user's own `_id` the validator holds a document to the schema once adopted."""
        target = self._at.migration.keys[key]
        fields = [field for field in raw.elements(adoption.before) if field[0] != target.owner]
        owned = Value(3, raw.build([*fields, (target.owner, adoption.source_id)]))
        for problem in schema.problems(self._at.schemas[key], owned):
            where = ".".join(problem.path)
            sentence = f"{target.collection} has a document with its _id and {target.adopt_by}"
            sentence += f" that cannot be adopted: its {where} {problem.found}"
            raise DocumentError("not-adoptable", "_id", sentence, target=target.collection)

    def _duplicate(self, target: type[Target], key: _Key, holder: bytes) -> Duplicate:
        _, name, _ = key
        path = source_path(self._at, target, name)
        sentence = f"{target.collection} already has a document with the same {name}, from {path}"
        owner = None if _is_free(target, holder) else raw.field(holder, target.owner)
        return Duplicate(path, sentence, target=target.collection, held_by=owner)


def _keys(target: type[Target], key: str, part: bytes) -> Iterator[_Key]:
    """The unique keys of a part that the server will check."""
    for index in (Index("_id", unique=True), *target.indexes):
        if not index.unique:
            continue
        value = raw.lookup(part, index.path)
        if index.only and (value is None or value.type_name not in index.only):
            continue
        # A unique index holds a missing value as null.
        yield key, index.path, value or raw.encode(None)


def _taken(
    at: OpenRun, session: Session, good: Iterable[Parts], ours: Container[Value]
) -> dict[_Key, _Taken]:
    """The unique keys of these parts that documents in the targets have already."""
    wanted: dict[tuple[str, str], list[Value]] = {}
    for parts in good:
        for key, part in parts.items():
            for _, path, value in _keys(at.migration.keys[key], key, part):
                wanted.setdefault((key, path), []).append(value)
    taken: dict[_Key, _Taken] = {}
    for (key, path), values in wanted.items():
        target = at.migration.keys[key]
        cursor = at.target(target).find_raw_batches(
            among(path, values), session=session, collation=SIMPLE
        )
        for document in raw_documents(cursor):
            if standing.is_part(target, document) and standing.id_of(document) in ours:
                continue
            adoptable = path == target.adopt_by and _is_free(target, document)
            found = raw.lookup(document, path) or raw.encode(None)
            taken[key, path, found] = _Taken(document, adoptable)
    return taken


def _is_free(target: type[Target], document: bytes) -> bool:
    owner = raw.field(document, target.owner)
    return owner is None or owner.is_null


def source_path(at: OpenRun, target: type[Target], name: str) -> str:
    """The source path that a target's field comes from; its own name where it has none."""
    fields = at.migration.fields[target.collection]
    return next((f.path for f in fields if f.name == name), None) or name
