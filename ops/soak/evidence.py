"""Evidence: what stands in the targets and the ledger against what the reference derives.

Independent of sync, copy and verify: of the product only the reference split, the schema read in
Python and the ledger's rows are used. Nothing may be at work meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mongosplit import raw, reference, schema
from mongosplit.chunk_map import ChunkMap
from mongosplit.definition import Index
from mongosplit.mongo import raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.raw import MAX_DOCUMENT_BYTES, Value
from mongosplit.schema import ID_TYPES
from ops.soak import subscribers

APPLIED = ("migrated", "verified")
_Documents = dict[Value, bytes]


@dataclass
class _Stand:
    """Everything as it is, read once."""

    users: _Documents
    targets: dict[str, _Documents]
    chunks: dict[int, dict[str, Any]]
    held: dict[Value, int]
    adopted: dict[tuple[str, Value], Value]
    chunk_of: Mapping[Value, int]
    holders: dict[tuple[str, str, Value], list[bytes]] = field(default_factory=dict)


def differences(at: OpenRun, planted: Mapping[Value, bytes]) -> list[str]:
    """All that is not as it must be, a sentence each, without values but ids."""
    stand = _read(at)
    expected, found = _expected(at, stand)
    found += _targets(at, stand, expected, planted)
    found += _counts(at, stand, expected)
    adopted = {its_id: owner for (_, owner), its_id in stand.adopted.items()}
    found += subscribers.harmed(at.data, planted, adopted)
    found += _claimed(at)
    return found


def _read(at: OpenRun) -> _Stand:
    run = {"run": at.run.id}
    targets = {key: _by_id(at.data[t.collection]) for key, t in at.migration.keys.items()}
    chunks = {row["n"]: row for row in at.ledger["chunks"].find(run)}
    held = {}
    for row in raw_documents(at.ledger["quarantine"].find_raw_batches(run)):
        fields = dict(raw.elements(row))
        held[fields["source_id"]] = fields["chunk"].decode()
    adopted = {}
    keys = {target.collection: key for key, target in at.migration.keys.items()}
    kept = at.ledger["kept"].find_raw_batches({**run, "reason": "adopted"})
    for row in raw_documents(kept):
        fields = dict(raw.elements(row))
        adopted[keys[fields["collection"].decode()], fields["source_id"]] = fields["document_id"]
    users = _by_id(at.source)
    chunk_map = ChunkMap(at)
    chunk_of = {one: chunk_map.chunk_of(one) for one in users}
    stand = _Stand(users, targets, chunks, held, adopted, chunk_of)
    for key, documents in targets.items():
        for document in documents.values():
            for name, value in _unique(at, key, document):
                stand.holders.setdefault((key, name, value), []).append(document)
    return stand


def _by_id(collection: Any) -> _Documents:
    return {_id_of(one): one for one in raw_documents(collection.find_raw_batches({}))}


def _id_of(document: bytes) -> Value:
    value = raw.field(document, "_id")
    assert value is not None  # every stored document has one
    return value


def _unique(at: OpenRun, key: str, document: bytes) -> Iterator[tuple[str, Value]]:
    for index in (Index("_id", unique=True), *at.migration.keys[key].indexes):
        value = raw.lookup(document, index.path)
        if index.unique and not (
            index.only and (value is None or value.type_name not in index.only)
        ):
            yield index.path, value or raw.encode(None)


def _expected(at: OpenRun, stand: _Stand) -> tuple[dict[str, _Documents], list[str]]:
    """The parts that must stand, by row key, and what is wrong with who is in quarantine."""
    expected: dict[str, _Documents] = {key: {} for key in stand.targets}
    found = [
        f"{one.decode()!r} is in quarantine and no longer in the source"
        for one in stand.held.keys() - stand.users.keys()
    ]
    for one, user in stand.users.items():
        n, is_held = stand.chunk_of[one], one in stand.held
        if stand.chunks[n]["state"] not in APPLIED:
            if is_held:
                found.append(f"{one.decode()!r} is in quarantine and chunk {n} is not applied")
            continue
        if is_held and stand.held[one] != n:
            found.append(f"{one.decode()!r} of chunk {n} is in the quarantine of another")
        parts = reference.split(at.migration, user)
        if is_held:
            if not (_is_bad(at, one, parts) or _is_taken(at, stand, one, parts)):
                found.append(f"{one.decode()!r} of chunk {n} is in quarantine for no reason")
            continue
        if _is_bad(at, one, parts):
            found.append(f"{one.decode()!r} of chunk {n} is bad and not in quarantine")
        for key, part in parts.items():
            expected[key][one] = part
    return expected, found


def _is_bad(at: OpenRun, one: Value, parts: Mapping[str, bytes]) -> bool:
    if one.type_name not in ID_TYPES:
        return True
    return any(
        len(part) > MAX_DOCUMENT_BYTES or any(schema.problems(at.schemas[key], Value(3, part)))
        for key, part in parts.items()
    )


def _is_taken(at: OpenRun, stand: _Stand, one: Value, parts: Mapping[str, bytes]) -> bool:
    """Whether somebody else's document has a unique key of these parts, and keeps it."""
    for key, part in parts.items():
        target = at.migration.keys[key]
        for name, value in _unique(at, key, part):
            for holder in stand.holders.get((key, name, value), ()):
                owner = raw.field(holder, target.owner)
                free = owner is None or owner.is_null
                if not (owner == one or (free and name == target.adopt_by)):
                    return True
    return False


