"""What the doctor asks Redis: version, role, eviction, persistence, memory for the waves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from mongosplit.settings import Settings
from producer import checks
from producer.findings import Finding, Subject
from worker import presence

Info = Mapping[str, Any]
"""What INFO says."""

CHUNK_BYTES = 4096
"""A chunk's message, its copy while it is worked on, and its share of the wave's callback."""
REST_BYTES = 16 * 2**20
"""Presence, hints, paces, events on their way, and what Redis takes for itself."""
MEGABYTE = 2**20


def broker(at: Subject) -> Iterator[Finding]:
    """Redis must answer, be the master, forget nothing and have room."""
    try:
        info = presence.connection().info()
    except NoPermissionError:
        said = "this user may not run INFO, so nobody knows whether Redis suits"
        yield Finding("redis", "warning", said, "ACL SETUSER … +info +config|get")
        return
    except redis.RedisError:
        yield from checks.broker(at)
        return
    yield judge_version(info)
    yield from judge_role(info)
    yield judge_policy(info)
    yield judge_persistence(info, _snapshots())
    yield judge_memory(info, needed_bytes(at.settings))


def _snapshots() -> bool | None:
    """Whether Redis saves snapshots by itself; None: it does not tell."""
    try:
        return bool(presence.connection().config_get("save").get("save"))
    except redis.RedisError:
        return None


def needed_bytes(settings: Settings) -> int:
    """What the waves in flight take of Redis's memory, and room beside them."""
    return settings.waves_in_flight * settings.wave_size * CHUNK_BYTES + REST_BYTES


def judge_version(info: Info) -> Finding:
    """The verdict on the version."""
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < checks.OLDEST_REDIS:
        said = f"Redis at {presence.address()} is {version}; Celery needs 6.2 or later"
        return Finding("redis", "refusal", said, "upgrade it, or name another (--redis-url)")
    return Finding("redis", "ok", f"Redis {version}")


def judge_role(info: Info) -> Iterator[Finding]:
    """The verdict on what this Redis is among others."""
    where = presence.address()
    if info.get("role") != "master":
        said = f"Redis at {where} is a {info.get('role')}, which takes no writes"
        yield Finding("redis", "refusal", said, "name the master (--redis-url)")
    elif info.get("cluster_enabled"):
        said = f"Redis at {where} is a node of a cluster, which Celery cannot use"
        yield Finding("redis", "refusal", said, "use a single Redis, or one behind Sentinel")
    else:
        yield Finding("redis", "ok", "it is the master")


def judge_policy(info: Info) -> Finding:
    """The verdict on what a full Redis does."""
    policy = info["maxmemory_policy"]
    if policy == "noeviction":
        return Finding("redis", "ok", "it evicts nothing (noeviction)")
    said = f"Redis evicts keys when it is full (maxmemory-policy {policy}): that loses messages"
    mend = "redis-cli config set maxmemory-policy noeviction, and the same in redis.conf"
    return Finding("redis", "refusal", said, mend)


def judge_persistence(info: Info, snapshots: bool | None) -> Finding:
    """The verdict on what outlives a restart of Redis; `snapshots`: None where it does not tell."""
    appends = bool(info.get("aof_enabled"))
    if appends and info.get("aof_last_write_status", "ok") != "ok":
        return _unsaved("append to its file")
    if snapshots and info.get("rdb_last_bgsave_status", "ok") != "ok":
        return _unsaved("save its snapshot")
    if appends or snapshots:
        how = "appends to a file" if appends else "saves snapshots"
        return Finding("redis", "ok", f"it {how}, so a restart keeps the messages")
    said = "it keeps nothing over a restart: the driver would send all that was on its way again"
    if snapshots is None:
        said = "it appends to no file and does not tell whether it saves snapshots"
    return Finding("redis", "warning", said, "redis-cli config set appendonly yes, and redis.conf")


def _unsaved(what: str) -> Finding:
    said = f"Redis at {presence.address()} could not {what} the last time: it refuses writes"
    return Finding("redis", "refusal", said, "look at its log and at the space on its disk")


def judge_memory(info: Info, needed: int) -> Finding:
    """The verdict on the memory that is left, against what the waves need, in bytes."""
    limit = int(info.get("maxmemory") or 0)
    most = limit or int(info.get("total_system_memory") or 0)
    if not most:
        return Finding("redis", "ok", "its memory has no limit")
    left, wanted = max(0, most - int(info["used_memory"])), f"{needed / MEGABYTE:,.0f} MB"
    whose = "its maxmemory" if limit else "the machine's memory"
    if left < needed:
        said = f"{left / MEGABYTE:,.0f} MB are left of {whose}; the waves in flight want {wanted}"
        mend = "raise maxmemory, or lower MONGOSPLIT_WAVE_SIZE or MONGOSPLIT_WAVES_IN_FLIGHT"
        return Finding("redis", "warning", said, mend)
    return Finding("redis", "ok", f"{whose} holds the waves in flight, which want {wanted}")
