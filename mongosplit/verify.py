"""verify_chunk: compare every target byte of a chunk with what the source derives to.

Both sides are read at one snapshot. What is expected comes from the split pipeline, the very
function that copies; for a stated share of chunks it comes from the Python reference instead, which
would also show a mistake in the pipeline's compiler.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator

from mongosplit import derive, gate, raw, standing
from mongosplit.definition import Target
from mongosplit.derive import Derived
from mongosplit.errors import TransientError
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks, kept, mismatches, quarantine
from mongosplit.ledger.claims import Attempt, claimed
from mongosplit.ledger.kept import Adoption
from mongosplit.ledger.mismatches import Mismatch
from mongosplit.model import APPLIED, Chunk, Outcome
from mongosplit.mongo import Session, by_id, explained_chunk, raw_documents
from mongosplit.open_run import OpenRun
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
        if held := gate.holds_verification(at, n, verification):
            return Outcome(at.run.id, n, "held", held)
        for _ in range(SNAPSHOT_TRIES):
            chunk, docs, found = _compared(at, n, independent=independent)
            mismatches.replace(at.ledger, at.run.id, n, found)
            if chunks.checked(
                at.ledger,
                session,
                chunk,
                verification=verification,
                mismatches=len(found),
                independent=independent,
                actor=attempt.worker,
            ):
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


def is_in_share(n: int, share: float) -> bool:
    """Whether chunk `n` is among the stated share; the same chunks each time, spread evenly."""
    return zlib.crc32(n.to_bytes(8, "little")) / 2**32 < share


def _compared(at: OpenRun, n: int, *, independent: bool) -> tuple[Chunk, int, list[Mismatch]]:
    with at.client.start_session(snapshot=True) as session:
        chunk = chunks.get(at.ledger, at.run.id, n, session=session)
        derived = _expected(at, chunk, session, independent=independent)
        held = quarantine.held(at.ledger, at.run.id, n, session=session)
        adopted = list(kept.adoptions(at.ledger, at.run.id, n, session=session))
        found: list[Mismatch] = []
        for key, target in at.migration.keys.items():
            theirs = [one for one in adopted if one.collection == target.collection]
            expected = derived.parts.get(key, [])
            found += _compare(at, target, chunk, expected, held, theirs, session)
    return chunk, derived.docs, found


def _expected(at: OpenRun, chunk: Chunk, session: Session, *, independent: bool) -> Derived:
    if chunk.state not in APPLIED:
        return Derived()
    return derive.of_match(at, union_query(chunk.ranges), session, independent=independent)


def _compare(
    at: OpenRun,
    target: type[Target],
    chunk: Chunk,
    expected: list[bytes],
    held: set[Value],
    adopted: list[Adoption],
    session: Session,
) -> Iterator[Mismatch]:
    there = standing.read(at, target, chunk, session)
    adopters = {one.source_id for one in adopted}
    if not (held or adopters) and b"".join(expected) == there:
        if target.adopt_by is not None:
            yield from _strays(at, target, chunk, len(expected), adopters, session)
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
        yield from _strays(at, target, chunk, len(actual), adopters, session)


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
        its_id = by_id(one.document_id)
        found = raw_documents(at.target(target).find_raw_batches(its_id, session=session))
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
