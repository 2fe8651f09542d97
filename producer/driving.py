"""Driving a run in this process: with local workers, a live view, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from mongosplit.errors import LeaseHeld
from mongosplit.ledger import asks, runs
from mongosplit.model import RunState
from mongosplit.open_run import OpenRun
from mongosplit.settings import HOME, Settings
from producer import conclusion, console, dispatch, planning, status, tables
from producer.checks import START_A_WORKER
from producer.conclusion import Verdict
from producer.connection import Connection
from producer.dispatch import BrokerAway
from producer.driver import drive
from producer.local_workers import local_workers

DRIVEN = (
    RunState.RUNNING,
    RunState.MIGRATED,
    RunState.PAUSING,
    RunState.CANCELLING,
    RunState.ROLLING_BACK,
)
"""The states in which a driver has something to do."""


@contextmanager
def workers(count: int, settings: Settings, *queues: str, needed: bool = True) -> Iterator[None]:
    """Local workers for these queues meanwhile, or a word when nobody listens and that is needed.

    Without queues those of a migration.
    """
    queues = queues or ("migrate", "verify")
    if count:
        with local_workers(count, settings, HOME / "logs", queues=",".join(queues)):
            yield
        return
    if needed:
        _say_who_is_missing(queues[0])
    yield


def _say_who_is_missing(queue: str) -> None:
    try:
        listening = dispatch.listeners(queue)
    except BrokerAway as error:
        console.say(f"{error.message}: {error.hint}", style="yellow")
        return
    if not listening:
        said = f"no worker listens on queue {queue} yet; start one elsewhere:"
        console.say(said, style="yellow")
        console.say(f"  {START_A_WORKER}")


def drive_here(
    opened: OpenRun,
    settings: Settings,
    *,
    stay: bool = False,
    undo_only: bool = False,
    stop: Event | None = None,
) -> None:
    """Drive the run in this process, with a live view; the rest is as `drive` has it."""
    run = runs.get(opened.ledger, opened.run.id)
    if run.state not in DRIVEN and not asks.left_to_undo(opened.ledger, run.id, limit=1):
        return
    holder = planning.holder_of(settings)
    with console.driving(opened.run.id) as show:
        drive(opened, settings, holder, show, stop, stay=stay, undo_only=undo_only)


def drive_and_sum_up(at: Connection, opened: OpenRun, local: int, output: str) -> int:
    """Drive the run here, print what it came to, and return the exit code."""
    with workers(local, at.settings):
        drive_here(opened, at.settings, stay=True)
    verdict = conclusion.conclude(opened, driven=True)
    sum_up(at, verdict, output)
    return verdict.exit_code


def drive_unless_driven(
    at: Connection, opened: OpenRun, local: int, output: str, *, done: str
) -> int:
    """The same; where another driver has the run it does it, and only what is `done` is said."""
    try:
        return drive_and_sum_up(at, opened, local, output)
    except LeaseHeld as held:
        console.say(f"{done}: {held.message}")
        return 0


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
