"""Subscribers of the application's own: inserted before a run, to be adopted and never harmed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import ObjectId

from mongosplit import raw
from mongosplit.mongo import Data, raw_documents
from mongosplit.raw import Value
from ops.seed_hostile import Draw

COLLECTION, OWNER = "newsletter_subscribers", "userId"
SHAPE = {"type": "kunde", "isSubscribed": False, "preferences": {}, "source": "messe"}
OF_USERS, OF_OTHERS = 40, 15


def plant(data: Data, seed: int) -> dict[Value, bytes]:
    """Insert subscribers, many with addresses of users; returns them by `_id`, as stored."""
    draw = Draw(f"subscribers {seed}")
    with_address = {"kontakt.email": {"$type": "string", "$gt": ""}}
    found = data["users"].find(with_address, {"kontakt.email": 1}).sort("_id", 1)
    # Of a hostile user it may be an array.
    users = [user for user in found if isinstance(user["kontakt"], dict)]
    chosen = draw.sample(users, min(OF_USERS, len(users)))
    addresses = dict.fromkeys(user["kontakt"]["email"] for user in chosen)
    documents: list[dict[str, Any]] = []
    for number, address in enumerate(addresses):
        # Some have the field already, without an owner in it.
        more: dict[str, Any] = {OWNER: None} if number % 7 == 5 else {}
        documents.append({**_one(draw, address), **more})
    documents += [_one(draw, f"gast{number}@messe.example") for number in range(OF_OTHERS)]
    data[COLLECTION].insert_many(documents)
    return {_id_of(document): document for document in _whole(data)}


def _one(draw: Draw, address: str) -> dict[str, Any]:
    note = {"note": f"Stand {draw.below(99)}", "points": draw.below(500)}
    return {"_id": ObjectId(draw.randbytes(12)), "email": address, **SHAPE, **note}


def harmed(data: Data, planted: Mapping[Value, bytes], adopted: Mapping[Value, Value]) -> list[str]:
    """What is wrong with them now; `adopted` says of those that are a user's part, whose."""
    there = {_id_of(document): document for document in _whole(data)}
    found: list[str] = []
    for key, before in planted.items():
        now, name = there.get(key), f"subscriber {key.decode()!r}"
        if now is None:
            found.append(f"{name} is gone")
        elif key not in adopted:
            if now != before:
                found.append(f"{name} is nobody's and not as it was")
        elif _without_owner(now) != _without_owner(before):
            found.append(f"{name} is adopted and other values of it were changed")
        elif raw.field(now, OWNER) != adopted[key]:
            found.append(f"{name} is adopted and its owner is another")
    return found


def _without_owner(document: bytes) -> bytes:
    return raw.build([field for field in raw.elements(document) if field[0] != OWNER])


def _whole(data: Data) -> list[bytes]:
    return list(raw_documents(data[COLLECTION].find_raw_batches({})))


def _id_of(document: bytes) -> Value:
    value = raw.field(document, "_id")
    assert value is not None  # every stored document has one
    return value
