"""Foreign writes: plain writes to exclusive targets before cutover, noticed in the oplog.

Every write of ours to a target is in a transaction, and a transaction is one entry of another kind.
So what the oplog holds under a target's own name is somebody else's. What others write inside a
transaction is not seen here; the background verification finds it.
"""

from __future__ import annotations

from typing import Any

from pymongo.errors import OperationFailure

from mongosplit import raw
from mongosplit.ledger import followers, foreign
from mongosplit.ledger.foreign import Foreign
from mongosplit.mongo import UNAUTHORIZED, present, raw_documents
from mongosplit.open_run import OpenRun

KINDS = {"i": "insert", "u": "update", "d": "delete"}
MOST = 1000
"""How many are looked at in one go; the next look goes on behind them."""


def look(at: OpenRun) -> int:
    """Note the foreign writes since the last look; how many they are."""
    position = followers.get(at.ledger, at.run.id)
    if position is None or position.looked is None:
        return 0
    names = {
        f"{at.data.name}.{target.collection}": target.collection
        for target in at.migration.targets
        if target.adopt_by is None
    }
    end = present(at.client)
    query: dict[str, Any] = {
        "ts": {"$gt": position.looked, "$lte": end},
        "ns": {"$in": list(names)},
        "op": {"$in": list(KINDS)},
    }
    oplog, in_order = at.client.local["oplog.rs"], [("$natural", 1)]
    try:
        rows = list(raw_documents(oplog.find_raw_batches(query, sort=in_order, limit=MOST)))
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        # Whoever may not read the oplog cannot know; status says so.
        followers.looked(at.ledger, at.run.id, None)
        return 0
    foreign.note(at.ledger, at.run.id, (_write(row, names) for row in rows))
    if len(rows) == MOST:
        last = raw.field(rows[-1], "ts")
        assert last is not None  # every entry of the oplog has its time
        end = last.decode()
    followers.looked(at.ledger, at.run.id, end)
    return len(rows)


def _write(row: bytes, names: dict[str, str]) -> Foreign:
    fields = dict(raw.elements(row))
    # An update names its document in o2, the others in o.
    document = fields.get("o2") or fields["o"]
    found = raw.field(document.data, "_id")
    return Foreign(
        collection=names[fields["ns"].decode()],
        kind=KINDS[fields["op"].decode()],
        document_id=found or raw.encode(None),
        time=fields["ts"].decode(),
    )
