"""What the doctor asks MongoDB: majority, members, defaults, feature version, transactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pymongo.errors import ExecutionTimeout
from pymongo.read_concern import ReadConcern

from mongosplit.mongo import hosts
from producer.checks import OLDEST_MONGODB
from producer.console import counted
from producer.findings import Finding, Subject
from worker.app import HARD_SECONDS, SOFT_SECONDS
from worker.pacing import MOST_SECONDS

MAJORITY_SECONDS = 3.0
"""Longest wait until a majority has what the primary has."""
OLD_SECONDS = 60
"""Age from which an open transaction is old."""
CHUNK_SECONDS = SOFT_SECONDS - MOST_SECONDS
"""What is left to a chunk's transaction after the longest wait for a permit."""
SERVING = frozenset({1, 2, 7})
"""Primary, secondary, arbiter."""


def feature_version(at: Subject) -> Iterator[Finding]:
    """The server must work as its version, not as an older one."""
    answer = at.client.admin.command("getParameter", featureCompatibilityVersion=1)
    version = str(at.client.server_info()["version"])
    yield judge_feature_version(answer["featureCompatibilityVersion"], version)


def judge_feature_version(feature: Mapping[str, Any], version: str) -> Finding:
    """The verdict on a feature version as the server tells it, and its own version."""
    own = ".".join(version.split(".")[:2])
    name = str(feature["version"])
    if "targetVersion" in feature:
        said = f"its feature version is being changed from {name} to {feature['targetVersion']}"
        return Finding("mongodb", "warning", said, "wait until setFeatureCompatibilityVersion ends")
    if tuple(map(int, name.split("."))) < OLDEST_MONGODB:
        said = f"MongoDB {own} works as {name}; 5.0 or later is needed"
        return Finding("mongodb", "refusal", said, _set_feature(own))
    if name != own:
        said = f"MongoDB {own} still works as {name}: its upgrade was not finished"
        return Finding("mongodb", "warning", said, _set_feature(own))
    return Finding("mongodb", "ok", f"its feature version is {name}")


def _set_feature(own: str) -> str:
    confirmed = ", confirm: true" if int(own.partition(".")[0]) >= 7 else ""
    return f'db.adminCommand({{setFeatureCompatibilityVersion: "{own}"{confirmed}}})'


def majority(at: Subject) -> Iterator[Finding]:
    """What the primary has, a majority must have too within seconds; asked by a read alone."""
    runs = at.ledger.database["runs"].with_options(read_concern=ReadConcern("majority"))
    # In a causally consistent session the read waits until a majority has what the ping saw.
    with at.client.start_session(causal_consistency=True) as session:
        at.client.admin.command("ping", session=session)
        try:
            runs.find_one({}, {"_id": 1}, session=session, max_time_ms=int(MAJORITY_SECONDS * 1000))
        except ExecutionTimeout:
            where = hosts(at.settings.mongo_url)
            said = f"no majority confirms within {MAJORITY_SECONDS:g} s what MongoDB at {where} has"
            yield Finding(
                "majority", "refusal", said, "rs.status() shows which member lags or is away"
            )
        else:
            yield Finding("majority", "ok", "a majority confirms what the primary has")


def members(at: Subject) -> Iterator[Finding]:
    """No member should be away: the next one to go may take the majority with it."""
    yield from judge_members(at.client.admin.command("replSetGetStatus")["members"])


def judge_members(rows: list[Mapping[str, Any]]) -> Iterator[Finding]:
    """The verdict on the members as `replSetGetStatus` lists them."""
    away = [row for row in rows if not row.get("health") or row["state"] not in SERVING]
    if away:
        names = ", ".join(f"{row['name']} ({row.get('stateStr', row['state'])})" for row in away)
        said = f"{len(away)} of {counted(len(rows), 'member')} away or not ready: {names}"
        yield Finding("majority", "warning", said, "bring it back before a run begins")


def default_write_concern(at: Subject) -> Iterator[Finding]:
    """Our own writes always wait for a majority; the application's take the server's default."""
    answer = at.client.admin.command("getDefaultRWConcern")
    yield judge_write_concern(answer.get("defaultWriteConcern"))


def judge_write_concern(default: Mapping[str, Any] | None) -> Finding:
    """The verdict on the server's default; None: it has none, which is one member."""
    w = (default or {}).get("w", 1)
    if w == "majority":
        return Finding("majority", "ok", "writes wait for a majority by default")
    said = f"by default the application's writes wait for w: {w}, and an election may undo them"
    mend = 'db.adminCommand({setDefaultRWConcern: 1, defaultWriteConcern: {w: "majority"}})'
    return Finding("majority", "warning", said, mend)


def lifetime(at: Subject) -> Iterator[Finding]:
    """MongoDB must let a transaction live as long as a chunk may take, and not for ever."""
    answer = at.client.admin.command("getParameter", transactionLifetimeLimitSeconds=1)
    yield judge_lifetime(int(answer["transactionLifetimeLimitSeconds"]))


def judge_lifetime(seconds: int) -> Finding:
    """The verdict on how long a transaction may last, against the tasks' time limits."""
    mend = "db.adminCommand({setParameter: 1, transactionLifetimeLimitSeconds: 60}), on each member"
    if seconds < CHUNK_SECONDS:
        said = f"MongoDB ends a transaction after {seconds} s; a chunk may take {CHUNK_SECONDS:g} s"
        return Finding("transact", "warning", said, mend)
    if seconds > HARD_SECONDS:
        said = f"what a lost worker left open stays open for {seconds} s, and others wait for it"
        return Finding("transact", "warning", said, mend)
    said = f"a transaction may last {seconds} s, a chunk {CHUNK_SECONDS:g} s"
    return Finding("transact", "ok", said)


def transactions(at: Subject) -> Iterator[Finding]:
    """Somebody's old open transaction holds documents and the server's cache."""
    stages: list[Mapping[str, Any]] = [
        {"$currentOp": {"allUsers": True, "idleSessions": True}},
        {"$match": {"transaction.timeOpenMicros": {"$gte": OLD_SECONDS * 1_000_000}}},
        {"$project": {"_id": 0, "seconds": {"$divide": ["$transaction.timeOpenMicros", 1e6]}}},
    ]
    yield judge_transactions([row["seconds"] for row in at.client.admin.aggregate(stages)])


def judge_transactions(ages: list[float]) -> Finding:
    """The verdict on the ages, in seconds, of old open transactions."""
    if not ages:
        return Finding("transact", "ok", f"none is open for {OLD_SECONDS} s or longer")
    open_ = counted(len(ages), "transaction")
    said = f"{open_} open for {OLD_SECONDS} s or longer, the oldest for {max(ages):,.0f} s"
    mend = "db.currentOp({'transaction.timeOpenMicros': {$gt: 6e7}}) shows whose; end what hangs"
    return Finding("transact", "warning", said, mend)
