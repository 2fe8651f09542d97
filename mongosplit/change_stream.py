"""The change stream of a source: whole batches of ids and times, from a position or from a time.

Documents are never asked for: with large ones the server cannot put them into an event, and only
the present state is ever derived. The stream is one collection's: one of the whole database costs
the server 5 us for each document that a copy inserts (measured on 6.0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bson import Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure, PyMongoError

from mongosplit import raw
from mongosplit.errors import Failed, Refused
from mongosplit.mongo import Client, Documents, Session, among
from mongosplit.raw import Value

HISTORY_LOST = frozenset({136, 280, 286})
"""CappedPositionLost, ChangeStreamFatalError, ChangeStreamHistoryLost: the oplog begins later."""
_RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
_WRITES = ("insert", "update", "replace", "delete")
_KEEP = {"operationType": 1, "clusterTime": 1, "documentKey": 1}
_TIMESTAMP = "82"
_AT_ONCE = 1000


class HistoryLost(Refused):
    """The oplog no longer reaches back to the position; what came since is not known."""


class SourceGone(Refused):
    """The source was renamed or dropped, which ends its change stream."""


@dataclass(frozen=True, slots=True)
class Event:
    """One acknowledged write to the source: whose document, and when."""

    source_id: Value
    time: Timestamp


@dataclass(frozen=True, slots=True)
class Batch:
    """What the stream gave at once, and the position behind it."""

    events: list[Event]
    token: str
    time: Timestamp


class ChangeStream:
    """An open stream; `read` gives one batch after the other."""

    def __init__(self, source: Documents, session: Session, reply: RawBSONDocument) -> None:
        self._source, self._session = source, session
        self._cursor: int = reply["cursor"]["id"]
        self._first: RawBSONDocument | None = reply

    def read(self, milliseconds: int) -> Batch:
        """The next batch; an empty one when nothing happens for so long.

        Raises:
            HistoryLost: the oplog was faster. SourceGone: there is no source any more.
        """
        reply, self._first = self._first, None
        if reply is None:
            with _lost(self._source):
                reply = self._source.database.command(
                    {
                        "getMore": self._cursor,
                        "collection": self._source.name,
                        "batchSize": _AT_ONCE,
                        "maxTimeMS": milliseconds,
                    },
                    session=self._session,
                    codec_options=_RAW,
                )
            return self._batch(reply["cursor"], "nextBatch")
        return self._batch(reply["cursor"], "firstBatch")

    def _batch(self, cursor: RawBSONDocument, name: str) -> Batch:
        events = [self._event(row) for row in cursor[name]]
        token = str(cursor["postBatchResumeToken"]["_data"])
        return Batch(events, token, time_of(token))

    def _event(self, row: RawBSONDocument) -> Event:
        if row["operationType"] not in _WRITES:
            raise SourceGone(
                f"{self._source.full_name} met {row['operationType']}: it is not what it was",
                hint="roll the run back, or put the collection back and plan again",
            )
        source_id = raw.field(row["documentKey"].raw, "_id")
        assert source_id is not None  # the server gives every document an _id
        return Event(source_id, row["clusterTime"])

    def close(self) -> None:
        """End it on the server, too; a server that is away ends it by itself."""
        kill = {"killCursors": self._source.name, "cursors": [self._cursor]}
        with suppress(PyMongoError):
            self._source.database.command(kill, session=self._session)
        self._session.end_session()


@contextmanager
def _lost(source: Documents) -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        if error.code in HISTORY_LOST:
            raise HistoryLost(
                f"the oplog no longer reaches back to where {source.full_name} was followed",
                hint="mongosplit follow --restart, then mongosplit verify --repair",
            ) from error
        raise


def open_stream(
    client: Client,
    source: Documents,
    *,
    token: str | None,
    start: Timestamp,
    only: RawBSONDocument | None = None,
) -> ChangeStream:
    """The stream behind a token; without one from a time on, which is included.

    `only` restricts it to events that match.

    Raises:
        HistoryLost: the oplog begins later.
    """
    since: dict[str, Any] = {"resumeAfter": {"_data": token}} if token else {}
    stage = {"$changeStream": since or {"startAtOperationTime": start}}
    match = [{"$match": only}] if only else []
    session = client.start_session(causal_consistency=False)
    with _lost(source):
        reply = source.database.command(
            {
                "aggregate": source.name,
                "pipeline": [stage, *match, {"$project": _KEEP}],
                "cursor": {"batchSize": _AT_ONCE},
                "readConcern": {"level": "majority"},
            },
            session=session,
            codec_options=_RAW,
        )
    return ChangeStream(source, session, reply)


def time_of(token: str) -> Timestamp:
    """The cluster time of a resume token.

    A token is a sortable key: a byte for the type timestamp, then its eight bytes (MongoDB source,
    `resume_token.h`; an event's token and its `clusterTime` agree on every server tested).

    Raises:
        Failed: this server writes tokens in another way.
    """
    if token[:2] != _TIMESTAMP:
        raise Failed("the server's resume tokens cannot be read", hint="report its version to us")
    return Timestamp(int(token[2:10], 16), int(token[10:18], 16))


def written_since(
    client: Client, source: Documents, ids: list[Value], *, start: Timestamp, end: Timestamp
) -> set[Value]:
    """Which of these documents were written from `start` until `end`, by the log itself.

    Raises:
        HistoryLost: the oplog begins after `start`.
    """
    only = among("documentKey._id", ids)
    stream = open_stream(client, source, token=None, start=start, only=only)
    found: set[Value] = set()
    try:
        while True:
            batch = stream.read(100)
            found |= {event.source_id for event in batch.events if event.time <= end}
            if batch.time >= end:
                return found & set(ids) | _equal(found, ids)
    finally:
        stream.close()


def _equal(found: set[Value], ids: list[Value]) -> set[Value]:
    """Ids that were written under another type of number."""
    numbers = ("int", "long", "double", "decimal")
    if not any(one.type_name in numbers for one in found - set(ids)):
        return set()
    return {one for one in ids if one.type_name in numbers}
