"""Reading each health signal of the database once, in bounded time, without ever raising for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pymongo
from bson import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from mongosplit.mongo import MAJORITY, UNAUTHORIZED, Client, Documents, code_name
from mongosplit.signal_command import CommandLine, read_command
from mongosplit.signal_lag import NoPrimary, slowest
from mongosplit.signal_thresholds import SIGNALS, Level, Reading, Threshold, Thresholds, weigh

log = logging.getLogger(__name__)

SECONDS = 1.0
"""Longest time one signal may take to be read, on the server and on the wire."""

PROBE_ID = "probe-latency"
"""`_id` of the one document that the probe writes, over and over."""

FULL_AT = 0.85
"""Share of its size from which an oplog counts as full: it is cut by a tenth at a time."""

_NOT_ENGAGED = 1_000_000_000
"""Flow control's rate while it lets everybody through."""

_CANNOT = {
    UNAUTHORIZED: "this user may not run {command} (clusterMonitor allows it)",
    59: "this server does not know {command}",
    76: "this server is not a member of a replica set",
    8000: "the hosting of this server does not allow {command}",
}
_SECTIONS_LEFT_OUT = (
    *("metrics", "tcmalloc", "locks", "network", "opLatencies", "opcounters", "opcountersRepl"),
    *("transactions", "sharding", "shardingStatistics", "connections", "security", "asserts"),
    *("logicalSessionRecordCache", "mirroredReads", "repl", "extra_info", "catalogStats"),
)


@dataclass(frozen=True)
class Sources:
    """Where the signals are read.

    `probe` is a collection for one tiny document, `follower_backlog` the dirty ids that wait;
    None: there is no such thing, and its signal is well.
    """

    client: Client
    probe: Documents | None = None
    follower_backlog: int | None = None
    command: CommandLine | None = None


