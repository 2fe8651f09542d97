"""Lag: whether a target that differs is only a moment behind the writes to its user."""

from __future__ import annotations

from dataclasses import dataclass

from bson import Timestamp

from mongosplit import change_stream
from mongosplit.ledger import dirty, followers
from mongosplit.mongo import present
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value


@dataclass(frozen=True)
class Position:
    """Up to when every write is marked, and which of the users asked about are dirty."""

    reached: Timestamp
    alive: bool
    dirty: frozenset[Value]


def look(at: OpenRun, ids: list[Value]) -> Position | None:
    """Where the follower stands; None where the source was never followed.

    The position first: a write that is marked by it and no longer dirty has been derived.
    """
    found = followers.get(at.ledger, at.run.id)
    if found is None:
        return None
    marked = dirty.among(at.ledger, at.run.id, ids)
    return Position(found.reached, found.alive, frozenset(marked))


def written(at: OpenRun, position: Position, ids: list[Value]) -> set[Value]:
    """Which of the users were written since the position, until the present, by the log itself.

    Raises:
        HistoryLost: the oplog no longer reaches back to the position.
    """
    if not ids:
        return set()
    return change_stream.written_since(
        at.client, at.source, ids, start=position.reached, end=present(at.client)
    )


def sentence(at: OpenRun, position: Position, count: int) -> str:
    """Why it cannot be told yet."""
    said = f"{at.run.id}: {'1 document was' if count == 1 else f'{count:,} documents were'} written"
    if position.alive:
        return f"{said} since, and the follower is behind"
    return f"{said} since, and nobody follows: mongosplit follow"
