"""The audit in the ledger: who did what, in the order of a chain of hashes nobody can mend unseen.

What is to be told is put into the outbox by the transaction that does it, and moved into the chain
afterwards, by whoever comes by. Nothing holds the chain while it grows: no lock, no lease, no open
transaction, so a process that dies anywhere in it leaves nothing to wait for. Why it holds then:

- No fork: the number of an entry is its `_id`. Of two that link to the same tail one is refused.
- No gap: the tail is read with a majority, so it is there to stay. A local read might see, on a
  primary that was deposed, a tail that is rolled back, and link to it on the primary that follows.
  A majority read may lag; then its number is taken, the insert is refused and the tail read again.
- Nothing twice: `entry`, the `_id` in the outbox, is unique in the chain.
- Nothing lost: an entry leaves the outbox only when a majority has it in the chain. Who dies in
  between leaves it in both; the next one finds it in the chain and clears it away.

Whoever may write here can build a whole new chain; a number and hash noted elsewhere (an anchor)
prove everything up to there.
"""

from __future__ import annotations

import hashlib
import random
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import BulkWriteError

from mongosplit import raw
from mongosplit.errors import UsageError
from mongosplit.ledger.book import Ledger, now
from mongosplit.mongo import DUPLICATE_KEY, Session, raw_documents

NOTHING_BEFORE = "0" * 64
"""What the first entry says of the one before it."""
LARGEST_BYTES = 1 << 20
"""An entry too large for its link would stand in everyone's way for ever."""
CHAIN_TRIES = 6

