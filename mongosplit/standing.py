"""What stands in a target for a chunk: the documents of its range that are a user's own parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from mongosplit import raw
from mongosplit.definition import Target
from mongosplit.derive import WHOLE_CHUNK
from mongosplit.keyspace import union_query
from mongosplit.model import Chunk
from mongosplit.mongo import Session, among, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import Value
from mongosplit.schema import ID_TYPES


def query(target: type[Target], chunk: Chunk) -> dict[str, Any]:
    """What finds them; of a shared target what stands under its owner.

    What does not was adopted or has strayed, and its `_id` says nothing of whose it is.
    """
    within = union_query(chunk.ranges)
    if target.adopt_by is None:
        return within
    return {"$and": [within, *_own(target)]}


def _own(target: type[Target]) -> list[dict[str, Any]]:
    stands_under_its_owner = {"$expr": {"$eq": ["$_id", f"${target.owner}"]}}
    return [{target.owner: {"$type": list(ID_TYPES)}}, stands_under_its_owner]


def read(at: OpenRun, target: type[Target], chunk: Chunk, session: Session) -> bytes:
    """The documents, one behind the other, in `_id` order; cut apart only where that is needed."""
    cursor = at.target(target).find_raw_batches(
        query(target, chunk), session=session, batch_size=WHOLE_CHUNK, collation=SIMPLE
    )
    return b"".join(cast(Iterator[bytes], cursor.sort("_id", 1)))


def query_of(target: type[Target], ids: Iterable[Value]) -> dict[str, Any]:
    """What finds the parts of these users."""
    if target.adopt_by is None:
        return {"$and": [among("_id", ids)]}
    return {"$and": [among("_id", ids), *_own(target)]}


def is_part(target: type[Target], document: bytes) -> bool:
    """Whether a document of the target is a user's own part."""
    return target.adopt_by is None or raw.field(document, target.owner) == id_of(document)


def id_of(document: bytes) -> Value:
    """The `_id` of a document that a server has given."""
    value = raw.field(document, "_id")
    assert value is not None  # the server gives every document an _id
    return value


def of_ids(
    at: OpenRun,
    target: type[Target],
    ids: Iterable[Value],
    session: Session,
    chunk: Chunk | None = None,
) -> Iterator[bytes]:
    """The parts of these users that stand there, each by itself; those of one chunk, if given."""
    of_them: Any = query_of(target, ids)
    if chunk is not None:
        of_them = {"$and": [of_them, union_query(chunk.ranges)]}
    cursor = at.target(target).find_raw_batches(
        of_them, session=session, batch_size=WHOLE_CHUNK, collation=SIMPLE
    )
    return raw_documents(cursor)


def ids(at: OpenRun, target: type[Target], chunk: Chunk, session: Session) -> Iterator[bytes]:
    """The documents that stand in a target for a chunk, nothing of them but their `_id`."""
    cursor = at.target(target).find_raw_batches(
        query(target, chunk), {"_id": 1}, session=session, batch_size=WHOLE_CHUNK, collation=SIMPLE
    )
    return raw_documents(cursor)
