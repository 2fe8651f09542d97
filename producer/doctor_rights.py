"""What the doctor asks about this user's rights: which actions are needed where, and which lack.

To end the sessions of a dead worker (`killSessions`) takes no right while all use the same user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from mongosplit.ledger.book import INDEXES
from mongosplit.mongo import UNAUTHORIZED
from producer.findings import Finding, Subject

Privileges = Sequence[Mapping[str, Any]]
"""As `connectionStatus` lists them: a resource and the actions allowed on it."""

READ = frozenset({"find", "collStats", "listIndexes", "changeStream"})
WRITE = frozenset({"find", "insert", "update", "remove", "createCollection", "createIndex"})
MAKE = WRITE | {"collMod", "dropCollection", "dropIndex", "listIndexes"}
HEALTH = frozenset({"serverStatus", "replSetGetStatus", "replSetGetConfig", "inprog"})
KEPT_APART = ("local", "config")
"""A right on all databases is none on these."""


@dataclass(frozen=True)
class Need:
    """Actions needed on collections of a database (no database: on the cluster), and what for."""

    what: str
    database: str
    collections: tuple[str, ...]
    actions: frozenset[str]
    grant: str
    verdict: str = "refusal"


def needs(at: Subject) -> tuple[Need, ...]:
    """All that a run needs, from plan to rollback."""
    data, ledger = at.settings.data_database, at.ledger.database.name
    source, targets = at.migration.source, tuple(t.collection for t in at.migration.targets)
    on_data = f"grant readWrite and dbAdmin on the database {data}"
    on_ledger = f"grant readWrite on the database {ledger}"
    health = "grant clusterMonitor on the database admin"
    listing = frozenset({"listCollections"})
    return (
        Need("read and follow the source", data, (source,), READ, on_data),
        Need("list what the data has", data, ("",), listing, on_data),
        Need("make, write and take away the targets", data, targets, MAKE, on_data),
        Need("keep the ledger", ledger, tuple(INDEXES), WRITE, on_ledger),
        Need("list what the ledger has", ledger, ("",), listing, on_ledger),
        Need(
            "read how far the oplog reaches back",
            *("local", ("oplog.rs",), frozenset({"find", "collStats"})),
            *("grant read on the database local", "warning"),
        ),
        Need("read the server's health", "", ("",), HEALTH, health, "warning"),
    )


def rights(at: Subject) -> Iterator[Finding]:
    """This user must be allowed all that a run does; asked, not tried."""
    told = at.client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    if told["authenticatedUsers"]:
        yield from judge_rights(needs(at), told["authenticatedUserPrivileges"])
        return
    try:
        at.data[at.migration.source].find_one({}, {"_id": 1})
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        said = "MongoDB asks for a user, and MONGOSPLIT_MONGO_URL names none"
        yield Finding("rights", "refusal", said, "name user, password and authSource in it")
        return
    yield Finding("rights", "ok", "this MongoDB asks for no user: everything is allowed")


def judge_rights(wanted: Sequence[Need], privileges: Privileges) -> Iterator[Finding]:
    """The verdict on privileges: a line for each need they do not meet."""
    met = True
    for need in wanted:
        if missing := lacking(need, privileges):
            met = False
            said = f"this user may not {need.what}: it lacks {', '.join(missing)}"
            yield Finding("rights", need.verdict, said, need.grant)
    if met:
        yield Finding("rights", "ok", "this user may do all that a run does")


def lacking(need: Need, privileges: Privileges) -> list[str]:
    """The actions that are needed and not allowed on every one of the collections."""
    found = set[str]()
    for collection in need.collections:
        allowed = set[str]()
        for privilege in privileges:
            if covers(privilege["resource"], need.database, collection):
                allowed |= set(privilege["actions"])
        found |= need.actions - allowed if "anyAction" not in allowed else set()
    return sorted(found)


def covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    """Whether a resource is or holds the collection (no database: the cluster)."""
    if resource.get("anyResource"):
        return True
    if not database:
        return bool(resource.get("cluster"))
    if "db" not in resource or resource["collection"] not in ("", collection):
        return False
    everywhere = not resource["db"]
    if everywhere and not resource["collection"]:
        return database not in KEPT_APART
    return everywhere or bool(resource["db"] == database)
