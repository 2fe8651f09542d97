"""Digests of what the targets hold for a chunk, to compare before and after."""

from __future__ import annotations

import hashlib
from typing import Any

from mongosplit import derive, raw
from mongosplit.definition import Target
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks
from mongosplit.model import Chunk
from mongosplit.mongo import Session, among, explained_chunk, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import Value


def of_chunk(at: OpenRun, n: int) -> dict[str, str]:
    """A digest for each target of every document that migrating the chunk could touch.

    Of a shared target those too that it could adopt. All at one snapshot; none of it is written.
    """
    with explained_chunk(at.run.id, n):
        return derive.either_way(lambda independent: _of_chunk(at, n, independent))


def _of_chunk(at: OpenRun, n: int, independent: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    with at.client.start_session(snapshot=True) as session:
        chunk = chunks.get(at.ledger, at.run.id, n, session=session)
        match = union_query(chunk.ranges)
        derived = derive.of_match(at, match, session, independent=independent)
        for key, target in at.migration.keys.items():
            query = _query(target, chunk, derived.parts.get(key, []))
            found[target.collection] = _digest(at, target, query, session)
    return found


def _query(target: type[Target], chunk: Chunk, parts: list[bytes]) -> dict[str, Any]:
    within = union_query(chunk.ranges)
    if target.adopt_by is None:
        return within
    keys: list[Value] = []
    for part in parts:
        value = raw.lookup(part, target.adopt_by)
        if value is not None:
            keys.append(value)
    owned = union_query(chunk.ranges, field=target.owner)
    return {"$or": [within, owned, among(target.adopt_by, keys)]}


def _digest(at: OpenRun, target: type[Target], query: dict[str, Any], session: Session) -> str:
    cursor = at.target(target).find_raw_batches(query, session=session, collation=SIMPLE)
    digest = hashlib.sha256()
    for document in raw_documents(cursor.sort("_id", 1)):
        digest.update(document)
    return digest.hexdigest()
