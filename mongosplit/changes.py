"""Changes: what a rollback of a chunk takes out of the targets, and what of it was changed since.

Changed is what is neither as it was inserted nor as the source derives to in this snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from mongosplit import adopting, derive, raw, standing
from mongosplit.definition import Target
from mongosplit.keyspace import union_query
from mongosplit.ledger import kept
from mongosplit.ledger.kept import Adoption, Kept
from mongosplit.model import Chunk
from mongosplit.mongo import Session
from mongosplit.open_run import OpenRun


@dataclass(frozen=True)
class There:
    """What stands in one target for the chunk: parts of ours, adopted documents, what changed."""

    target: type[Target]
    ours: int
    adopted: list[tuple[Adoption, bytes | None]]
    changed: list[Kept]


def look(at: OpenRun, chunk: Chunk, session: Session, *, independent: bool) -> list[There]:
    """What stands in each target for an applied chunk, in this snapshot; nothing is written.

    Raises:
        RowTooLarge: by the pipeline, where no row can carry the parts of one document.
    """
    adopted: dict[str, list[tuple[Adoption, bytes | None]]] = {}
    for one in kept.adoptions(at.ledger, at.run.id, chunk.n, session=session):
        adopted.setdefault(one.collection, []).append((one, adopting.present(at, one, session)))
    targets = at.migration.keys
    ours = {
        key: _ours(standing.read(at, target, chunk, session), adopted.get(target.collection, ()))
        for key, target in targets.items()
    }
    untouched = hashlib.sha256(b"".join(ours.values())).hexdigest() == chunk.digest
    if untouched:
        # Nobody has written since, so nobody's write is lost: the source need not be asked.
        return [
            _there(target, chunk.parts.get(target.collection, 0), [], adopted)
            for target in targets.values()
        ]
    expected = _expected(at, chunk, session, independent)
    return [
        _there(target, *_compared(target, expected[key], ours[key]), adopted)
        for key, target in targets.items()
    ]


def _ours(there: bytes, adopted: Iterable[tuple[Adoption, bytes | None]]) -> bytes:
    """Without adopted documents: one may stand under its owner's `_id`, and is not ours."""
    theirs = {one.document_id for one, _ in adopted}
    if not theirs:
        return there
    found = raw.documents(there)
    return b"".join(document for document in found if standing.id_of(document) not in theirs)


def _expected(at: OpenRun, chunk: Chunk, session: Session, independent: bool) -> dict[str, bytes]:
    match = union_query(chunk.ranges)
    derived = derive.of_match(at, match, session, independent=independent)
    return {key: b"".join(derived.parts.get(key, ())) for key in at.migration.keys}


def _compared(target: type[Target], expected: bytes, ours: bytes) -> tuple[int, list[Kept]]:
    """How many documents stand there, and those of them that the source does not derive to."""
    wanted = set(raw.documents(expected))
    there = list(raw.documents(ours))
    changed = [found for found in there if found not in wanted]
    kept_ = [Kept(target.collection, standing.id_of(found), found) for found in changed]
    return len(there), kept_


def _there(
    target: type[Target],
    count: int,
    changed: list[Kept],
    adopted: dict[str, list[tuple[Adoption, bytes | None]]],
) -> There:
    theirs = adopted.get(target.collection, [])
    overwritten = [
        Kept(target.collection, one.document_id, present)
        for one, present in theirs
        if present is not None and present != one.after()
    ]
    return There(target, count, theirs, [*changed, *overwritten])
