"""What is known of following a run's source: who follows, how far behind, who else writes."""

from __future__ import annotations

from typing import Any

from mongosplit.ledger import dirty, followers, foreign
from mongosplit.ledger.book import Ledger
from mongosplit.model import Run
from producer.console import counted, duration

BEHIND_SECONDS = 10.0
"""A follower that is further behind says so."""


def facts(ledger: Ledger, run: Run) -> dict[str, Any] | None:
    """Who follows, lag, backlog, events, obstacle, foreign writes; None before a run has begun."""
    position = followers.get(ledger, run.id)
    if position is None:
        return None
    return {
        "alive": position.alive,
        "by": position.holder if position.alive else None,
        "lag_seconds": round(position.lag_seconds, 1),
        "backlog": dirty.backlog(ledger, run.id),
        "events": position.events,
        "obstacle": position.obstacle,
        "sees_foreign_writes": position.looked is not None,
        "foreign": foreign.by_collection(ledger, run.id),
    }


def sentence(found: dict[str, Any], run: str) -> str:
    """How the source is followed, in words."""
    if obstacle := found["obstacle"]:
        return ": ".join(said for said in (obstacle["sentence"], obstacle["hint"]) if said)
    if not found["alive"]:
        lag = duration(found["lag_seconds"])
        return f"nobody follows for {lag}; mongosplit follow {run}"
    backlog = counted(found["backlog"], "document")
    lag = duration(found["lag_seconds"])
    said = f"{lag} behind" if found["lag_seconds"] >= BEHIND_SECONDS else "up to date"
    return f"{said}, {backlog} to sync, {found['events']:,} writes so far"


def brief(found: dict[str, Any], *, name: str) -> str:
    """Whether the process of that name follows, or what keeps it from that."""
    if found["obstacle"]:
        return sentence(found, "")
    if found["by"] in (name, None):
        return "following" if found["by"] else "taking over"
    return f"followed by {found['by']}"


def foreign_sentences(found: dict[str, Any]) -> list[str]:
    """Who else writes the exclusive targets, a sentence for each of them."""
    return [
        f"somebody else wrote {row['collection']}: {counted(row['documents'], 'document')}, "
        f"{counted(row['writes'], 'time')}, last at {row['last']:%Y-%m-%d %H:%M:%S} UTC"
        for row in found["foreign"]
    ]