_NUMBERS = (0x10, 0x12)
_ANCHOR = re.compile(r"0*([1-9][0-9]{0,17}):([0-9a-f]{64})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Broken:
    """The first link that does not hold: the number of its entry, and what is wrong with it."""

    number: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What the chain proves: entries up to the first broken link, and the hash of the last one."""

    count: int
    head: str
    broken: Broken | None

    @property
    def anchor(self) -> str:
        """What to note elsewhere, so that a later check can prove the end."""
        return f"{self.count}:{self.head}"


def say(
    ledger: Ledger,
    action: str,
    *,
    actor: str,
    run: str = "",
    chunk: int | None = None,
    session: Session | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Put an entry into the outbox, in the transaction of `session` that changes what it tells of.

    It inserts a fresh document, which conflicts with no other transaction.

    Raises:
        ValueError: the entry is larger than `LARGEST_BYTES`.
    """
    row: dict[str, Any] = {"_id": ObjectId(), "at": now(), "actor": actor}
    row |= {"host": socket.gethostname(), "action": action, "run": run}
    if chunk is not None:
        row["chunk"] = chunk
    row["facts"] = dict(facts or {})
    entry = bson.encode(row, codec_options=raw.EXACT)
    if len(entry) > LARGEST_BYTES:
        raise ValueError(f"the facts of {action} are too large for the audit: {len(entry):,} bytes")
    ledger["outbox"].insert_one(row, session=session)


def chain(ledger: Ledger, limit: int = 500) -> int:
    """Move up to `limit` entries from the outbox into the chain; how many this call has added.

    Any process may do so at any time, any number of them at once.
    """
    added = 0
    for attempt in range(1, CHAIN_TRIES + 1):
        rows = _unchained(ledger, limit)
        if not rows:
            return added
        try:
            ledger["audit"].insert_many(_links(ledger, rows), ordered=True)
        except BulkWriteError as error:
            if not _outrun(error):
                raise
            added += error.details["nInserted"]
        else:
            _clear(ledger, [_id(row) for row in rows])
            return added + len(rows)
        time.sleep(random.uniform(0.5, 1.0) * 0.01 * 2**attempt)
    # Each refusal means that another process has added entries. What it has not added stays in the
    # outbox for the next call, here or there.
    return added


def waiting(ledger: Ledger) -> int:
    """How many entries are in the outbox."""
    return ledger["outbox"].count_documents({})


def _unchained(ledger: Ledger, limit: int) -> Sequence[bytes]:
    """The oldest entries of the outbox that are not in the chain; those that are leave it."""
    oldest = [("at", ASCENDING), ("_id", ASCENDING)]
    while rows := [*raw_documents(ledger["outbox"].find_raw_batches({}, sort=oldest, limit=limit))]:
        ids = [_id(row) for row in rows]
        # With a majority, as every read here: what might be rolled back must not leave the outbox.
        found = ledger["audit"].find({"entry": {"$in": ids}}, {"_id": 0, "entry": 1})
        chained = {row["entry"] for row in found}
        if chained:
            _clear(ledger, [*chained])
        left = [row for row, id_ in zip(rows, ids, strict=True) if id_ not in chained]
        if left:
            return left
    return []


def _id(row: bytes) -> Any:
    return next(value for name, value in raw.elements(row) if name == "_id").decode()


def _clear(ledger: Ledger, ids: Sequence[Any]) -> None:
    ledger["outbox"].delete_many({"_id": {"$in": [*ids]}})


def _links(ledger: Ledger, rows: Sequence[bytes]) -> list[Any]:
    # Only numbers: a forged _id of another type would be the greatest and stop the chain.
    tail = ledger["audit"].find_one(
        {"_id": {"$type": ["int", "long"]}}, {"hash": 1}, sort=[("_id", DESCENDING)]
    )
    number, previous = (tail["_id"], str(tail.get("hash"))) if tail else (0, NOTHING_BEFORE)
    links: list[RawBSONDocument] = []
    for number_, row in enumerate(rows, number + 1):
        document, previous = link(number_, previous, row)
        links.append(RawBSONDocument(document))
    return links


def link(number: int, previous: str, row: bytes) -> tuple[bytes, str]:
    """The entry of the outbox as the chain's entry of that number, and its hash.

    The hash is the last field: SHA-256 in hex over the BSON document of all fields before it.
    """
    given = [*raw.elements(row)]
    fields = [("_id", raw.encode(number))]
    fields += [("entry" if name == "_id" else name, value) for name, value in given]
    fields.append(("previous", raw.encode(previous)))
    digest = _hash(fields)
    return raw.build([*fields, ("hash", raw.encode(digest))]), digest


def _hash(fields: Sequence[tuple[str, raw.Value]]) -> str:
    return hashlib.sha256(raw.build(fields)).hexdigest()


def _outrun(error: BulkWriteError) -> bool:
    codes = {refused["code"] for refused in error.details["writeErrors"]}
    return codes == {DUPLICATE_KEY}


def entries(
    ledger: Ledger, *, run: str | None = None, limit: int = 0, newest_first: bool = False
) -> list[dict[str, Any]]:
    """Entries of the chain, of one run or of all, at most `limit` (0: all), by number.

    Each has `number`, `entry`, `at`, `actor`, `host`, `action`, `run`, `chunk` if it is about one,
    `facts`, `previous` and `hash`.
    """
    order = [("_id", DESCENDING if newest_first else ASCENDING)]
    found = ledger["audit"].find({} if run is None else {"run": run}, sort=order, limit=limit)
    return [{"number": row.pop("_id"), **row} for row in found]


def check(ledger: Ledger, anchor: str | None = None) -> Checked:
    """Read the whole chain and compute every hash again, in constant memory.

    `anchor` is a `NUMBER:HASH` noted earlier: that entry must still be there, and be the same.

    Raises:
        UsageError: the anchor is none.
    """
    noted, noted_hash = (0, "") if anchor is None else _noted(anchor)
    count, head = 0, NOTHING_BEFORE
    for row in raw_documents(ledger["audit"].find_raw_batches({}, sort=[("_id", ASCENDING)])):
        number, fields = count + 1, [*raw.elements(row)]
        digest = _hash(fields[:-1])
        wrong = _wrong(fields, number, head, digest)
        if not wrong and number == noted and digest != noted_hash:
            wrong = f"entry {number} is not the one that was noted: the chain has been built anew"
        if wrong:
            return Checked(count, head, Broken(number, wrong))
        count, head = number, digest
    if count < noted:
        cut = f"entry {count + 1} is missing: the chain was noted up to entry {noted}"
        return Checked(count, head, Broken(count + 1, cut))
    return Checked(count, head, None)


def _noted(anchor: str) -> tuple[int, str]:
    parts = _ANCHOR.fullmatch(anchor.strip())
    if parts is None:
        raise UsageError(
            f'"{anchor}" is not the number and the hash of an entry',
            hint="give NUMBER:HASH as `mongosplit history --check` has printed it",
        )
    return int(parts[1]), parts[2].lower()


def _wrong(fields: Sequence[tuple[str, raw.Value]], number: int, head: str, digest: str) -> str:
    """What is wrong with the document that stands where the entry of that number should, or ""."""
    named = dict(fields)
    stands = named["_id"]
    if stands.kind not in _NUMBERS or stands.decode() < number:
        return f"where entry {number} should be, there is one whose number is out of order"
    if stands.decode() > number:
        return f"entry {number} is missing"
    if fields[-1] != ("hash", raw.encode(digest)):
        return f"entry {number} has been changed after it was written"
    if named.get("previous") != raw.encode(head):
        return f"entry {number} does not follow the one before it: one of the two was replaced"
    return ""
