"""Compare: every target byte of a chunk, or of some users in it, with what the source derives to.

Both sides are read at one snapshot. What is expected comes from the split pipeline, the very
function that copies; or from the Python reference, which would also show a mistake in the
pipeline's compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mongosplit import adopting, compat, derive, raw, standing
from mongosplit.definition import Target
from mongosplit.derive import Derived
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks, kept, quarantine
from mongosplit.ledger.kept import Adoption
from mongosplit.ledger.mismatches import Mismatch
from mongosplit.model import APPLIED, Chunk
from mongosplit.mongo import Session, among, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value
from mongosplit.schema import ID_TYPES


@dataclass(frozen=True)
class Compared:
    """A chunk as it was in the snapshot, how many source documents it has, and what differs."""

    chunk: Chunk
    docs: int
    mismatches: list[Mismatch]

    @property
    def ids(self) -> list[Value]:
        """The users in whom something differs."""
        return list(dict.fromkeys(one.source_id for one in self.mismatches))


def compare(
    at: OpenRun,
    n: int,
    session: Session,
    *,
    independent: bool = False,
    only: list[Value] | None = None,
) -> Compared:
    """Compare in the session's snapshot; `only` are the users to look at, all without."""
    chunk = chunks.get(at.ledger, at.run.id, n, session=session)
    which = union_query(chunk.ranges)
    if only is not None:
        which = {"$and": [which, among("_id", only)]}
    derived = Derived()
    if chunk.state in APPLIED:
        derived = derive.of_match(at, which, session, independent=independent)
    held = quarantine.held(at.ledger, at.run.id, n, session=session)
    adopted = list(kept.adoptions(at.ledger, at.run.id, n, session=session))
    if only is not None:
        adopted = [one for one in adopted if one.source_id in only]
    found: list[Mismatch] = []
    for key, target in at.migration.keys.items():
        theirs = [one for one in adopted if one.collection == target.collection]
        expected = derived.parts.get(key, [])
        found += _compare(at, target, _Chunk(chunk, only), expected, held, theirs, session)
    for view in compat.standing(at):
        found += compat.differing(at, view, which, session)
    return Compared(chunk, derived.docs, found)


@dataclass(frozen=True)
class _Chunk:
    """The chunk, and the users in it that are looked at."""

    chunk: Chunk
    only: list[Value] | None


def _compare(
    at: OpenRun,
    target: type[Target],
    part: _Chunk,
    expected: list[bytes],
    held: set[Value],
    adopted: list[Adoption],
    session: Session,
) -> Iterator[Mismatch]:
    there = _standing(at, target, part, session)
    adopters = {one.source_id for one in adopted}
    if not (held or adopters) and b"".join(expected) == there:
        if target.adopt_by is not None:
            yield from _strays(at, target, part, len(expected), adopters, session)
        return
    actual = list(raw.documents(there))
    if held or adopters:
        # What is in quarantine has no parts, and an adopted document keeps its own values.
        away = held | adopters
        wanted = {standing.id_of(part) for part in expected} & adopters
        expected = [part for part in expected if standing.id_of(part) not in away]
        actual = [document for document in actual if standing.id_of(document) not in adopters]
        yield from _compare_adopted(at, target, adopted, wanted, session)
    if expected != actual:
        yield from _differences(target, expected, actual)
    if target.adopt_by is not None:
        yield from _strays(at, target, part, len(actual), adopters, session)


def _standing(at: OpenRun, target: type[Target], part: _Chunk, session: Session) -> bytes:
    if part.only is None:
        return standing.read(at, target, part.chunk, session)
    found = list(standing.of_ids(at, target, part.only, session, part.chunk))
    found.sort(key=standing.id_of)
    return b"".join(found)


def _differences(
    target: type[Target], expected: Iterable[bytes], actual: Iterable[bytes]
) -> Iterator[Mismatch]:
    wanted = {standing.id_of(part): part for part in expected}
    there = {standing.id_of(document): document for document in actual}
    for source_id, part in wanted.items():
        document = there.get(source_id)
        if document is None:
            yield Mismatch(source_id, target.collection, "", "missing")
        elif document != part:
            for name in _differing_fields(part, document):
                yield Mismatch(source_id, target.collection, name, "different")
    for source_id in there.keys() - wanted.keys():
        yield Mismatch(source_id, target.collection, "", "ghost")


def _differing_fields(part: bytes, document: bytes) -> list[str]:
    ours, theirs = list(raw.elements(part)), list(raw.elements(document))
    names = dict.fromkeys(name for name, _ in (*ours, *theirs))
    first, second = dict(ours), dict(theirs)
    differing = [name for name in names if first.get(name) != second.get(name)]
    return differing or ["(field order)"]


def _compare_adopted(
    at: OpenRun,
    target: type[Target],
    adopted: list[Adoption],
    wanted: set[Value],
    session: Session,
) -> Iterator[Mismatch]:
    for one in adopted:
        source_id = one.source_id
        if not adopting.is_ours(one, adopting.present(at, one, session)):
            yield Mismatch(source_id, target.collection, target.owner, "missing")
        elif source_id not in wanted:
            yield Mismatch(source_id, target.collection, target.owner, "ghost")


def _strays(
    at: OpenRun,
    target: type[Target],
    part: _Chunk,
    own: int,
    adopted: set[Value],
    session: Session,
) -> Iterator[Mismatch]:
    """Documents that name a user of this chunk as owner but stand under another `_id`."""
    of_owner: list[Any] = [union_query(part.chunk.ranges, field=target.owner)]
    if part.only is not None:
        of_owner.append(among(target.owner, part.only))
    query = {"$and": [{target.owner: {"$type": list(ID_TYPES)}}, *of_owner]}
    # Counting needs only the index; the documents are looked at when the count is off.
    if at.target(target).count_documents(query, session=session) == own + len(adopted):
        return
    elsewhere = {"$expr": {"$ne": ["$_id", f"${target.owner}"]}}
    strays = at.target(target).find_raw_batches({"$and": [query, elsewhere]}, session=session)
    for document in raw_documents(strays):
        owner = raw.field(document, target.owner)
        if owner is not None and owner not in adopted:
            yield Mismatch(owner, target.collection, target.owner, "ghost")
