"""verify_chunk: compare every target byte of a chunk with what the source derives to.

Both sides are read at one snapshot. What is expected comes from the split pipeline, the very
function that copies; for a stated share of chunks it comes from the Python reference instead, which
would also show a mistake in the pipeline's compiler.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.definition import Target
from mongosplit.derive import WHOLE_CHUNK, Derived, RowTooLarge, by_pipeline, by_reference
from mongosplit.errors import TransientError
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks, mismatches, quarantine
from mongosplit.ledger.claims import Attempt, claimed
from mongosplit.ledger.mismatches import Mismatch
from mongosplit.model import APPLIED, Chunk, Outcome
from mongosplit.mongo import Session, explained_chunk, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import Value
from mongosplit.schema import ID_TYPES

WORK = "verify"

SNAPSHOT_TRIES = 5
"""How often a chunk is read again when it was touched while it was compared."""


def verify_chunk(
    at: OpenRun, n: int, attempt: Attempt, *, verification: int, independent: bool
) -> Outcome:
    """Compare the chunk, list its mismatches, and mark it verified when there are none.

    A chunk that is not applied must have nothing in the targets. A verification of a later number
    replaces what an earlier one listed.

    Raises:
        TransientError: worth another try. Failed: another try will not help.
    """
    started = time.monotonic()
    with (
        explained_chunk(at.run.id, n),
        at.client.start_session() as session,
        claimed(at.ledger, at.client, session, WORK, at.run.id, n, attempt),
    ):
        for _ in range(SNAPSHOT_TRIES):
            chunk, docs, found = _compared(at, n, independent=independent)
            mismatches.replace(at.ledger, at.run.id, n, found)
            if _checked(at, chunk, verification, found, independent=independent):
                break
        else:
            raise TransientError(f"chunk {n} of {at.run.id} was touched each time it was compared")
    state = chunks.get(at.ledger, at.run.id, n).state
    return Outcome(
        at.run.id,
        n,
        "verified" if not found else "compared",
        state.value,
        docs=docs,
        mismatches=len(found),
        milliseconds=int((time.monotonic() - started) * 1000),
    )


def _checked(
    at: OpenRun, seen: Chunk, verification: int, found: list[Mismatch], *, independent: bool
) -> bool:
    return chunks.checked(
        at.ledger,
        seen,
        verification=verification,
        mismatches=len(found),
        independent=independent,
    )


def is_in_share(n: int, share: float) -> bool:
    """Whether chunk `n` is among the stated share; the same chunks each time, spread evenly."""
    return zlib.crc32(n.to_bytes(8, "little")) / 2**32 < share


def _compared(at: OpenRun, n: int, *, independent: bool) -> tuple[Chunk, int, list[Mismatch]]:
    with at.client.start_session(snapshot=True) as session:
        chunk = chunks.get(at.ledger, at.run.id, n, session=session)
        derived = _expected(at, chunk, session, independent=independent)
        held = quarantine.held(at.ledger, at.run.id, n, session=session)
        adopted = list(quarantine.adopted(at.ledger, at.run.id, n, session=session))
        found: list[Mismatch] = []
        for key, target in at.migration.keys.items():
            theirs = [entry for entry in adopted if entry[0] == target.collection]
            expected = derived.parts.get(key, [])
            found += _compare(at, target, chunk, expected, held, theirs, session)
    return chunk, derived.docs, found


def _expected(at: OpenRun, chunk: Chunk, session: Session, *, independent: bool) -> Derived:
    if chunk.state not in APPLIED:
        return Derived()
    match = union_query(chunk.ranges)
    if not independent:
        try:
            return by_pipeline(at, match, session)
        except RowTooLarge:
            # The reference has no rows, so it takes what the pipeline cannot carry.
            independent = True
    return by_reference(at, match, session)


def _compare(
    at: OpenRun,
    target: type[Target],
    chunk: Chunk,
    expected: list[bytes],
    held: set[Value],
    adopted: list[tuple[str, Value, Value]],
    session: Session,
) -> Iterator[Mismatch]:
    actual = list(_read(at, target, chunk, session))
    adopters = {source_id for _, _, source_id in adopted}
    if held or adopters:
        # What is in quarantine has no parts, and an adopted document keeps its own values.
        away = held | adopters
        wanted = {_id(part) for part in expected} & adopters
        expected = [part for part in expected if _id(part) not in away]
        actual = [document for document in actual if _id(document) not in adopters]
        yield from _compare_adopted(at, target, adopted, wanted, session)
    if b"".join(expected) != b"".join(actual):
        yield from _differences(target, expected, actual)
    if target.adopt_by is not None:
        yield from _strays(at, target, chunk, len(actual), adopters, session)


def _read(at: OpenRun, target: type[Target], chunk: Chunk, session: Session) -> Iterator[bytes]:
    """What stands in the target for the range; of a shared target what stands under its owner.

    What does not was adopted or has strayed, and its `_id` says nothing of whose it is.
    """
    query: dict[str, Any] = union_query(chunk.ranges)
    if target.adopt_by is not None:
        own = {"$expr": {"$eq": ["$_id", f"${target.owner}"]}}
        query = {"$and": [query, {target.owner: {"$type": list(ID_TYPES)}}, own]}
    cursor = at.target(target).find_raw_batches(
        query, session=session, batch_size=WHOLE_CHUNK, collation=SIMPLE
    )
    return raw_documents(cursor.sort("_id", 1))


def _differences(
    target: type[Target], expected: Iterable[bytes], actual: Iterable[bytes]
) -> Iterator[Mismatch]:
    wanted = {_id(part): part for part in expected}
    there = {_id(document): document for document in actual}
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
    adopted: list[tuple[str, Value, Value]],
    wanted: set[Value],
    session: Session,
) -> Iterator[Mismatch]:
    for _, document_id, source_id in adopted:
        query = RawBSONDocument(raw.build([("_id", document_id)]))
        found = raw_documents(at.target(target).find_raw_batches(query, session=session))
        document = next(found, None)
        owner = None if document is None else raw.field(document, target.owner)
        if owner != source_id:
            yield Mismatch(source_id, target.collection, target.owner, "missing")
        elif source_id not in wanted:
            yield Mismatch(source_id, target.collection, target.owner, "ghost")


def _strays(
    at: OpenRun,
    target: type[Target],
    chunk: Chunk,
    own: int,
    adopted: set[Value],
    session: Session,
) -> Iterator[Mismatch]:
    """Documents that name a user of this chunk as owner but stand under another `_id`."""
    of_owner = union_query(chunk.ranges, field=target.owner)
    query = {"$and": [{target.owner: {"$type": list(ID_TYPES)}}, of_owner]}
    # Counting needs only the index; the documents are looked at when the count is off.
    if at.target(target).count_documents(query, session=session) == own + len(adopted):
        return
    elsewhere = {"$expr": {"$ne": ["$_id", f"${target.owner}"]}}
    strays = at.target(target).find_raw_batches({"$and": [query, elsewhere]}, session=session)
    for document in raw_documents(strays):
        owner = raw.field(document, target.owner)
        if owner is not None and owner not in adopted:
            yield Mismatch(owner, target.collection, target.owner, "ghost")


def _id(document: bytes) -> Value:
    value = raw.field(document, "_id")
    assert value is not None  # the server gives every document an _id
    return value
