"""The doctor: whether the installation is well, with or without a run; nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass

from pymongo.errors import OperationFailure

from mongosplit.errors import Failed, MongosplitError
from mongosplit.mongo import UNAUTHORIZED, explained
from producer import (
    checks,
    doctor_mongodb,
    doctor_redis,
    doctor_rights,
    doctor_workers,
    oplog_guard,
)
from producer.doctor_celery import celery
from producer.findings import Check, Finding, Subject

CANNOT = frozenset({UNAUTHORIZED, 59, 8000})
"""The user may not ask, the server does not know the command, or its hosting does not allow it."""


@dataclass(frozen=True)
class Look:
    """A check of MongoDB, and what nobody knows where it may not be made."""

    check: Check
    unknown: str
    grant: str = "grant clusterMonitor on the database admin"


REPLICA_SET = Look(checks.replica_set, "what this MongoDB is")
MONGODB: tuple[Look, ...] = (
    REPLICA_SET,
    Look(doctor_mongodb.feature_version, "whether its last upgrade was finished"),
    Look(doctor_mongodb.majority, "whether a majority confirms", "grant readWrite on the ledger"),
    Look(doctor_mongodb.members, "whether all members are there"),
    Look(doctor_mongodb.default_write_concern, "what the application's writes wait for"),
    Look(oplog_guard.oplog, "how far the oplog reaches back", "grant read on the database local"),
    Look(doctor_rights.rights, "what this user may do"),
    Look(doctor_mongodb.lifetime, "how long a transaction may last"),
    Look(doctor_mongodb.transactions, "whether old transactions are open"),
    Look(doctor_workers.planned, "what runs were planned with", "grant readWrite on the ledger"),
)
ELSEWHERE: tuple[Check, ...] = (
    *(doctor_redis.broker, celery),
    *(doctor_workers.queues, doctor_workers.versions, doctor_workers.clocks),
)


def examine(at: Subject) -> list[Finding]:
    """All findings, in order; a server that does not answer is one of them."""
    found = _mongodb(at)
    for check in ELSEWHERE:
        found += check(at)
    return found


def _mongodb(at: Subject) -> list[Finding]:
    found: list[Finding] = []
    for look in MONGODB:
        try:
            with explained(at.settings.mongo_url):
                found += _asked(look, at)
        except MongosplitError as error:
            found.append(Finding("mongodb", "refusal", error.message, error.hint))
            if not isinstance(error, Failed):
                break
        if look is REPLICA_SET and found[-1].verdict == "refusal":
            break
    return found


def _asked(look: Look, at: Subject) -> list[Finding]:
    try:
        return list(look.check(at))
    except OperationFailure as error:
        if error.code not in CANNOT:
            raise
        said = f"this user may not ask {look.unknown}"
        return [Finding("mongodb", "warning", said, look.grant)]
