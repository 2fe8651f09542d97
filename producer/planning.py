"""plan and start, up to the first wave: divide the source, enter the run, make the targets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mongosplit import pipelines, plan, provision
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks, runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.plan import PlannedChunk
from mongosplit.settings import Settings
from producer.checks import Subject
from producer.connection import Connection

OnProgress = Callable[[int], None]
RENEW_SECONDS = 3.0


@dataclass(frozen=True)
class Plan:
    """What a plan came to."""

    chunks: int
    docs: int
    run: Run | None = None


def subject(at: Connection, spec: str) -> Subject:
    """What the checks look at, for a migration by name."""
    return Subject(at.client, at.ledger, at.settings, at.migration(spec), spec)


def source_count(at: Subject) -> int:
    """About how many documents there are to plan."""
    return int(at.data[at.migration.source].estimated_document_count())


def look(at: Subject, on_progress: OnProgress) -> Plan:
    """Walk the source without writing anything."""
    count = docs = 0
    for chunk in _walk(at, on_progress):
        count, docs = count + 1, docs + chunk.docs
    return Plan(count, docs)


def make(at: Subject, on_progress: OnProgress) -> Plan:
    """Enter a run and its chunks in the ledger; nothing else is written.

    Raises:
        Refused: the source has an unfinished run already.
    """
    at.ledger.prepare()
    holder = holder_of(at.settings)
    run = runs.begin(at.ledger, name=at.migration.name, facts=_facts(at), holder=holder)
    entered = _enter(at, run, on_progress)
    runs.let_go(at.ledger, run.id, holder)
    return entered


def refresh(at: Subject, run: Run, on_progress: OnProgress) -> Plan:
    """Plan a run again that has not begun, because the source has grown since.

    The run is `planning` meanwhile: were this process to die, half a plan must not pass for one.
    The lease is kept.
    """
    runs.hold(at.ledger, run.id, holder_of(at.settings))
    run = runs.move(at.ledger, run.id, RunState.PLANNING)
    chunks.discard_plan(at.ledger, run.id)
    return _enter(at, run, on_progress)


def _enter(at: Subject, run: Run, on_progress: OnProgress) -> Plan:
    entered = chunks.write_plan(at.ledger, run.id, _kept_alive(at, run.id, on_progress))
    run = runs.move(at.ledger, run.id, RunState.PLANNED, counts=entered)
    return Plan(entered["chunks"], entered["docs"], run)


def _facts(at: Subject) -> dict[str, Any]:
    return {
        "migration": at.spec,
        "fingerprint": pipelines.fingerprint(at.migration),
        "source": at.source,
        "actor": at.settings.actor,
        "options": {
            "chunk_size": at.settings.chunk_size,
            "verify_share": at.settings.verify_share,
        },
    }


def holder_of(settings: Settings) -> str:
    """How this process is called in the lease of a run."""
    return f"{settings.actor} (process {os.getpid()})"


def _walk(at: Subject, on_progress: OnProgress) -> Iterator[PlannedChunk]:
    return plan.walk(
        at.data[at.migration.source],
        chunk_size=at.settings.chunk_size,
        on_progress=on_progress,
    )


def _kept_alive(at: Subject, run: str, on_progress: OnProgress) -> Iterator[PlannedChunk]:
    """The walk, with the planner's lease renewed meanwhile: losing it means losing the plan."""
    renewed = time.monotonic()
    for chunk in _walk(at, on_progress):
        if time.monotonic() - renewed > RENEW_SECONDS:
            runs.hold(at.ledger, run, holder_of(at.settings))
            renewed = time.monotonic()
        yield chunk


def begin_running(at: OpenRun) -> OpenRun:
    """Make the targets, note what was made, and let the first wave go.

    Raises:
        Refused: a target cannot be made as declared.
    """
    made = provision.provision(at.data, at.migration)
    noted = at.run.provisioned or made
    run = runs.move(at.ledger, at.run.id, RunState.RUNNING, provisioned=noted)
    return OpenRun(at.client, at.ledger, run, at.migration)


def has_grown(at: OpenRun) -> bool:
    """Whether documents stand in the tail chunk's range: inserted after the plan was made."""
    for n in chunks.numbers(at.ledger, at.run.id, {"tail": True}):
        query = union_query(chunks.get(at.ledger, at.run.id, n).ranges)
        return at.source.find_one(query, {"_id": 1}) is not None
    return False
