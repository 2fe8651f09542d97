"""plan and start, up to the first wave: divide the source, enter the run, make the targets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mongosplit import breaker, pipelines, plan, provision
from mongosplit.keyspace import union_query
from mongosplit.ledger import chunks, leases, plans, runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.plan import PlannedChunk
from mongosplit.selection import Selection
from mongosplit.settings import Settings
from producer.connection import Connection
from producer.findings import Subject

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
    leases.let_go(at.ledger, run.id, holder)
    return entered


def refresh(at: Subject, run: Run, on_progress: OnProgress) -> Plan:
    """Plan a run again that has not begun, because the source has grown since.

    The run is `planning` meanwhile: were this process to die, half a plan must not pass for one.
    The lease is kept.
    """
    leases.hold(at.ledger, run.id, holder_of(at.settings))
    run = runs.move(at.ledger, run.id, RunState.PLANNING)
    plans.discard_plan(at.ledger, run.id)
    return _enter(at, run, on_progress)


def _enter(at: Subject, run: Run, on_progress: OnProgress) -> Plan:
    entered = plans.write_plan(at.ledger, run.id, _kept_alive(at, run.id, on_progress))
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
            "throttle": at.settings.throttle,
            "target_milliseconds": at.settings.target_milliseconds,
            **breaker.limits(at.settings.breaker_documents, at.settings.breaker_chunks),
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
            leases.hold(at.ledger, run, holder_of(at.settings))
            renewed = time.monotonic()
        yield chunk


def begin_running(at: OpenRun, selection: Selection | None, *, actor: str, why: str) -> OpenRun:
    """Note what is to be made, make the targets, and let the first wave of the selection go.

    What is noted first is never forgotten, so a rollback of the whole run can take it away.

    Raises:
        Refused: a target cannot be made as declared.
    """
    if not at.run.provisioned:
        lacking = provision.missing(at.data, at.migration)
        runs.note(at.ledger, at.run.id, provisioned=lacking)
    provision.provision(at.data, at.migration)
    spans = None if selection is None else selection.to_document()
    return run_on(at, spans, actor=actor, why=why)


def run_on(at: OpenRun, spans: list[list[int]] | None, *, actor: str, why: str = "") -> OpenRun:
    """Let the run go on, with these spans of chunks (none: all)."""
    run = runs.move(at.ledger, at.run.id, RunState.RUNNING, actor=actor, why=why, selection=spans)
    if run.selection != spans:
        runs.note(at.ledger, run.id, selection=spans)
    return OpenRun(at.client, at.ledger, runs.get(at.ledger, run.id), at.migration)


def resume(at: OpenRun, settings: Settings) -> OpenRun:
    """Let a paused run go on: with what it was at, or with all the rest when that was done.

    The breaker holds to the limits that are set now, since they may be why it stopped.
    """
    limits = breaker.limits(settings.breaker_documents, settings.breaker_chunks)
    runs.note(at.ledger, at.run.id, options={**at.run.options, **limits})
    spans = None if at.run.resting else at.run.selection
    return run_on(at, spans, actor=settings.actor, why="resumed")


def has_grown(at: OpenRun) -> bool:
    """Whether documents stand in the tail chunk's range: inserted after the plan was made."""
    for n in chunks.numbers(at.ledger, at.run.id, {"tail": True}):
        query = union_query(chunks.get(at.ledger, at.run.id, n).ranges)
        return at.source.find_one(query, {"_id": 1}) is not None
    return False
