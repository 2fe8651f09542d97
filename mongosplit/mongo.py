"""Talking to MongoDB: the client, the transaction loop, and what each driver error means."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from mongosplit import raw
from mongosplit.errors import (
    Failed,
    FenceBusy,
    MongosplitError,
    Refused,
    TransientError,
    UsageError,
)

Client = MongoClient[dict[str, Any]]
Documents = Collection[dict[str, Any]]
Data = Database[dict[str, Any]]
Session = ClientSession
T = TypeVar("T")

MAJORITY = WriteConcern("majority")
SNAPSHOT = ReadConcern("snapshot")

TRANSACTION_TRIES = 5
"""Few: a worker's slot is worth more than the driver's own two minutes of trying."""

WRITE_CONFLICT = 112
DUPLICATE_KEY = 11000
VALIDATION_FAILED = 121
AUTHENTICATION_FAILED = 18
UNAUTHORIZED = 13
TOO_LARGE = (10334, 17419, 17420)
"""Document larger than the server allows: on the wire, in a pipeline stage, in a projection."""

PASSING = frozenset({43, 175, 237, 239, 246, 290, 11601})
"""No label says so, but another try may help: the cursor, the plan, the session or the operation
was killed, the snapshot is too old or not there yet, the transaction had lasted too long."""


def connect(url: str, *, seconds: float = 10.0, application: str = "mongosplit") -> Client:
    """A client for the replica set; nothing is sent before its first use.

    Socket time-outs are bounded, or a client would wait on a paused primary for ever.
    """
    return MongoClient(
        url,
        appname=application,
        serverSelectionTimeoutMS=int(seconds * 1000),
        connectTimeoutMS=int(seconds * 1000),
        socketTimeoutMS=75_000,
        tz_aware=False,
    )


def exact(database: Data) -> Data:
    """The database with every date decoded exactly and every write acknowledged by a majority."""
    return database.with_options(
        codec_options=raw.EXACT,
        write_concern=MAJORITY,
        read_concern=ReadConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )


def present(client: Client) -> Timestamp:
    """The server's present: no snapshot that was taken before holds a later write."""
    moment: Timestamp = client.admin.command("ping")["operationTime"]
    return moment


def hosts(url: str) -> str:
    """The hosts of a URL, without user, password or options."""
    return ", ".join(f"{host}:{port}" for host, port in parse_uri(url, warn=False)["nodelist"])


def is_transient(error: PyMongoError) -> bool:
    """Whether trying the whole thing again may help."""
    if isinstance(error, AutoReconnect | NotPrimaryError | ServerSelectionTimeoutError):
        return True
    labels = ("TransientTransactionError", "UnknownTransactionCommitResult")
    if any(error.has_error_label(label) for label in labels):
        return True
    return isinstance(error, OperationFailure) and error.code in PASSING


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn driver errors into sentences that say who acts next.

    Raises:
        UsageError: wrong credentials. Refused: not allowed. TransientError: worth trying again.
        Failed: anything else the server said.
    """
    try:
        yield
    except MongosplitError:
        raise
    except ServerSelectionTimeoutError as error:
        raise TransientError(
            f"MongoDB at {hosts(url)} does not answer as a replica set with a primary",
            hint="check that it runs, and MONGOSPLIT_MONGO_URL (--mongo-url)",
        ) from error
    except ConfigurationError as error:
        raise UsageError(
            f"MongoDB at {hosts(url)}: {_first_line(error)}",
            hint="check MONGOSPLIT_MONGO_URL (--mongo-url)",
        ) from error
    except OperationFailure as error:
        raise _operation_failure(url, error) from error
    except PyMongoError as error:
        if is_transient(error):
            raise TransientError(f"MongoDB at {hosts(url)}: {_first_line(error)}") from error
        raise Failed(f"MongoDB at {hosts(url)}: {_first_line(error)}") from error


def _operation_failure(url: str, error: OperationFailure) -> MongosplitError:
    if error.code == AUTHENTICATION_FAILED:
        return UsageError(
            f"MongoDB at {hosts(url)} refuses the user name or the password",
            hint="check the credentials in MONGOSPLIT_MONGO_URL (--mongo-url) and its authSource",
        )
    if error.code == UNAUTHORIZED:
        return Refused(
            f"MongoDB at {hosts(url)} does not allow this user to do that",
            hint="grant readWrite and dbAdmin on the data and the ledger database",
        )
    if is_transient(error):
        return TransientError(f"MongoDB at {hosts(url)}: {code_name(error)}")
    return Failed(f"MongoDB at {hosts(url)}: {code_name(error)}", hint="see the server's log")


@contextmanager
def explained_chunk(run: str, n: int) -> Iterator[None]:
    """Turn driver errors met while working on a chunk into what its task acts on.

    Raises:
        TransientError: worth another try. Failed: another try will not help.
    """
    try:
        yield
    except OperationFailure as error:
        sentence = f"chunk {n} of {run}: {code_name(error)}"
        raise (TransientError if is_transient(error) else Failed)(sentence) from error
    except PyMongoError as error:
        raise TransientError(f"chunk {n} of {run}: {type(error).__name__}") from error


def raw_documents(cursor: Any) -> Iterator[bytes]:
    """The documents of a raw-batch cursor, undecoded (the driver types a batch as a document)."""
    for batch in cursor:
        yield from raw.documents(batch)


def by_id(value: raw.Value) -> RawBSONDocument:
    """The query for one document, whose `_id` stays bytes."""
    return RawBSONDocument(raw.build([("_id", value)]))


def among(path: str, values: Iterable[raw.Value]) -> RawBSONDocument:
    """The query for these values, which stay bytes: not all text that is stored can be decoded."""
    return RawBSONDocument(raw.build([(path, raw.subdocument([("$in", raw.array(values))]))]))


def code_name(error: OperationFailure) -> str:
    """The server's name for the error: its message may hold values of documents."""
    details = error.details or {}
    return f"{details.get('codeName', 'error')} (code {error.code})"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def transact(
    session: Session,
    body: Callable[[Session], T],
    *,
    tries: int = TRANSACTION_TRIES,
    wait_for_fence: bool = True,
) -> T:
    """Run the body in a transaction: snapshot read, majority commit, few tries with jitter.

    The body may run several times and must take everything it decides on from inside. A fence that
    is held is waited for a moment, since a sync holds many for a few milliseconds.

    Raises:
        whatever the body raises once the tries are over; the transaction is then aborted.
    """
    for attempt in range(1, tries + 1):
        try:
            with session.start_transaction(SNAPSHOT, MAJORITY, ReadPreference.PRIMARY):
                result = body(session)
                if session.in_transaction:  # a body that found nothing to do has aborted it
                    _commit(session)
                return result
        except FenceBusy:
            if attempt == tries or not wait_for_fence:
                raise
        except PyMongoError as error:
            if attempt == tries or not error.has_error_label("TransientTransactionError"):
                raise
        time.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)
    raise AssertionError("the loop returns or raises")


def _commit(session: Session) -> None:
    for left in (2, 1, 0):
        try:
            session.commit_transaction()
            return
        except PyMongoError as error:
            # Committing again is safe: the server tells a commit it has done from a new one.
            if not left or not error.has_error_label("UnknownTransactionCommitResult"):
                raise
