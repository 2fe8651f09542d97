"""Documents to a server and back as bytes: pymongo would read some of them as something else."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from mongosplit import raw

Raw = Collection[Any]


def refill(collection: Raw, documents: Iterable[bytes]) -> list[bytes]:
    """Make these the collection's only documents; return them as it keeps them, in `_id` order."""
    collection.delete_many({})
    if fresh := [RawBSONDocument(each) for each in documents]:
        collection.insert_many(fresh)
    return cut(collection.find_raw_batches({}, sort={"_id": 1}))


def assert_same(found: Iterable[bytes], wanted: Iterable[bytes]) -> None:
    """Fail on the first document that differs by a byte, and show it."""
    for one, other in zip_longest(found, wanted, fillvalue=b"\5\0\0\0\0"):
        assert one == other, f"{[*raw.elements(one)]} is not {[*raw.elements(other)]}"


def cut(batches_of_bytes: Iterable[Any]) -> list[bytes]:
    """The documents of a raw cursor."""
    return [each for batch in batches_of_bytes for each in raw.documents(batch)]
