"""The ledger's collections, their indexes, and how they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pymongo import ASCENDING, IndexModel
from pymongo.errors import CollectionInvalid, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mongosplit.mongo import Client, Data, Documents, Session, exact, transact
from mongosplit.raw import Value

T = TypeVar("T")
NAMESPACE_EXISTS = 48

_BY_CHUNK = IndexModel([("run", ASCENDING), ("chunk", ASCENDING)])
INDEXES: dict[str, list[IndexModel]] = {
    "runs": [
        IndexModel(
            "source",
            name="one_unfinished_run",
            unique=True,
            partialFilterExpression={"unfinished": True},
        ),
        IndexModel([("name", ASCENDING), ("number", ASCENDING)], unique=True),
    ],
    "chunks": [
        IndexModel([("run", ASCENDING), ("state", ASCENDING), ("n", ASCENDING)]),
        *(
            IndexModel(
                [("run", ASCENDING), ("n", ASCENDING)],
                name=f"asked_to_{asked}",
                partialFilterExpression={asked: {"$exists": True}},
            )
            for asked in ("mend", "undo")
        ),
    ],
    "waves": [IndexModel([("run", ASCENDING), ("state", ASCENDING)])],
    "claims": [IndexModel([("run", ASCENDING), ("work", ASCENDING)])],
    "quarantine": [
        _BY_CHUNK,
        IndexModel([("run", ASCENDING), ("reason", ASCENDING)]),
        IndexModel(
            [("run", ASCENDING), ("held_by", ASCENDING)],
            name="waits_for",
            partialFilterExpression={"held_by": {"$exists": True}},
        ),
    ],
    "kept": [_BY_CHUNK],
    "mismatches": [_BY_CHUNK],
    "probe": [],
    "dirty": [IndexModel([("run", ASCENDING), ("chunk", ASCENDING)])],
    "followers": [],
    "foreign": [IndexModel("run")],
    "outbox": [IndexModel([("at", ASCENDING), ("_id", ASCENDING)])],
    "audit": [
        IndexModel("entry", unique=True),
        IndexModel([("run", ASCENDING), ("_id", ASCENDING)]),
    ],
}


ADVISORY = frozenset({"claims"})
"""Nothing is decided on these, so writing them waits for no majority."""


@dataclass(frozen=True)
class Ledger:
    """The ledger's database; what decides anything is read and written with a majority."""

    database: Data

    @classmethod
    def at(cls, client: Client, name: str) -> Ledger:
        """The ledger in the database of that name."""
        database = exact(client[name])
        # An _id of text may be no UTF-8, and must not hide the rest of a list.
        lenient = database.codec_options.with_options(unicode_decode_error_handler="replace")
        return cls(database.with_options(codec_options=lenient))

    def __getitem__(self, collection: str) -> Documents:
        if collection not in INDEXES:
            raise KeyError(collection)
        if collection in ADVISORY:
            return self.database[collection].with_options(
                write_concern=WriteConcern(1), read_concern=ReadConcern("local")
            )
        return self.database[collection]

    def together(self, body: Callable[[Session], T]) -> T:
        """Run the body in a small transaction of the ledger's own."""
        with self.database.client.start_session() as session:
            return transact(session, body)

    def prepare(self) -> None:
        """Make what is missing, so that no transaction ever creates a collection."""
        there = set(self.database.list_collection_names())
        for name, indexes in INDEXES.items():
            if name not in there:
                try:
                    self.database.create_collection(name)
                except (CollectionInvalid, OperationFailure) as error:
                    # Somebody may have made it between the look and the making.
                    if isinstance(error, OperationFailure) and error.code != NAMESPACE_EXISTS:
                        raise
            if indexes:
                self.database[name].create_indexes(indexes)


def chunk_key(run: str, n: int) -> dict[str, Any]:
    """The `_id` of a chunk's rows; the order of its fields is part of it."""
    return {"run": run, "n": n}


def document_key(run: str, source_id: Value) -> str:
    """The `_id` of the row of one document: short, whatever the type of the document's `_id`."""
    return f"{run}:{source_id.digest}"


def now() -> datetime:
    """The present in UTC, as BSON keeps it."""
    moment = datetime.now(UTC).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
