"""What start, retry and serve share: find or plan the run, begin it, drive it here, sum it up."""

from __future__ import annotations

from mongosplit.errors import Refused
from mongosplit.ledger import chunks, followers, leases, runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import OpenRun, open_run
from producer import checks, console, planning, tables
from producer.connection import Connection
from producer.driving import DRIVEN
from producer.findings import Check, Subject
from producer.options import confirm
from producer.selecting import EVERYTHING, Asked, resolve

STARTABLE = (RunState.PLANNED, RunState.RUNNING, RunState.MIGRATED, RunState.VERIFIED)


def make_plan(
    at: Connection,
    spec: str,
    *,
    yes: bool,
    dry_run: bool,
    which: tuple[Check, ...] = checks.PLAN,
) -> planning.Plan:
    """Check, ask, and divide the source; with `dry_run` nothing is written."""
    subject = planning.subject(at, spec)
    for warning in checks.refuse_unsafe(checks.run_checks(subject, which)):
        tables.warn(warning)
    count = planning.source_count(subject)
    if not dry_run:
        confirm(f"plan {subject.source} in chunks of {at.settings.chunk_size:,}?", yes=yes)
    with console.counting("plan", "documents", count) as move:
        if dry_run:
            return planning.look(subject, move)
        made = planning.make(subject, move)
    assert made.run is not None  # a plan that is not a dry run has entered one
    at.tell("plan", run=made.run.id, chunk_size=at.settings.chunk_size)
    return made


def unfinished(at: Connection, spec: str, asked: Asked = EVERYTHING) -> Run | None:
    """The run to go on with; None when one has to be planned first.

    Raises:
        Refused: the run that is there cannot be started.
    """
    if run := runs.by_id(at.ledger, spec):
        return _startable(run, asked)
    subject = planning.subject(at, spec)
    run = runs.unfinished(at.ledger, subject.source)
    if run is not None and run.migration != spec:
        raise Refused(
            f"{subject.source} has an unfinished run of another migration: {run.id}",
            hint=f"mongosplit status {run.id}",
        )
    return None if run is None or run.state is RunState.PLANNING else _startable(run, asked)


def _startable(run: Run, asked: Asked) -> Run:
    if run.state is RunState.PAUSED:
        if run.resting and asked.anything:
            return run
        rest = "a part of it is applied" if run.resting else said_by(run)
        raise Refused(f"{run.id} is paused: {rest}", hint=f"mongosplit resume {run.id}")
    if run.state not in STARTABLE:
        raise Refused(
            f"{run.id} is {run.state_words} and cannot be started",
            hint=f"mongosplit status {run.id}",
        )
    return run


def said_by(run: Run) -> str:
    """Who brought the run where it is, and why."""
    who, why = run.asked.get("actor") or run.actor, run.asked.get("why")
    return f"asked by {who}" + (f": {why}" if why else "")


def say_plan(at: Connection, spec: str, run: Run | None, output: str) -> None:
    """Say what `start` would do; write nothing."""
    if run is None:
        made = make_plan(at, spec, yes=True, dry_run=True, which=checks.PLAN_AND_START)
        left, said = made.chunks, f"would plan {made.docs:,} documents in {made.chunks:,} chunks"
    else:
        left = len(chunks.numbers(at.ledger, run.id, {"state": "pending"}))
        said = f"{run.id} is {run.state}: would migrate {left:,} chunks"
    if output == "json":
        console.print_json({"run": run.id if run else None, "chunks": left})
    else:
        console.data.print(f"{said}; nothing was written")


def begin(at: Connection, run: Run, asked: Asked = EVERYTHING, *, yes: bool) -> OpenRun:
    """Open the run; one that is only planned is checked, asked about and set running.

    Of two that do this at once one makes the targets: it has the lease then, and keeps it to drive.

    Raises:
        LeaseHeld: another process has the run.
    """
    opened = open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
    if run.state is not RunState.PLANNED:
        return _go_on(at, opened, asked, yes=yes)
    subject = planning.subject(at, run.migration)
    for warning in checks.refuse_unsafe(checks.run_checks(subject, checks.START)):
        tables.warn(warning)
    targets = ", ".join(target.collection for target in opened.migration.targets)
    part = _part(at, run, asked)
    confirm(f"start {run.id}: split {part}{run.source} into {targets}?", yes=yes)
    leases.hold_when_free(at.ledger, run.id, planning.holder_of(at.settings))
    try:
        if runs.get(at.ledger, run.id).state is RunState.PLANNED:
            if run.drill is None and not asked.anything:
                console.say(f"not tried out: mongosplit drill {run.id} does, on 1 % of it")
            followers.begin(at.ledger, run.id, restart=True)
            _plan_what_came_since(opened, subject)
            selection = resolve(at, run, asked)
            at.tell("start", run=run.id, part=asked.description)
            actor = at.settings.actor
            return planning.begin_running(opened, selection, actor=actor, why=asked.description)
        return open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
    except BaseException:
        let_go(at, run)
        raise


def _go_on(at: Connection, opened: OpenRun, asked: Asked, *, yes: bool) -> OpenRun:
    """A run that was begun: with these chunks from now on, where a part is asked for."""
    run = opened.run
    if not asked.anything:
        if run.state in DRIVEN:
            at.tell("start", run=run.id)
        return opened
    selection = resolve(at, run, asked)
    assert selection is not None  # something was asked
    pending = {"$and": [{"state": "pending"}, selection.query()]}
    if not chunks.numbers(at.ledger, run.id, pending, limit=1):
        raise Refused(
            f"no chunk of {asked.description} of {run.id} is pending",
            hint=f"mongosplit status {run.id}",
        )
    confirm(f"go on with {_part(at, run, asked)}{run.source}?", yes=yes)
    leases.hold_when_free(at.ledger, run.id, planning.holder_of(at.settings))
    at.tell("start", run=run.id, part=asked.description)
    return planning.run_on(
        opened, selection.to_document(), actor=at.settings.actor, why=asked.description
    )


def _part(at: Connection, run: Run, asked: Asked) -> str:
    selection = resolve(at, run, asked)
    if selection is None:
        return ""
    whole = len(chunks.numbers(at.ledger, run.id, {"tail": None}))
    return f"{selection.count:,} of {whole:,} chunks ({asked.description}) of "


def let_go(at: Connection, run: Run) -> None:
    """Give the lease back that `begin` may have taken: this process is not to drive the run."""
    leases.let_go(at.ledger, run.id, planning.holder_of(at.settings))


def _plan_what_came_since(opened: OpenRun, subject: Subject) -> None:
    if planning.has_grown(opened):
        console.say("documents were inserted since the plan was made: planning again")
        with console.counting("plan", "documents", planning.source_count(subject)) as move:
            planning.refresh(subject, opened.run, move)
