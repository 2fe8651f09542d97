"""A planned run on a database of the test's own, users to split, and ways to make a server fail."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from mongosplit import migrate, pipelines, plan, provision, verify
from mongosplit.keyspace import Bracket, Range
from mongosplit.ledger import chunks, leases, mismatches, plans, quarantine, runs
from mongosplit.ledger.book import Ledger
from mongosplit.ledger.claims import Attempt
from mongosplit.model import ChunkState, Outcome, Run, RunState
from mongosplit.mongo import raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.users import migration

Document = dict[str, Any]
Client = MongoClient[Document]
Begin = Callable[..., OpenRun]

T = TypeVar("T")
ABSENT = object()
TARGETS = tuple(target.collection for target in migration.targets)
CONFLICT = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
"""How the server says that a transaction met another's write."""
PLANNER = "a test (planning)"
MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000)


def oid(n: int) -> ObjectId:
    """The `_id` of user `n`: in the order of the numbers."""
    return ObjectId(n.to_bytes(12))


def user(n: int, changes: Document | None = None) -> Document:
    """A vendor who subscribes, with changes by dotted path; `ABSENT` removes."""
    kontakt = {"name": f"Käthe {n}", "email": f"k{n}@example.org", "telefon": "+49 1"}
    kontakt |= {"mailNewsletter": True, "newsletterConfirmed": True, "status": "aktiv"}
    profile = {"unternehmen": f"Hof {n}", "tags": [oid(n)], "location": {"deliveryRadius": 5}}
    document: Document = {"_id": oid(n), "username": f"käthe{n}", "isAdmin": False}
    document |= {"isVendor": True, "kontakt": kontakt, "vendorProfile": profile}
    document |= {"createdAt": MOMENT, "updatedAt": MOMENT, "__v": 0}
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        part = document
        for name in parents:
            part = part[name]
        part[last] = value
        if value is ABSENT:
            del part[last]
    return document


def users(count: int) -> list[Document]:
    return [user(n) for n in range(1, count + 1)]


@pytest.fixture
def ledger(client: Client) -> Iterator[Ledger]:
    """A ledger of the test's own, dropped after it."""
    own = Ledger.at(client, f"test_ledger_{uuid.uuid4().hex[:12]}")
    own.prepare()
    yield own
    client.drop_database(own.database.name)


@pytest.fixture
def facts(database: Database[Document]) -> Document:
    """What `runs.begin` is to be told of a run on this database."""
    return {
        "migration": "users",
        "fingerprint": pipelines.fingerprint(migration),
        "source": f"{database.name}.users",
        "actor": "a test",
        "options": {},
    }


@pytest.fixture
def planning(ledger: Ledger, facts: Document) -> Run:
    """A run in planning, with one chunk."""
    run = runs.begin(ledger, name="users", facts=facts, holder=PLANNER)
    plans.write_plan(ledger, run.id, [plan.PlannedChunk(1, (Range(Bracket.STRING),), 5)])
    return run


@pytest.fixture
def begin(client: Client, database: Database[Document], ledger: Ledger, facts: Document) -> Begin:
    """Load users, make the targets, plan a run and let it run, as the producer does."""

    def begun(documents: Iterable[Document], *, chunk_size: int = 100) -> OpenRun:
        database.users.insert_many(list(documents))
        run = runs.begin(ledger, name="users", facts=facts, holder=PLANNER)
        plans.write_plan(ledger, run.id, plan.walk(database.users, chunk_size=chunk_size))
        runs.move(ledger, run.id, RunState.PLANNED)
        leases.let_go(ledger, run.id, PLANNER)
        made = provision.provision(database, migration)
        run = runs.move(ledger, run.id, RunState.RUNNING, provisioned=made)
        return OpenRun(client, ledger, run, migration)

    return begun


def migrated(at: OpenRun, n: int = 1, **attempt: Any) -> Outcome:
    return migrate.migrate_chunk(at, n, Attempt("w1@here", **attempt))


def migrated_all(at: OpenRun) -> list[Outcome]:
    """Every chunk but the tail, in order."""
    return [migrated(at, n) for n in chunks.numbers(at.ledger, at.run.id, {"tail": None})]


def verified(at: OpenRun, n: int = 1, *, number: int = 1, independent: bool = False) -> Outcome:
    attempt = Attempt("w1@here")
    return verify.verify_chunk(at, n, attempt, verification=number, independent=independent)


def verified_all(at: OpenRun, *, number: int = 1, independent: bool = False) -> int:
    """How many mismatches all chunks have, the tail included."""
    numbers = chunks.numbers(at.ledger, at.run.id, {})
    return sum(verified(at, n, number=number, independent=independent).mismatches for n in numbers)


def ledger_row(at: OpenRun, n: int = 1) -> Document:
    row = at.ledger["chunks"].find_one({"_id": {"run": at.run.id, "n": n}})
    assert row is not None
    return row


def state_of(at: OpenRun, n: int = 1) -> ChunkState:
    return chunks.get(at.ledger, at.run.id, n).state


def put_state(at: OpenRun, state: ChunkState, n: int = 1) -> None:
    at.ledger["chunks"].update_one({"_id": {"run": at.run.id, "n": n}}, {"$set": {"state": state}})


def stored(at: OpenRun, collection: str) -> list[bytes]:
    """The documents of a collection as bytes, by `_id`."""
    return list(raw_documents(at.data[collection].find_raw_batches({}).sort("_id", 1)))


def reasons(at: OpenRun) -> dict[Any, tuple[str, str]]:
    """Why each document in quarantine is there: class word and source path."""
    rows = quarantine.listed(at.ledger, at.run.id, limit=1000)
    return {row["source_id"]: (row["reason"], row["path"]) for row in rows}


def found(at: OpenRun) -> set[tuple[Any, str, str, str]]:
    """The mismatches that the ledger lists: id, target, field, kind."""
    rows = mismatches.listed(at.ledger, at.run.id)
    return {(row["id"], row["target"], row["field"], row["kind"]) for row in rows}


def ids(at: OpenRun, collection: str) -> list[Any]:
    return [found["_id"] for found in at.data[collection].find({}, {"_id": 1}).sort("_id", 1)]


def content(at: OpenRun) -> dict[str, str]:
    """A hash of every collection of the data and of the ledger but the claims, which count."""
    hashes: dict[str, str] = {}
    for database in (at.data, at.ledger.database):
        found = database.command("dbHash")["collections"]
        hashes |= {f"{database.name}.{name}": value for name, value in found.items()}
    return {name: value for name, value in hashes.items() if not name.endswith(".claims")}


@contextmanager
def failing(
    client: Client, command: str, *, times: int | None = None, **how: Any
) -> Iterator[None]:
    """The server fails this command so many times (none: each time) in the way `how` says."""
    mode = "alwaysOn" if times is None else {"times": times}
    data = {"failCommands": [command], **how}
    client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
    try:
        yield
    finally:
        client.admin.command("configureFailPoint", "failCommand", mode="off")


def at_once(count: int, work: Callable[[int], T]) -> list[T]:
    """What the work comes to in that many threads, each with its number."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))
