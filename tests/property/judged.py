"""Documents judged twice: by a server under a validator, and by the schema read in Python."""

from __future__ import annotations

from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from mongosplit import raw, schema
from mongosplit.definition import Target
from mongosplit.raw import Value
from tests.property.hostile import document
from tests.property.stored import Raw

DOCUMENT_FAILED_VALIDATION = 121


def refused_by_server(collection: Raw, documents: list[bytes]) -> set[int]:
    """Which of the documents the collection's validator refuses."""
    collection.delete_many({})
    failed: list[Any] = []
    try:
        collection.insert_many([RawBSONDocument(each) for each in documents], ordered=False)
    except BulkWriteError as error:
        failed = (error.details or {})["writeErrors"]
    assert {each["code"] for each in failed} <= {DOCUMENT_FAILED_VALIDATION}
    return {each["index"] for each in failed}


def refused_by_python(target: type[Target], documents: list[bytes]) -> set[int]:
    rules = target.schema_of_documents()
    return {n for n, each in enumerate(documents) if any(schema.problems(rules, Value(3, each)))}


def guarded(database: Database[Any], target: type[Target]) -> Raw:
    if target.collection not in database.list_collection_names():
        database.create_collection(
            target.collection, validator={"$jsonSchema": target.schema_of_documents()}
        )
    # A refusal quotes the value, which may be a date beyond the year 9999.
    return database.get_collection(target.collection, raw.EXACT)


def assert_agree(database: Database[Any], target: type[Target], documents: list[bytes]) -> None:
    said = refused_by_python(target, documents)
    done = refused_by_server(guarded(database, target), documents)
    for n in sorted(said ^ done):
        raise AssertionError(f"only one refuses {[*raw.elements(documents[n])]}: {n in said=}")


def with_id(part: bytes, n: int) -> bytes:
    return document({**dict(raw.elements(part)), "_id": raw.encode(n)})


def with_value(part: bytes, path: str, value: Value | None) -> bytes:
    head, _, rest = path.partition(".")
    fields: dict[str, Any] = dict(raw.elements(part))
    if rest:
        inner = fields.get(head, raw.encode({}))
        below = with_value(inner.data, rest, value)
        fields[head] = Value(inner.kind, below)
    else:
        fields[head] = value
    return document(fields)
