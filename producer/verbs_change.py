"""The verbs that change something: plan, start, retry, verify, serve."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import click

from mongosplit.errors import LeaseHeld, Refused
from mongosplit.ledger import chunks, claims, runs
from mongosplit.model import Run, RunState
from mongosplit.open_run import OpenRun, open_run
from mongosplit.settings import HOME, Settings
from producer import checks, conclusion, console, dispatch, planning, status, tables
from producer.conclusion import Verdict
from producer.connection import Connection, connected
from producer.dispatch import BrokerAway
from producer.driver import drive
from producer.local_workers import local_workers
from producer.options import (
    confirm,
    dry_run_flag,
    name_argument,
    output_flag,
    settings_flags,
    yes_flag,
)

SERVE_SECONDS = 1.0
DRIVEN = (RunState.RUNNING, RunState.MIGRATED)


@click.command("plan")
@name_argument("MIGRATION")
@yes_flag
@dry_run_flag
@output_flag
@settings_flags
@click.pass_context
def plan(
    context: click.Context,
    name: str | None,
    settings: Settings,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Divide the source into chunks and enter a run in the ledger; the data is not touched."""
    with connected(settings, context.obj) as at:
        made = _plan(at, name or settings.migration, yes=yes, dry_run=dry_run)
    facts = {"run": made.run.id if made.run else None, "chunks": made.chunks, "docs": made.docs}
    if output == "json":
        console.print_json(facts)
    elif made.run is None:
        console.data.print(
            f"would plan {made.docs:,} documents in {made.chunks:,} chunks; nothing was written"
        )
    else:
        console.data.print(f"{made.run.id}: {made.docs:,} documents in {made.chunks:,} chunks")
        console.data.print(f"next         [bold]mongosplit start {made.run.migration}[/bold]")


def _plan(at: Connection, spec: str, *, yes: bool, dry_run: bool) -> planning.Plan:
    subject = planning.subject(at, spec)
    for warning in checks.refuse_unsafe(checks.run_checks(subject, checks.PLAN)):
        tables.warn(warning)
    count = planning.source_count(subject)
    if not dry_run:
        confirm(f"plan {subject.source} in chunks of {at.settings.chunk_size:,}?", yes=yes)
    with console.counting("plan", "documents", count) as move:
        return planning.look(subject, move) if dry_run else planning.make(subject, move)


