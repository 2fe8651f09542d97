"""One entry of the audit as bytes: what is hashed, so that a chain of today is proven for ever."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import bson
from bson import ObjectId

from mongosplit import raw
from mongosplit.ledger.audit import NOTHING_BEFORE, link

ROW: dict[str, Any] = {
    "_id": ObjectId("65a1b2c3d4e5f60718293a4b"),
    "at": datetime(2024, 5, 6, 7, 8, 9, 123000),
    "actor": "w1@here",
    "host": "here",
    "action": "migrated",
    "run": "users-1",
    "chunk": 7,
    "facts": {"documents": 3, "seconds": 1.5},
}
HASH = "055e10e47f5f0fa19ac7d56156dd1dd7fb20e7f0c6e9d623fea3f59156b64270"


def test_the_hash_of_an_entry_is_over_all_its_other_fields_as_they_are_stored() -> None:
    document, hash_ = link(3, "ab" * 32, bson.encode(ROW))
    entry = bson.decode(document)
    assert list(entry) == ["_id", "entry", *list(ROW)[1:], "previous", "hash"]
    assert (entry["_id"], entry["entry"], entry["previous"]) == (3, ROW["_id"], "ab" * 32)
    assert entry.pop("hash") == hash_ == hashlib.sha256(bson.encode(entry)).hexdigest()


def test_the_hash_of_an_entry_never_changes_or_older_chains_would_seem_broken() -> None:
    assert link(1, NOTHING_BEFORE, bson.encode(ROW))[1] == HASH


def test_every_field_of_an_entry_its_number_and_its_link_are_in_the_hash() -> None:
    first = link(1, NOTHING_BEFORE, bson.encode(ROW))[1]
    others = [{**ROW, name: "another"} for name in ROW]
    hashes = {link(1, NOTHING_BEFORE, bson.encode(row))[1] for row in others}
    hashes |= {link(2, NOTHING_BEFORE, bson.encode(ROW))[1], link(1, first, bson.encode(ROW))[1]}
    assert len(hashes | {first}) == len(ROW) + 3


def test_a_value_that_python_would_encode_otherwise_keeps_its_bytes() -> None:
    row = raw.build([("_id", raw.encode(1)), ("facts", raw.Value(0x12, (7).to_bytes(8, "little")))])
    stored = raw.field(link(1, NOTHING_BEFORE, row)[0], "facts")
    assert stored == raw.Value(0x12, (7).to_bytes(8, "little"))
