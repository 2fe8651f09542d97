"""The verb that follows a run's source, so that the application's writes show in the targets."""

from __future__ import annotations

from threading import Event
from typing import Any

import click

from mongosplit.errors import Refused
from mongosplit.ledger import followers, runs
from mongosplit.model import FINISHED, RunState
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer import console, following_facts
from producer.connection import Connection, connected, refuse_over
from producer.ending import until_told
from producer.following import following
from producer.options import confirm, name_argument, settings_flags, yes_flag

LOOK_SECONDS = 1.0


@click.command("follow")
@name_argument("MIGRATION|RUN")
@click.option(
    "--restart", is_flag=True, help="follow from now on: the oplog no longer reaches back"
)
@yes_flag
@settings_flags
@click.pass_context
def follow(
    context: click.Context, name: str | None, settings: Settings, restart: bool, yes: bool
) -> None:
    """Follow the application's writes to the source, and bring the targets up to date.

    `start` and `serve` do so themselves while they live. Ends with the run, or with Ctrl-C.
    """
    with until_told() as told, connected(settings, context.obj) as at:
        opened = at.open(name or settings.migration)
        refuse_over(opened.run)
        if restart:
            _restart(at, opened, yes=yes)
        elif followers.get(at.ledger, opened.run.id) is None:
            raise Refused(
                f"{opened.run.id} has not begun: there is nothing to follow yet",
                hint=f"mongosplit start {opened.run.migration}",
            )
        at.tell("follow", run=opened.run.id, restart=restart)
        _until_over(opened, settings, told)


def _restart(at: Connection, opened: OpenRun, *, yes: bool) -> None:
    run = opened.run
    if run.state in (RunState.PLANNING, RunState.PLANNED):
        raise Refused(
            f"{run.id} has not begun: it is followed from its start on",
            hint=f"mongosplit start {run.migration}",
        )
    confirm(f"follow {run.id} from now on? what was missed must be repaired", yes=yes)
    followers.begin(at.ledger, run.id, restart=True)
    console.say(f"next, and beside it: mongosplit verify {run.id} --repair", style="yellow")


def _until_over(at: OpenRun, settings: Settings, told: Event) -> None:
    with following(at, settings) as live, console.standing() as show:
        warned: set[str] = set()
        while not told.wait(LOOK_SECONDS):
            run = runs.get(at.ledger, at.run.id)
            if run.state in FINISHED:
                console.say(f"{run.id} is {run.state_words}: nothing is to be followed any more")
                return
            if facts := following_facts.facts(at.ledger, run):
                brief = following_facts.brief(facts, name=live.name)
                show(f"{run.id}: {brief}", following_facts.sentence(facts, run.id))
                _warn(run.id, facts, warned)


def _warn(run: str, facts: dict[str, Any], warned: set[str]) -> None:
    """Say once of each collection that somebody else writes it."""
    sentences = following_facts.foreign_sentences(facts)
    for row, sentence in zip(facts["foreign"], sentences, strict=True):
        if row["collection"] not in warned:
            warned.add(row["collection"])
            console.say(f"{run}: {sentence}", style="yellow")
