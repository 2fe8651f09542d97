"""Derive users again who are split already: the body of a sync's transaction, under their fences.

What stands is compared with what is derived, byte for byte, and only what differs is written:
first all that goes, then all that comes, so that two users may exchange a unique value. A user who
cannot be split goes to quarantine, one who can be again leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bson.raw_bson import RawBSONDocument

from mongosplit import derive, standing, wake
from mongosplit.definition import Target
from mongosplit.errors import TransientError
from mongosplit.ledger import chunks, kept, quarantined
from mongosplit.ledger.kept import Kept
from mongosplit.model import Chunk
from mongosplit.mongo import Session, among
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import Value
from mongosplit.refusals import Refused
from mongosplit.schema import ID_TYPES
from mongosplit.slow_path import Known, Sorted, sort_out
from mongosplit.stand import Documents, Stand, Users, by_id, look


class Widen(Exception):
    """Users outside have unique keys that are wanted here: they are to be derived together."""

    def __init__(self, ids: set[Value]) -> None:
        super().__init__()
        self.ids = ids


@dataclass(frozen=True)
class Way:
    """How to derive: at once, or sorting out the bad; together with whom as often as needed."""

    slow: bool = False
    by_rows: bool = True
    refused: Refused = field(default_factory=dict)
    widen: bool = True


@dataclass
class Changed:
    """How many parts a repair took out, and how many of the users are in quarantine now."""

    repaired: int = 0
    bad: int = 0


def rederive(at: OpenRun, users: Users, way: Way, session: Session) -> Changed:
    """Make the targets what these users derive to; their fences are taken already.

    Raises:
        BulkWriteError: the server refuses a part. Widen: others are to be derived as well.
        RowTooLarge: no row can carry the parts of one user; the way `by_rows` ends there.
    """
    match: Any = among("_id", users.ids)
    derived = derive.of_match(at, match, session, independent=not way.by_rows)
    expected = {key: by_id(parts) for key, parts in derived.parts.items()}
    stand = look(at, users, expected, session)
    counted = {one for one in users.ids if stand.of(one)} | stand.given_back
    found = Sorted(derived.docs, derived.parts)
    if way.slow or any(one.type_name not in ID_TYPES for one in users.ids):
        found = _sorted(at, users, match, way, expected, stand, session)
        expected = {key: by_id(parts) for key, parts in found.parts.items()}
    for key, ids in stand.adopted.items():
        for source_id in ids:
            expected[key].pop(source_id, None)
    changed = _write(at, users, expected, stand, found, session)
    _count(at, users, expected, stand, found, counted, session)
    return changed


def _sorted(
    at: OpenRun,
    users: Users,
    match: Any,
    way: Way,
    expected: Mapping[str, Documents],
    stand: Stand,
    session: Session,
) -> Sorted:
    unchanged = {
        one
        for one in users.ids
        if all(stand.parts[key].get(one) == parts.get(one) for key, parts in expected.items())
    }
    adopted = {key: frozenset(ids) for key, ids in stand.adopted.items()}
    known = Known(users.ids, frozenset(unchanged), adopted)
    by_rows = way.by_rows and all(one.type_name in ID_TYPES for one in users.ids)
    found = sort_out(at, match, session, way.refused, by_rows=by_rows, known=known)
    holders = {bad.held_by for bad in found.bad if bad.held_by is not None} - users.ids
    if holders and way.widen:
        raise Widen(holders)
    return found


def _write(
    at: OpenRun,
    users: Users,
    expected: Mapping[str, Documents],
    stand: Stand,
    found: Sorted,
    session: Session,
) -> Changed:
    changed = Changed(bad=len(found.bad))
    freed = set(stand.given_back)
    for key, target in at.migration.keys.items():
        there, wanted = stand.parts[key], expected[key]
        gone = {one: doc for one, doc in there.items() if wanted.get(one) != doc}
        changed.repaired += _save(at, users, target, gone, session)
        freed |= gone.keys()
        _delete(at, target, gone, session)
    for key in at.migration.keys:
        there, wanted = stand.parts[key], expected[key]
        come = [doc for one, doc in wanted.items() if there.get(one) != doc]
        if come:
            rows = [RawBSONDocument(document) for document in come]
            at.target(at.migration.keys[key]).insert_many(rows, ordered=False, session=session)
    _adopt(at, users, found, session)
    if found.bad or stand.held:
        bad = [(users.chunk_of[one.source_id].n, one) for one in found.bad]
        quarantined.settle(at.ledger, session, at.run.id, users.ids, bad)
        wake.again(at, bad, session, fenced=users.ids)
    wake.of_users(at, freed, session, without=users.ids)
    return changed


def _save(
    at: OpenRun, users: Users, target: type[Target], gone: Documents, session: Session
) -> int:
    """Save what a repair takes out: the source cannot reproduce it."""
    count = 0
    for source_id in gone.keys() & users.repair:
        chunk = users.chunk_of[source_id]
        found = [Kept(target.collection, source_id, gone[source_id])]
        kept.save(at.ledger, session, chunk, found)
        count += 1
    return count


def _delete(at: OpenRun, target: type[Target], gone: Iterable[Value], session: Session) -> None:
    ids = list(gone)
    if not ids:
        return
    query = standing.query_of(target, ids)
    deleted = at.target(target).delete_many(query, session=session, collation=SIMPLE)
    if deleted.deleted_count != len(ids):
        raise TransientError(f"{target.collection} was touched while users were derived again")


def _adopt(at: OpenRun, users: Users, found: Sorted, session: Session) -> None:
    for adoption in found.adoptions:
        kept.adopt(at.data, session, adoption)
        number = users.chunk_of[adoption.source_id].n
        kept.keep_adopted(at.ledger, session, at.run.id, number, [adoption])


def _count(
    at: OpenRun,
    users: Users,
    expected: Mapping[str, Documents],
    stand: Stand,
    found: Sorted,
    counted: set[Value],
    session: Session,
) -> None:
    """Keep each chunk's numbers what they are; its digest says no more how its parts stand."""
    bad = {one.source_id for one in found.bad}
    adopted = {one.source_id for one in found.adoptions}
    adjusted: list[tuple[Chunk, dict[str, int]]] = []
    for chunk, ids in users.by_chunk():
        there = {one for one in ids if one in bad or _has_part(one, expected, stand, adopted)}
        more: dict[str, int] = {
            "docs": len(there) - len(counted & ids),
            "quarantined": len(bad & ids) - len(stand.held & ids),
            "adopted": len(adopted & ids) - len(stand.given_back & ids),
        }
        for key, target in at.migration.keys.items():
            now, before = expected[key].keys() & ids, stand.parts[key].keys() & ids
            more[f"parts.{target.collection}"] = len(now) - len(before)
        is_same = not any(more.values()) and all(
            expected[key].get(one) == stand.parts[key].get(one) for key in expected for one in ids
        )
        if not is_same:
            more["planned"] = more["docs"]
            adjusted.append((chunk, more))
    chunks.adjust(at.ledger, session, adjusted)


def _has_part(
    one: Value, expected: Mapping[str, Documents], stand: Stand, adopted: set[Value]
) -> bool:
    return one in adopted or any(
        one in documents for documents in (*expected.values(), *stand.adopted.values())
    )
