"""Claims: who works on a chunk, since when, in which session; advisory, never in the transaction.

A worker that dies leaves its transaction open on the server, and with it the fence locked, for 60
to 80 seconds (measured on 6.0.5). The claim names the session, so whoever takes over can end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import Binary
from pymongo import ReturnDocument

from mongosplit.errors import Failed, Waiting
from mongosplit.ledger.book import Ledger, now
from mongosplit.mongo import Client, Session

WORKS = ("migrate", "verify", "rollback", "sync")


@dataclass(frozen=True, slots=True)
class Claim:
    """One worker's hold on a chunk, for one kind of work (one of `WORKS`)."""

    work: str
    run: str
    n: int
    worker: str
    task: str
    session: Binary
    since: datetime


Dead = Callable[[Claim], bool]
"""Whether the worker of a claim is known to be dead."""


@dataclass(frozen=True)
class Attempt:
    """Who carries out a task, in which wave, and how many attempts a chunk may take."""

    worker: str
    task: str = ""
    wave: int = 0
    most: int = 6
    is_dead: Dead = lambda _: False


def _key(work: str, run: str, n: int) -> dict[str, Any]:
    return {"work": work, "run": run, "n": n}


@contextmanager
def claimed(
    ledger: Ledger, client: Client, session: Session, work: str, run: str, n: int, attempt: Attempt
) -> Iterator[int]:
    """Count an attempt and hold the claim meanwhile; gives the number of attempts so far.

    The count is a plain write before the work: a process that dies cannot count afterwards. Waiting
    for somebody else's fence is not an attempt.

    Raises:
        Failed: the chunk has had all its attempts, none of which lived to say so.
    """
    mine = session.session_id["id"]
    attempts, others = _take(ledger, mine, work, run, n, attempt)
    ending: dict[str, Any] = {}
    try:
        if attempts > attempt.most:
            raise Failed(
                f"chunk {n} of {run} was begun {attempt.most} times and never ended: "
                "its workers died"
            )
        end_dead(ledger, client, others, attempt.is_dead)
        yield attempts
        ending = {"$set": {"attempts": 0}}
    except Waiting:
        _take_back(ledger, work, run, n)
        # The fence is one for every kind of work, and its holder may have died at another.
        end_dead(ledger, client, others_of_chunk(ledger, work, run, n), attempt.is_dead)
        raise
    finally:
        _release(ledger, work, run, n, mine, ending)


def _take(
    ledger: Ledger, mine: Binary, work: str, run: str, n: int, attempt: Attempt
) -> tuple[int, list[Claim]]:
    holder = {"worker": attempt.worker, "task": attempt.task, "session": mine, "since": now()}
    row = ledger["claims"].find_one_and_update(
        {"_id": _key(work, run, n)},
        {
            "$set": {"run": run, "work": work, "not_before": None},
            "$inc": {"attempts": 1},
            "$push": {"holders": holder},
        },
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    assert row is not None  # an upsert that returns the document after it
    return int(row["attempts"]), [claim for claim in _claims(row) if claim.session != mine]


def _take_back(ledger: Ledger, work: str, run: str, n: int) -> None:
    # Whoever held the fence may have come to its end meanwhile, and counts from nothing again.
    ledger["claims"].update_one(
        {"_id": _key(work, run, n), "attempts": {"$gt": 0}}, {"$inc": {"attempts": -1}}
    )


def _release(
    ledger: Ledger, work: str, run: str, n: int, session: Binary, ending: dict[str, Any]
) -> None:
    ledger["claims"].update_one(
        {"_id": _key(work, run, n)}, {"$pull": {"holders": {"session": session}}, **ending}
    )


def end_dead(ledger: Ledger, client: Client, claims: Iterable[Claim], dead: Dead) -> int:
    """End the sessions of dead workers, which frees their fences at once; returns how many."""
    ended = 0
    for claim in claims:
        if dead(claim):
            client.admin.command("killSessions", [{"id": claim.session}])
            _release(ledger, claim.work, claim.run, claim.n, claim.session, {})
            ended += 1
    return ended


def attempts(ledger: Ledger, work: str, run: str, n: int) -> int:
    """How often this work was begun on the chunk since it last came to an end."""
    row = ledger["claims"].find_one({"_id": _key(work, run, n)}) or {}
    return int(row.get("attempts", 0))


def wait_until(ledger: Ledger, work: str, run: str, n: int, moment: datetime) -> None:
    """Note that the chunk's message waits for its next try until then: it is not lost."""
    waiting = {"run": run, "work": work, "not_before": moment}
    ledger["claims"].update_one({"_id": _key(work, run, n)}, {"$set": waiting}, upsert=True)


def forget_attempts(ledger: Ledger, run: str, numbers: Iterable[int], *, work: str) -> None:
    """Count the attempts of these chunks from nothing again: an operator asked for another try."""
    ids = [_key(work, run, n) for n in numbers]
    ledger["claims"].update_many({"_id": {"$in": ids}}, {"$set": {"attempts": 0}})


def others_of_chunk(ledger: Ledger, work: str, run: str, n: int) -> list[Claim]:
    """The claims on a chunk for every other kind of work; a sync's may be on any chunk."""
    keys = [_key(other, run, n) for other in WORKS if other not in (work, "sync")]
    held = {"run": run, "work": "sync", "holders.0": {"$exists": True}}
    rows = ledger["claims"].find({"$or": [{"_id": {"$in": keys}}, held]})
    return [claim for row in rows for claim in _claims(row)]


def working(ledger: Ledger, run: str, works: Iterable[str], dead: Dead) -> list[Claim]:
    """The claims of living workers that are at work on the run."""
    found = (claim for work in works for claim in of_run(ledger, run, work=work)[0])
    return [claim for claim in found if not dead(claim)]


def of_run(ledger: Ledger, run: str, *, work: str) -> tuple[list[Claim], set[int]]:
    """The claims of a run for one kind of work, and the chunks that wait for their next try."""
    claims: list[Claim] = []
    waiting: set[int] = set()
    held = {"$or": [{"holders.0": {"$exists": True}}, {"not_before": {"$gt": now()}}]}
    for row in ledger["claims"].find({"run": run, "work": work, **held}):
        claims += _claims(row)
        if (row.get("not_before") or datetime.min) > now():
            waiting.add(row["_id"]["n"])
    return claims, waiting


def _claims(row: dict[str, Any]) -> list[Claim]:
    key = row["_id"]
    return [
        Claim(key["work"], key["run"], key["n"], h["worker"], h["task"], h["session"], h["since"])
        for h in row.get("holders", [])
    ]