def _targets(
    at: OpenRun,
    stand: _Stand,
    expected: Mapping[str, _Documents],
    planted: Mapping[Value, bytes],
) -> Iterator[str]:
    for key, target in at.migration.keys.items():
        there = dict(stand.targets[key])
        if target.adopt_by is not None:
            there = {one: document for one, document in there.items() if one not in planted}
        for one, part in expected[key].items():
            where = f"{one.decode()!r} of chunk {stand.chunk_of[one]} in {target.collection}"
            document, adopted = there.pop(one, None), stand.adopted.get((key, one))
            if adopted is None:
                yield from _part(document, part, where)
            else:
                whole = stand.targets[key].get(adopted)
                yield from _adoption(whole, part, document, target.adopt_by, where)
        yield from _ghosts(stand, key, target.collection, there, expected[key])


def _part(document: bytes | None, part: bytes, where: str) -> Iterator[str]:
    if document is None:
        yield f"{where} is missing"
    elif document != part:
        yield f"{where} is different"


def _adoption(
    adopted: bytes | None, part: bytes, own: bytes | None, name: str | None, where: str
) -> Iterator[str]:
    if own is not None:
        yield f"{where} has a part besides the adopted document"
    if adopted is None:
        yield f"{where}: the adopted document is gone"
    elif name and raw.lookup(adopted, name) != raw.lookup(part, name):
        yield f"{where} has adopted a document with another {name}"


def _ghosts(
    stand: _Stand, key: str, name: str, there: _Documents, expected: _Documents
) -> Iterator[str]:
    for one in there:
        chunk = stand.chunk_of.get(one)
        why = "its user is gone" if chunk is None else f"its chunk is {chunk}"
        yield f"{one.decode()!r} in {name} should not be: {why}"
    for owner_key, owner in stand.adopted:
        if owner_key == key and owner not in expected:
            yield f"{owner.decode()!r} in {name} has adopted and should not have"


def _counts(at: OpenRun, stand: _Stand, expected: Mapping[str, _Documents]) -> Iterator[str]:
    zero = {"docs": 0, "quarantined": 0, "adopted": 0}
    zero |= {f"parts {target.collection}": 0 for target in at.migration.keys.values()}
    right = {n: dict(zero) for n in stand.chunks}
    for one, n in stand.chunk_of.items():
        if stand.chunks[n]["state"] not in APPLIED:
            continue
        right[n]["docs"] += 1
        right[n]["quarantined"] += one in stand.held
        for key, target in at.migration.keys.items():
            if one in expected[key]:
                is_adopted = (key, one) in stand.adopted
                right[n]["adopted" if is_adopted else f"parts {target.collection}"] += 1
    for n, row in sorted(stand.chunks.items()):
        counted = {name: row.get(name, 0) for name in ("docs", "quarantined", "adopted")}
        counted |= {
            f"parts {target.collection}": row.get("parts", {}).get(target.collection, 0)
            for target in at.migration.keys.values()
        }
        for name, number in right[n].items():
            if counted[name] != number:
                yield f"chunk {n} ({row['state']}) counts {counted[name]} {name}, not {number}"


def _claimed(at: OpenRun) -> Iterator[str]:
    """Differences that the product said it had seen, and nobody can have made."""
    told = {"run": at.run.id, "action": "chunk", "facts.mismatches": {"$gt": 0}}
    for name in ("audit", "outbox"):
        for row in at.ledger[name].find(told):
            count = row["facts"]["mismatches"]
            yield f"chunk {row['chunk']}: {count} mismatches were reported that were none"
    if count := at.ledger["foreign"].count_documents({"run": at.run.id}):
        yield f"{count} foreign writes were reported that were none"
