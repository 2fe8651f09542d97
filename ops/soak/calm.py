"""Calm: everything is let come to rest after the chaos, within a bounded time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pymongo.errors import PyMongoError

from mongosplit.errors import Failed
from mongosplit.ledger import claims, dirty, followers, runs
from mongosplit.model import RunState
from mongosplit.selection import Selection
from ops.soak.acting import Acting
from ops.soak.scene import RUN, Scene
from worker import presence

Query = dict[str, Any]

REST_SECONDS = 400.0
POLL_SECONDS = 0.3
AGAIN_SECONDS = 8.0
TO_UNDO: Query = {"undo": {"$exists": True}, "state": {"$in": ["migrated", "verified"]}}
WANTED: Query = {"$or": [{"state": "pending"}, {"mend": True}]}
FAILED: Query = {"state": "failed"}
ROLLED_BACK: Query = {"state": "rolled_back"}
AT_REST = (RunState.PAUSED, RunState.VERIFIED, RunState.MIGRATED)


def come_to_rest(acting: Acting, *, remigrate: bool) -> None:
    """Stop the application, have everything done that was asked for, and wait until nobody works.

    Raises:
        Failed: it does not come to rest in time; the sentence says why.
    """
    scene = acting.scene
    _stop_application(acting)
    scene.barrier()
    until = scene.client.admin.command("ping")["operationTime"]
    began = time.monotonic()
    asked = began
    while why := _restless(scene, until, remigrate=remigrate):
        if time.monotonic() - began > REST_SECONDS:
            raise Failed(f"not at rest after {REST_SECONDS:g} s: {'; '.join(why)}")
        acting.look_after()
        if time.monotonic() - asked > AGAIN_SECONDS:
            asked = time.monotonic()
            _ask_again(acting, remigrate=remigrate)
        time.sleep(POLL_SECONDS)
    acting.tell(f"at rest after {time.monotonic() - began:.1f} s")


def _stop_application(acting: Acting) -> None:
    """End the application the usual way, so that it finds out what it does not know."""
    application = acting.scene.players["application"]
    if not application.end(60):
        raise Failed(f"the application does not end: {application.last_words()}")


def _restless(scene: Scene, until: Any, *, remigrate: bool) -> list[str]:
    try:
        return list(_reasons(scene, until, remigrate=remigrate))
    except PyMongoError as error:
        return [type(error).__name__]


def _reasons(scene: Scene, until: Any, *, remigrate: bool) -> Iterator[str]:
    ledger = scene.ledger
    run = runs.get(ledger, RUN)
    # In the order of the way: a write that is marked is not forgotten before it is derived.
    position = followers.get(ledger, RUN)
    if position is None or position.reached < until:
        yield "the follower is behind"
    if position is not None and position.obstacle:
        yield f"the follower: {position.obstacle.get('sentence')}"
    if backlog := dirty.backlog(ledger, RUN):
        yield f"{backlog} dirty"
    queries = {"to undo": TO_UNDO, "wanted": WANTED, "failed": FAILED}
    if remigrate:
        queries["rolled back"] = ROLLED_BACK
    for name, query in queries.items():
        if numbers := _numbers(scene, query):
            yield f"chunks {name}: {Selection.of(numbers)}"
    if run.state not in AT_REST:
        yield f"the run is {run.state_words}"
    yield from _at_work(scene)


def _at_work(scene: Scene) -> Iterator[str]:
    if verbs := [name for name, process in scene.verbs if process.poll() is None]:
        yield f"under way: {', '.join(verbs)}"
    if working := claims.working(scene.ledger, RUN, claims.WORKS, presence.is_dead):
        yield f"{len(working)} at work"


def _numbers(scene: Scene, query: Query) -> list[int]:
    rows = scene.ledger["chunks"].find({"run": RUN, **query}, {"n": 1})
    return sorted(row["n"] for row in rows)


def _ask_again(acting: Acting, *, remigrate: bool) -> None:
    """Ask for what nobody drives: a verb that was killed or refused has left it behind."""
    scene = acting.scene
    if any(process.poll() is None for _, process in scene.verbs):
        return
    run = runs.get(scene.ledger, RUN)
    ways = [("rollback", TO_UNDO), ("retry", FAILED)]
    if remigrate:
        ways.append(("retry", ROLLED_BACK))
    for verb, query in ways:
        if numbers := _numbers(scene, query):
            _begin(acting, verb, "users", "--chunks", str(Selection.of(numbers)), "--yes")
            return
    if run.state is RunState.PAUSED and _numbers(scene, WANTED):
        _begin(acting, "resume", "users", "--yes")


def _begin(acting: Acting, *words: str) -> None:
    acting.tell(f"mongosplit {' '.join(words)}")
    acting.scene.verbs.append((" ".join(words), acting.scene.verb(*words)))
