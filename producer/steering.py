"""What start, retry and serve share: find or plan the run, begin it, drive it here, sum it up."""

from __future__ import annotations

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
STARTABLE = (RunState.PLANNED, *DRIVEN, RunState.VERIFIED)


def make_plan(
    at: Connection,
    spec: str,
    *,
    yes: bool,
    dry_run: bool,
    which: tuple[checks.Check, ...] = checks.PLAN,
) -> planning.Plan:
    """Check, ask, and divide the source; with `dry_run` nothing is written."""
    subject = planning.subject(at, spec)
    for warning in checks.refuse_unsafe(checks.run_checks(subject, which)):
        tables.warn(warning)
    count = planning.source_count(subject)
    if not dry_run:
        confirm(f"plan {subject.source} in chunks of {at.settings.chunk_size:,}?", yes=yes)
    with console.counting("plan", "documents", count) as move:
        return planning.look(subject, move) if dry_run else planning.make(subject, move)


def unfinished(at: Connection, spec: str) -> Run | None:
    """The run to go on with; None when one has to be planned first.

    Raises:
        Refused: the run that is there cannot be started.
    """
    if run := runs.by_id(at.ledger, spec):
        return _startable(run)
    subject = planning.subject(at, spec)
    run = runs.unfinished(at.ledger, subject.source)
    if run is not None and run.migration != spec:
        raise Refused(
            f"{subject.source} has an unfinished run of another migration: {run.id}",
            hint=f"mongosplit status {run.id}",
        )
    return None if run is None or run.state is RunState.PLANNING else _startable(run)


def _startable(run: Run) -> Run:
    if run.state not in STARTABLE:
        raise Refused(
            f"{run.id} is {run.state.replace('_', ' ')} and cannot be started",
            hint=f"mongosplit status {run.id}",
        )
    return run


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


def begin(at: Connection, run: Run, *, yes: bool) -> OpenRun:
    """Open the run; one that is only planned is checked, asked about and set running.

    Of two that do this at once one makes the targets: it has the lease then, and keeps it to drive.

    Raises:
        LeaseHeld: another process has the run.
    """
    opened = open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
    if run.state is not RunState.PLANNED:
        return opened
    subject = planning.subject(at, run.migration)
    for warning in checks.refuse_unsafe(checks.run_checks(subject, checks.START)):
        tables.warn(warning)
    targets = ", ".join(target.collection for target in opened.migration.targets)
    confirm(f"start {run.id}: split {run.source} into {targets}?", yes=yes)
    runs.hold_when_free(at.ledger, run.id, planning.holder_of(at.settings))
    try:
        if runs.get(at.ledger, run.id).state is RunState.PLANNED:
            _plan_what_came_since(opened, subject)
            return planning.begin_running(opened)
        return open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
    except BaseException:
        let_go(at, run)
        raise


def let_go(at: Connection, run: Run) -> None:
    """Give the lease back that `begin` may have taken: this process is not to drive the run."""
    runs.let_go(at.ledger, run.id, planning.holder_of(at.settings))


def _plan_what_came_since(opened: OpenRun, subject: checks.Subject) -> None:
    if planning.has_grown(opened):
        console.say("documents were inserted since the plan was made: planning again")
        with console.counting("plan", "documents", planning.source_count(subject)) as move:
            planning.refresh(subject, opened.run, move)


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
        drive(opened, settings, planning.holder_of(settings), show)


def sum_up(at: Connection, verdict: Verdict, output: str) -> None:
    """Print the run at a glance, and say what is wrong with it."""
    facts = status.facts(at.ledger, verdict.run)
    if output == "json":
        console.print_json(facts)
    else:
        tables.summary(facts)
    first = next((f": {failure['sentence']}" for failure in facts["failures"]), "")
    say_what_is_wrong(verdict, first, hint=facts["next"])


def say_what_is_wrong(verdict: Verdict, because: str = "", *, hint: str) -> None:
    """A sentence and the next thing to type, where the exit code is not 0."""
    if verdict.exit_code:
        console.say(f"mongosplit: {verdict.sentence}{because}", style="red")
        console.say(f"  {hint}")
