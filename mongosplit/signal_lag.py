"""Replication lag: how far the slowest member that counts is behind the primary, and which it is.

Every voting member that holds data counts. So does one that is down: the others have lost the room
to lag without stopping the majority, and with every write it has more to catch up before the oplog
forgets. What is known of it stands still, so it lags by one second more with each second. Who wants
to go on without it takes away its vote, or turns the signal off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from bson import Timestamp

EPOCH = datetime(1970, 1, 1)
"""What the server says where it knows no time."""

OldestSince = Callable[[Timestamp], datetime | None]
"""When the first oplog entry after an optime was written; None when it cannot be told."""

_WORTH_ASKING = 1.0
_DOWN = 8


class NoPrimary(Exception):
    """The member that answered is not the primary, so nothing can be compared with it."""


def slowest(
    status: Mapping[str, Any], config: Mapping[str, Any], oldest_since: OldestSince
) -> tuple[float, str]:
    """Seconds behind and name of the slowest member, by `replSetGetStatus` and `replSetGetConfig`.

    A member configured with a delay is judged net of it. Without a member that counts: 0 and "".

    Raises:
        NoPrimary: the answer does not come from a primary.
        KeyError: the server does not say what is needed.
    """
    primary = next((one for one in status["members"] if one["state"] == 1), None)
    if primary is None or not primary.get("self"):
        raise NoPrimary("the member that answered is not the primary")
    lags = [
        (max(0.0, _behind(member, primary, status["date"], oldest_since) - delay), member["name"])
        for member, delay in _counted(status, config)
    ]
    return max(lags, default=(0.0, ""))


def _counted(
    status: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], float]]:
    """The members that count, the primary left out, each with its configured delay in seconds."""
    configured = {one["_id"]: one for one in config["members"]}
    for member in status["members"]:
        rules = configured.get(member["_id"])
        if rules is None or member["state"] == 1:
            continue
        if rules.get("votes", 1) and not rules.get("arbiterOnly", False):
            # Before MongoDB 5 the delay had another name.
            delay = rules.get("secondaryDelaySecs", rules.get("slaveDelay", 0))
            yield member, float(delay)


def _behind(
    member: Mapping[str, Any],
    primary: Mapping[str, Any],
    now: datetime,
    oldest_since: OldestSince,
) -> float:
    applied = _applied(member)
    is_down = member["state"] == _DOWN or not member.get("health", 1)
    if applied is None:
        # A member in its initial sync has applied nothing yet, but it answers and is at work.
        return _unheard(member, primary, now) if is_down else 0.0
    difference = ((_applied(primary) or now) - applied).total_seconds()
    if is_down or difference < _WORTH_ASKING:
        return difference
    # After a quiet spell one new write makes the difference as long as the spell, though the
    # member is a moment behind: what counts is how long the oldest entry it lacks has waited.
    written = oldest_since(member["optime"]["ts"])
    return difference if written is None else min(difference, (now - written).total_seconds())


def _applied(member: Mapping[str, Any]) -> datetime | None:
    """When the primary wrote the last entry that the member has applied."""
    for field in ("lastAppliedWallTime", "optimeDate"):
        moment: datetime | None = member.get(field)
        if moment is not None and moment > EPOCH:
            return moment
    return None


def _unheard(member: Mapping[str, Any], primary: Mapping[str, Any], now: datetime) -> float:
    heard: datetime = member.get("lastHeartbeatRecv", EPOCH)
    if heard > EPOCH:
        return (now - heard).total_seconds()
    # Never heard of: as long as this primary has been there to hear it.
    return float(primary["uptime"])
