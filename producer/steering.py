"""What start, retry and serve share: find or plan the run, begin it, drive it here, sum it up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mongosplit.errors import Refused
from mongosplit.ledger import chunks, runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import OpenRun, open_run
from mongosplit.settings import HOME, Settings
from producer import checks, console, dispatch, planning, status, tables
from producer.checks import START_A_WORKER
from producer.conclusion import Verdict
from producer.connection import Connection
from producer.dispatch import BrokerAway
from producer.driver import drive
from producer.local_workers import local_workers
from producer.options import confirm

DRIVEN = (RunState.RUNNING, RunState.MIGRATED)


def make_plan(at: Connection, spec: str, *, yes: bool, dry_run: bool) -> planning.Plan:
    """Check, ask, and divide the source; with `dry_run` nothing is written."""
    subject = planning.subject(at, spec)
    for warning in checks.refuse_unsafe(checks.run_checks(subject, checks.PLAN)):
        tables.warn(warning)
    count = planning.source_count(subject)
    if not dry_run:
        confirm(f"plan {subject.source} in chunks of {at.settings.chunk_size:,}?", yes=yes)
    with console.counting("plan", "documents", count) as move:
        return planning.look(subject, move) if dry_run else planning.make(subject, move)


def unfinished(at: Connection, spec: str) -> Run | None:
    """The run to go on with; None when one has to be planned first."""
    if run := runs.by_id(at.ledger, spec):
        return run
    subject = planning.subject(at, spec)
    run = runs.unfinished(at.ledger, subject.source)
    if run is not None and run.migration != spec:
        raise Refused(
            f"{subject.source} has an unfinished run of another migration: {run.id}",
            hint=f"mongosplit status {run.id}",
        )
    return None if run is None or run.state is RunState.PLANNING else run


def say_plan(at: Connection, spec: str, run: Run | None) -> None:
    """Say what `start` would do; write nothing."""
    if run is None:
        made = make_plan(at, spec, yes=True, dry_run=True)
        console.data.print(
            f"would plan {made.docs:,} documents in {made.chunks:,} chunks and migrate them; "
            "nothing was written"
        )
        return
    left = len(chunks.numbers(at.ledger, run.id, {"state": "pending"}))
    console.data.print(
        f"{run.id} is {run.state}: would migrate {left:,} chunks; nothing was written"
    )


def begin(at: Connection, run: Run, *, yes: bool) -> OpenRun:
    """Open the run; one that is only planned is checked, asked about and set running."""
    opened = open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
    if run.state is not RunState.PLANNED:
        return opened
    subject = planning.subject(at, run.migration)
    for warning in checks.refuse_unsafe(checks.run_checks(subject, checks.START)):
        tables.warn(warning)
    targets = ", ".join(target.collection for target in opened.migration.targets)
    confirm(f"start {run.id}: split {run.source} into {targets}?", yes=yes)
    if planning.has_grown(opened):
        console.say("documents were inserted since the plan was made: planning again")
        with console.counting("plan", "documents", planning.source_count(subject)) as move:
            planning.refresh(subject, run, move)
    return planning.begin_running(opened)


@contextmanager
def workers(count: int, settings: Settings) -> Iterator[None]:
    """Local workers meanwhile, or a word when nobody listens."""
    if count:
        with local_workers(count, settings, HOME / "logs"):
            yield
        return
    try:
        listening = dispatch.listeners("migrate")
    except BrokerAway as error:
        console.say(f"{error.message}: {error.hint}", style="yellow")
    else:
        if not listening:
            console.say(
                "no worker listens on queue migrate yet; start one elsewhere:", style="yellow"
            )
            console.say(f"  {START_A_WORKER}")
    yield


def drive_here(opened: OpenRun, settings: Settings) -> None:
    """Drive the run in this process, with a live view."""
    if opened.run.state not in DRIVEN:
        return
    with console.driving(opened.run.id) as show:
        drive(opened, settings, holder_of(settings), show)


def holder_of(settings: Settings) -> str:
    """How this driver is called in the lease."""
    return f"{settings.actor} (process {os.getpid()})"


def sum_up(at: Connection, verdict: Verdict, output: str) -> None:
    """Print the run at a glance."""
    facts = status.facts(at.ledger, verdict.run)
    if output == "json":
        console.print_json(facts)
    else:
        tables.summary(facts)