@click.command("start")
@name_argument("MIGRATION|RUN")
@click.option(
    "--local-workers",
    "local",
    type=click.IntRange(0, 64),
    default=0,
    help="run so many workers here meanwhile",
)
@click.option("--detach", is_flag=True, help="leave the driving to `mongosplit serve`")
@yes_flag
@dry_run_flag
@output_flag
@settings_flags
@click.pass_context
def start(  # noqa: PLR0913, PLR0917 - one argument for each flag
    context: click.Context,
    name: str | None,
    settings: Settings,
    local: int,
    detach: bool,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Drive the run to verified: plan if there is no plan, migrate, verify, sum up."""
    spec = name or settings.migration
    with connected(settings, context.obj) as at:
        run = _unfinished(at, spec)
        if dry_run:
            _say_plan(at, spec, run)
            return
        run = run or _plan(at, spec, yes=yes, dry_run=False).run
        assert run is not None  # a plan that is not a dry run has entered one
        opened = _begin(at, run, yes=yes)
        if detach:
            console.say(f"{run.id} is left to `mongosplit serve`")
            return
        with _workers(local, at.settings):
            _drive(opened, at.settings)
        verdict = conclusion.conclude(opened)
        _sum_up(at, verdict, output)
    context.exit(verdict.exit_code)


def _unfinished(at: Connection, spec: str) -> Run | None:
    """The run to go on with; None when one has to be planned first."""
    known = at.ledger["runs"].find_one({"_id": spec})
    if known is not None:
        return runs.get(at.ledger, spec)
    subject = planning.subject(at, spec)
    run = runs.unfinished(at.ledger, subject.source)
    if run is not None and run.migration != spec:
        raise Refused(
            f"{subject.source} has an unfinished run of another migration: {run.id}",
            hint=f"mongosplit status {run.id}",
        )
    return None if run is None or run.state is RunState.PLANNING else run


def _say_plan(at: Connection, spec: str, run: Run | None) -> None:
    if run is None:
        made = _plan(at, spec, yes=True, dry_run=True)
        console.data.print(
            f"would plan {made.docs:,} documents in {made.chunks:,} chunks and migrate them; nothing was written"
        )
        return
    left = len(chunks.numbers(at.ledger, run.id, {"state": "pending"}))
    console.data.print(
        f"{run.id} is {run.state}: would migrate {left:,} chunks; nothing was written"
    )


def _begin(at: Connection, run: Run, *, yes: bool) -> OpenRun:
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
def _workers(count: int, settings: Settings) -> Iterator[None]:
    if count:
        with local_workers(count, settings, HOME / "logs"):
            yield
        return
    with nullcontext():
        try:
            if not dispatch.listeners("migrate"):
                console.say(
                    "no worker listens on queue migrate yet; start one in another terminal:",
                    style="yellow",
                )
                console.say("  celery -A worker.app worker -Q migrate,verify -n w1@%h -c 2")
        except BrokerAway as error:
            console.say(f"{error.message}: {error.hint}", style="yellow")
        yield


def _drive(opened: OpenRun, settings: Settings) -> None:
    if opened.run.state not in DRIVEN:
        return
    with console.driving(opened.run.id) as show:
        drive(opened, settings, holder_of(settings), show)


def holder_of(settings: Settings) -> str:
    """How this driver is called in the lease."""
    return f"{settings.actor} (process {os.getpid()})"


def _sum_up(at: Connection, verdict: Verdict, output: str) -> None:
    facts = status.facts(at.ledger, verdict.run)
    if output == "json":
        console.print_json(facts)
    else:
        tables.summary(facts)


@click.command("retry")
@name_argument("MIGRATION|RUN")
@click.option(
    "--local-workers",
    "local",
    type=click.IntRange(0, 64),
    default=0,
    help="run so many workers here meanwhile",
)
@yes_flag
@output_flag
@settings_flags
@click.pass_context
def retry(
    context: click.Context, name: str | None, settings: Settings, local: int, yes: bool, output: str
) -> None:
    """Make failed chunks pending again and drive the run on."""
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        failed = chunks.numbers(at.ledger, opened.run.id, {"state": "failed"})
        if not failed:
            raise Refused(
                f"no chunk of {opened.run.id} has failed",
                hint=f"mongosplit status {opened.run.id}",
            )
        confirm(f"try {len(failed):,} failed chunks of {opened.run.id} again?", yes=yes)
        claims.forget_attempts(at.ledger, opened.run.id, failed, work="migrate")
        chunks.reopen_failed(at.ledger, opened.run.id)
        with _workers(local, at.settings):
            _drive(opened, at.settings)
        verdict = conclusion.conclude(opened)
        _sum_up(at, verdict, output)
    context.exit(verdict.exit_code)


@click.command("verify")
@name_argument("MIGRATION|RUN")
@output_flag
@settings_flags
@click.pass_context
def verify(context: click.Context, name: str | None, settings: Settings, output: str) -> None:
    """Compare every target byte of the run with what the source derives to."""
    with connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        if opened.run.state in (RunState.PLANNING, RunState.PLANNED):
            raise Refused(
                f"{opened.run.id} is {opened.run.state}: nothing is migrated yet",
                hint=f"mongosplit start {opened.run.migration}",
            )
        with console.counting("verify", "chunks") as move:
            verdict = conclusion.reverify(opened, at.settings, move)
        found = conclusion.found(opened)
    facts = {
        "run": opened.run.id,
        "checked": verdict.checked,
        "mismatches": found,
        "mismatches_total": verdict.mismatches,
        "unchecked_chunks": verdict.unchecked,
    }
    if output == "json":
        console.print_json(facts)
    else:
        tables.mismatches(facts)
    context.exit(verdict.exit_code)


@click.command("serve")
@settings_flags
@click.pass_context
def serve(context: click.Context, settings: Settings) -> None:
    """Drive every run that was started with --detach, for as long as it lives."""
    with connected(settings, context.obj) as at:
        at.ledger.prepare()
        console.say("serving: drives every running run; stop with Ctrl-C")
        said: dict[str, str] = {}
        while True:
            for state in DRIVEN:
                for run in runs.in_state(at.ledger, state):
                    sentence = _serve_one(at, run)
                    if said.get(run.id) != sentence:
                        said[run.id] = sentence
                        console.say(f"{run.id}: {sentence}")
            time.sleep(SERVE_SECONDS)


def _serve_one(at: Connection, run: Run) -> str:
    opened = open_run(at.client, at.ledger, run.id, holder=at.settings.actor)
    try:
        _drive(opened, at.settings)
    except LeaseHeld as held:
        return held.message
    verdict = conclusion.conclude(opened)
    return f"{verdict.run.state}, {verdict.failed} chunks failed, {verdict.mismatches} mismatches"