class _Round:
    """One round of reading: what several signals look at is asked once."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    @cached_property
    def server(self) -> Mapping[str, Any]:
        left_out = dict.fromkeys(_SECTIONS_LEFT_OUT, 0)
        return self.admin("serverStatus", **left_out)

    def admin(self, command: str, **options: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self.sources.client.admin.command(command, **options)
        return answer

    @property
    def oplog(self) -> Documents:
        return self.sources.client.local["oplog.rs"]


def read_all(sources: Sources, enabled: Thresholds) -> list[Reading]:
    """A reading of every signal that is enabled.

    One that the user may not read, or that this server does not have, comes as `unreadable`; one
    that could not be read for another cause is left out, so that it grows stale.
    """
    looked_at = _Round(sources)
    readings = (_read(name, looked_at, enabled.of[name]) for name in SIGNALS if name in enabled.of)
    return [reading for reading in readings if reading is not None]


def _read(name: str, looked_at: _Round, threshold: Threshold) -> Reading | None:
    reader, command = _READERS[name]
    try:
        with pymongo.timeout(_seconds(name, threshold)):
            return reader(looked_at, threshold)
    except OperationFailure as error:
        if error.code in _CANNOT:
            return _unreadable(name, _CANNOT[error.code].format(command=command))
        log.warning("%s could not be read: %s", name, code_name(error))
    except (PyMongoError, NoPrimary) as error:
        log.warning("%s could not be read: %s", name, type(error).__name__)
    except KeyError as error:
        return _unreadable(name, f"{command} does not say {error.args[0]!r}")
    return None


def _seconds(name: str, threshold: Threshold) -> float:
    # A probe must be able to take longer than its limit, or the limit would never be seen.
    limit = threshold.hard or threshold.soft or 0.0
    return max(SECONDS, limit / 1000) if name == "probe-latency" else SECONDS


def _replication_lag(looked_at: _Round, threshold: Threshold) -> Reading:
    status = looked_at.admin("replSetGetStatus")
    config = looked_at.admin("replSetGetConfig")["config"]
    lag, member = slowest(status, config, lambda since: _oldest_since(looked_at.oplog, since))
    return weigh("replication-lag", lag, threshold, detail=f" at {member}")


def _oldest_since(oplog: Documents, optime: Timestamp) -> datetime | None:
    try:
        entry = oplog.find_one({"ts": {"$gt": optime}}, {"wall": 1}, sort=[("$natural", 1)])
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return None
    return entry["wall"] if entry else None


def _flow_control(looked_at: _Round, threshold: Threshold) -> Reading:
    said = looked_at.server["flowControl"]
    engaged = said["enabled"] and (said["isLagged"] or said["targetRateLimit"] < _NOT_ENGAGED)
    return weigh("flow-control", float(engaged), threshold)


def _queued_operations(looked_at: _Round, threshold: Threshold) -> Reading:
    queue = looked_at.server["globalLock"]["currentQueue"]
    return weigh("queued-operations", float(queue["readers"] + queue["writers"]), threshold)


def _cache_dirty(looked_at: _Round, threshold: Threshold) -> Reading:
    cache = looked_at.server["wiredTiger"]["cache"]
    dirty = cache["tracked dirty bytes in the cache"] / cache["maximum bytes configured"]
    return weigh("cache-dirty", dirty, threshold)


def _oplog_window(looked_at: _Round, threshold: Threshold) -> Reading:
    size = looked_at.sources.client.local.command("collStats", "oplog.rs")
    if size["size"] < FULL_AT * size["maxSize"]:
        return _well("oplog-window", "oplog-window is open: the oplog is not full")
    ends = [
        looked_at.oplog.find_one({}, {"ts": 1}, sort=[("$natural", way)]) or {} for way in (1, -1)
    ]
    first, last = (end["ts"].time for end in ends)
    return weigh("oplog-window", (last - first) / 3600, threshold)


def _probe_latency(looked_at: _Round, threshold: Threshold) -> Reading:
    if looked_at.sources.probe is None:
        return _well("probe-latency", "probe-latency has no collection to write to")
    probe = looked_at.sources.probe.with_options(write_concern=MAJORITY)
    began, at_least = time.perf_counter(), 0.0
    try:
        probe.update_one({"_id": PROBE_ID}, {"$inc": {"writes": 1}}, upsert=True)
    except PyMongoError as error:
        # Too slow is a reading, and the one that matters most. The server is given a little less
        # time than the limit, for the way back.
        if not error.timeout:
            raise
        at_least = threshold.hard or threshold.soft or 0.0
    took = (time.perf_counter() - began) * 1000
    return weigh("probe-latency", max(took, at_least), threshold)


def _follower_backlog(looked_at: _Round, threshold: Threshold) -> Reading:
    backlog = looked_at.sources.follower_backlog
    if backlog is None:
        return _well("follower-backlog", "follower-backlog: there is no follower")
    return weigh("follower-backlog", float(backlog), threshold)


def _command(looked_at: _Round, threshold: Threshold) -> Reading:
    if looked_at.sources.command is None:
        return _well("command", "command: none is given")
    return read_command(looked_at.sources.command, threshold)


def _well(name: str, sentence: str) -> Reading:
    return Reading(name, None, SIGNALS[name].unit, Level.OK, sentence)


def _unreadable(name: str, why: str) -> Reading:
    sentence = f"{name} cannot be read: {why}"
    return Reading(name, None, SIGNALS[name].unit, Level.UNREADABLE, sentence)


_READERS: Mapping[str, tuple[Callable[[_Round, Threshold], Reading], str]] = {
    "replication-lag": (_replication_lag, "replSetGetStatus and replSetGetConfig"),
    "flow-control": (_flow_control, "serverStatus"),
    "queued-operations": (_queued_operations, "serverStatus"),
    "cache-dirty": (_cache_dirty, "serverStatus"),
    "oplog-window": (_oplog_window, "collStats and find on local.oplog.rs"),
    "probe-latency": (_probe_latency, "an update of the probe's collection"),
    "follower-backlog": (_follower_backlog, ""),
    "command": (_command, ""),
}
