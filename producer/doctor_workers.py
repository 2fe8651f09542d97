"""What the doctor asks about workers: who listens, what each holds, whose clock is off."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC

import pymongo
import redis
from pymongo.errors import PyMongoError

from mongosplit import pipelines
from mongosplit.ledger import runs
from producer.console import counted
from producer.findings import Finding, Subject
from worker import presence
from worker.app import QUEUES
from worker.presence import Sign

Signs = Mapping[str, Sign]
"""What each living worker says of itself, by its name."""

SKEW_SECONDS = 2.0
"""A clock may be off by so much."""
MONGODB_SECONDS = 1.0
"""Longest wait for the clock of MongoDB, which may be away."""
NAMED = 5
"""So many workers are named; of the others it is said how many they are."""
_LINE = "celery -A worker.app worker -Q {queues} -n {name}@%h -c {processes}"
_MIGRATE = _LINE.format(queues="migrate,verify", name="w1", processes=2)
LISTEN = {
    "migrate": _MIGRATE,
    "verify": _MIGRATE,
    "rollback": _LINE.format(queues="rollback", name="r1", processes=2),
    "sync": _LINE.format(queues="sync", name="s1", processes=1),
}
"""What to type where nobody listens on a queue."""


def _signs() -> Signs | None:
    try:
        return presence.signs()
    except redis.RedisError:
        # That Redis does not answer is a finding already, and nothing is known of workers.
        return None


def queues(_: Subject) -> Iterator[Finding]:
    """Somebody should be listening on each queue."""
    signs = _signs()
    if signs is not None:
        yield from judge_queues(signs)


def judge_queues(signs: Signs) -> Iterator[Finding]:
    """The verdict on who listens where."""
    for queue in QUEUES:
        count = sum(queue in sign.queues for sign in signs.values())
        if count:
            yield Finding("workers", "ok", f"{count} on queue {queue}")
        else:
            said = f"no worker listens on queue {queue}"
            yield Finding("workers", "warning", said, LISTEN[queue])


def versions(at: Subject) -> Iterator[Finding]:
    """Every worker must hold the declaration that is here."""
    yield from judge_versions(_signs() or {}, at.spec, pipelines.fingerprint(at.migration))


def judge_versions(signs: Signs, migration: str, fingerprint: str) -> Iterator[Finding]:
    """The verdict on the versions that workers hold of a migration."""
    telling = {n: sign.fingerprint for n, sign in signs.items() if sign.migration == migration}
    other = [name for name, held in telling.items() if held != fingerprint]
    if other:
        said = f"another version of {migration} than the one here is held by {_named(other)}"
        yield Finding("code", "refusal", said, "restart them with the code that is here")
    if silent := [name for name in signs if name not in telling]:
        said = f"which version of {migration} they hold is not told by {_named(silent)}"
        mend = f"start them with this code and MONGOSPLIT_MIGRATION={migration}"
        yield Finding("code", "warning", said, mend)
    if same := len(telling) - len(other):
        said = f"{counted(same, 'worker')} with the version of {migration} that is here"
        yield Finding("code", "ok", said)


def planned(at: Subject) -> Iterator[Finding]:
    """An unfinished run goes on only with the declaration it was planned with."""
    run = runs.unfinished(at.ledger, at.source)
    if run is None or run.migration != at.spec:
        return
    here = pipelines.fingerprint(at.migration)
    if run.fingerprint == here:
        yield Finding("code", "ok", f"{run.id} was planned with the version of {at.spec} here")
    else:
        said = f"{run.id} was planned with version {run.fingerprint} of {at.spec}, here is {here}"
        yield Finding("code", "refusal", said, "use the code the run was planned with")


def clocks(at: Subject) -> Iterator[Finding]:
    """All clocks should agree with that of Redis."""
    try:
        ahead = {name: sign.ahead for name, sign in presence.signs().items()}
        redis_seconds = presence.moment()
    except redis.RedisError:
        return
    ahead["this process"] = time.time() - redis_seconds
    try:
        with pymongo.timeout(MONGODB_SECONDS):
            local = at.client.admin.command("hello")["localTime"].replace(tzinfo=UTC).timestamp()
        ahead["MongoDB"] = local - presence.moment()
    except (PyMongoError, redis.RedisError):
        # Whoever does not answer is a finding already.
        ahead.pop("MongoDB", None)
    yield judge_clocks(ahead)


def judge_clocks(ahead: Mapping[str, float]) -> Finding:
    """The verdict on clocks: by how many seconds each is ahead of that of Redis."""
    off = {name: seconds for name, seconds in ahead.items() if abs(seconds) > SKEW_SECONDS}
    if off:
        worst = sorted(off, key=lambda name: -abs(off[name]))[:NAMED]
        each = ", ".join(f"{name} by {off[name]:+.1f} s" for name in worst)
        said = f"{counted(len(off), 'clock')} off that of Redis: {each}"
        return Finding(
            "clocks", "warning", said, "run chrony or another NTP client on that machine"
        )
    most = max((abs(seconds) for seconds in ahead.values()), default=0.0)
    return Finding(
        "clocks", "ok", f"{counted(len(ahead), 'clock')} within {most:.1f} s of that of Redis"
    )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(sorted(names)[:NAMED])}{more}"
