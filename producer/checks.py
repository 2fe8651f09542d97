"""Checks before a run: one small function each, one sentence each, none of them writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from mongosplit import provision
from mongosplit.definition import Target
from mongosplit.errors import Refused, UsageError
from mongosplit.keyspace import Bracket, Range
from mongosplit.ledger import leases, runs
from mongosplit.model import RunState
from mongosplit.mongo import explained, hosts
from mongosplit.schema import ID_TYPES
from producer import oplog_guard
from producer.findings import Check, Finding, Subject
from worker import presence

START_A_WORKER = "celery -A worker.app worker -Q migrate,verify -n w1@%h -c 2"
CHECK_DATABASE = "check MONGOSPLIT_DATABASE (--database)"
CHECK_TARGET = "mend or move the collection, or name the right database (--database)"
OLDEST_MONGODB = (5, 0)
OLDEST_REDIS = (6, 2)


def replica_set(at: Subject) -> Iterator[Finding]:
    """Transactions need a replica set of a version that has what we use."""
    where = hosts(at.settings.mongo_url)
    hello = at.client.admin.command("hello")
    if hello.get("msg") == "isdbgrid":
        said = f"MongoDB at {where} is a sharded cluster"
        yield Finding("mongodb", "refusal", said, "split a replica set")
    elif "setName" not in hello:
        yield Finding(
            "mongodb",
            "refusal",
            f"MongoDB at {where} is a standalone server; transactions need a replica set",
            "start mongod with --replSet rs0, then rs.initiate() once; one node is enough",
        )
    elif not hello.get("isWritablePrimary"):
        said = f"MongoDB at {where} is not the primary of its replica set"
        yield Finding("mongodb", "refusal", said, "name all members, with ?replicaSet=…")
    else:
        yield from _version(at, where, str(hello["setName"]))


def _version(at: Subject, where: str, name: str) -> Iterator[Finding]:
    version = at.client.server_info()["version"]
    if tuple(map(int, version.split(".")[:2])) < OLDEST_MONGODB:
        said = f"MongoDB at {where} is {version}; 5.0 or later is needed"
        yield Finding("mongodb", "refusal", said, "upgrade it, one major version at a time")
    else:
        yield Finding("mongodb", "ok", f"replica set {name}, MongoDB {version}")


def source(at: Subject) -> Iterator[Finding]:
    """There must be something to split, in a plain collection compared by bytes."""
    name = at.migration.source
    info = next(iter(at.data.list_collections(filter={"name": name})), None)
    if info is None:
        said = f"there is no collection {at.source}"
        yield Finding("source", "refusal", said, CHECK_DATABASE)
    elif info["type"] != "collection":
        said = f"{at.source} is a {info['type']}, not a collection"
        yield Finding("source", "refusal", said, CHECK_DATABASE)
    elif info.get("options", {}).get("collation"):
        yield Finding(
            "source",
            "refusal",
            f"{at.source} has a default collation; ids must be ordered by their bytes",
            f"copy {name} into a collection without one",
        )
    elif at.data[name].find_one({}, {"_id": 1}) is None:
        said = f"{at.source} is empty: there is nothing to split"
        yield Finding("source", "refusal", said, CHECK_DATABASE)
    else:
        count = at.data[name].estimated_document_count()
        yield Finding("source", "ok", f"{at.source} holds about {count:,} documents")


def ids(at: Subject) -> Iterator[Finding]:
    """Ids of a type without ranges go to quarantine; better to know before."""
    refused = [bracket.value for bracket in Bracket if not bracket.accepted]
    found = [
        bracket.value
        for bracket in Bracket
        if not bracket.accepted
        and at.data[at.migration.source].find_one(Range(bracket).query(), {"_id": 1}) is not None
    ]
    if found:
        yield Finding(
            "ids",
            "warning",
            f"some _id are of type {', '.join(found)}: those documents will go to quarantine",
            f"types without ranges: {', '.join(refused)}",
        )


def targets(at: Subject) -> Iterator[Finding]:
    """Exclusive targets must be empty; of a shared one only documents without an owner may be."""
    run = runs.unfinished(at.ledger, at.source)
    if run is not None and run.started:
        yield Finding("targets", "ok", f"what they hold is of {run.id}")
        return
    for target in at.migration.targets:
        yield from _foreign(at, target)
    for sentence in provision.obstacles(at.data, at.migration):
        yield Finding("targets", "refusal", sentence, CHECK_TARGET)


def _foreign(at: Subject, target: type[Target]) -> Iterator[Finding]:
    shared = target.adopt_by is not None
    query = {target.owner: {"$type": list(ID_TYPES)}} if shared else {}
    if at.data[target.collection].find_one(query, {"_id": 1}) is None:
        yield Finding("targets", "ok", f"{target.collection} is free")
        return
    what = f"documents that have a {target.owner}" if shared else "documents"
    yield Finding(
        "targets",
        "refusal",
        f"target {target.collection} already holds {what} that no run of this ledger wrote",
        "move them away first, or name the right database (--database): nothing was written",
    )


def unfinished(at: Subject) -> Iterator[Finding]:
    """One unfinished run for each source."""
    run = runs.unfinished(at.ledger, at.source)
    if run is None:
        yield Finding("run", "ok", f"no unfinished run of {at.source}")
    elif run.state is RunState.PLANNING:
        # The ledger decides whether its planner still lives, when the next plan is entered.
        yield Finding(
            "run",
            "warning",
            f"{run.id} of {at.source} is being planned, or its planning was broken off",
            f"what was broken off is given up by the next plan, {leases.LEASE_SECONDS} s later",
        )
    else:
        said = f"{at.source} has an unfinished run already: {run.id} is {run.state}"
        yield Finding("run", "refusal", said, f"mongosplit status {run.id}")


def broker(_: Subject) -> Iterator[Finding]:
    """Redis must answer and must not forget."""
    where, hint = presence.address(), "check that it runs, and MONGOSPLIT_REDIS_URL (--redis-url)"
    try:
        yield _suitable(presence.connection().info())
    except redis.AuthenticationError:
        yield Finding("redis", "refusal", f"Redis at {where} refuses name or password", hint)
    except redis.RedisError:
        yield Finding("redis", "refusal", f"Redis does not answer at {where}", hint)


def _suitable(info: dict[str, Any]) -> Finding:
    version, policy = str(info["redis_version"]), info["maxmemory_policy"]
    if tuple(map(int, version.split(".")[:2])) < OLDEST_REDIS:
        said = f"Redis at {presence.address()} is {version}; Celery needs 6.2 or later"
        return Finding("redis", "refusal", said, "upgrade it, or name another (--redis-url)")
    if policy != "noeviction":
        return Finding(
            "redis",
            "warning",
            f"Redis evicts keys when it is full (maxmemory-policy {policy}): that loses messages",
            "set maxmemory-policy noeviction, on a Redis of its own",
        )
    return Finding("redis", "ok", f"Redis {version}, noeviction")


def workers(_: Subject) -> Iterator[Finding]:
    """Somebody should be listening."""
    try:
        present = presence.present()
    except redis.RedisError:
        return
    for queue in ("migrate", "verify"):
        names = [name for name, queues in present.items() if queue in queues]
        if names:
            yield Finding("workers", "ok", f"{len(names)} on queue {queue}")
        else:
            said = f"no worker listens on queue {queue}"
            yield Finding("workers", "warning", said, START_A_WORKER)


PLAN: tuple[Check, ...] = (replica_set, source, ids, targets, unfinished)
PLAN_AND_START: tuple[Check, ...] = (*PLAN, oplog_guard.oplog, broker)
START: tuple[Check, ...] = (replica_set, source, targets, oplog_guard.oplog, broker)
ALL: tuple[Check, ...] = (
    *(replica_set, source, ids, targets, unfinished, oplog_guard.oplog, broker, workers),
)


def run_checks(at: Subject, which: tuple[Check, ...]) -> list[Finding]:
    """All findings, in order; what a refused server cannot answer is not asked."""
    found: list[Finding] = []
    with explained(at.settings.mongo_url):
        for check in which:
            found += check(at)
            if check is replica_set and found[-1].verdict == "refusal":
                break
    return found


def refuse_unsafe(found: list[Finding]) -> list[Finding]:
    """The warnings among the findings.

    Raises:
        UsageError: the source is not there. Refused: with the first other refusal.
    """
    for finding in found:
        if finding.verdict == "refusal":
            kind = UsageError if finding.check == "source" else Refused
            raise kind(finding.sentence, hint=finding.hint)
    return [finding for finding in found if finding.verdict == "warning"]
