"""The verb that lives on: drives every run left to it, and follows every one that has begun."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Event

import click

from mongosplit.errors import LeaseHeld, MongosplitError
from mongosplit.ledger import audit, followers, runs
from mongosplit.model import Run
from mongosplit.open_run import open_run
from mongosplit.settings import Settings
from producer import conclusion, console, scrape
from producer.connection import Connection, connected
from producer.driving import DRIVEN, drive_here
from producer.ending import until_told
from producer.following import following
from producer.options import settings_flags

SERVE_SECONDS = 1.0


@click.command("serve")
@settings_flags
@click.pass_context
def serve(context: click.Context, settings: Settings) -> None:
    """Drive every run that was left to it (--detach), and follow every one that has begun.

    With --metrics it answers Prometheus meanwhile.
    """
    with (
        until_told() as told,
        connected(settings, context.obj) as at,
        scrape.served(at.ledger, settings.metrics_address),
        ExitStack() as stack,
    ):
        at.tell("serve")
        audit.chain(at.ledger)
        console.say("serving: drives and follows every run that has begun; stop with Ctrl-C")
        served = _Served(at, stack, told)
        while not told.wait(SERVE_SECONDS):
            served.look()


class _Served:
    """The runs that this process looks after, and what it has said of each."""

    def __init__(self, at: Connection, stack: ExitStack, told: Event) -> None:
        self._at, self._stack, self._told = at, stack, told
        self._followed: dict[str, ExitStack] = {}
        self._said: dict[str, str] = {}

    def look(self) -> None:
        """Follow what has begun, let go of what is over, drive what is to be driven."""
        self._follow(followers.of_unfinished(self._at.ledger))
        for state in DRIVEN:
            for run in runs.in_state(self._at.ledger, state):
                if self._told.is_set():
                    return
                try:
                    self._say(run.id, self._drive(run))
                except MongosplitError as error:
                    self._say(run.id, error.message)

    def _follow(self, begun: list[str]) -> None:
        for run in begun:
            if run not in self._followed:
                try:
                    opened = open_run(
                        self._at.client, self._at.ledger, run, holder=self._at.settings.actor
                    )
                except MongosplitError as error:
                    self._say(run, error.message)
                    continue
                own = self._stack.enter_context(ExitStack())
                own.enter_context(following(opened, self._at.settings))
                self._followed[run] = own
                self._say(run, "followed")
        for run in self._followed.keys() - set(begun):
            self._followed.pop(run).close()

    def _say(self, run: str, sentence: str) -> None:
        if self._said.get(run) != sentence:
            self._said[run] = sentence
            console.say(f"{run}: {sentence}")

    def _drive(self, run: Run) -> str:
        opened = open_run(self._at.client, self._at.ledger, run.id, holder=self._at.settings.actor)
        try:
            drive_here(opened, self._at.settings, stop=self._told)
        except LeaseHeld as held:
            return held.message
        verdict = conclusion.conclude(opened)
        state, failed = verdict.run.state_words, verdict.failed
        return f"{state}, {failed} chunks failed, {verdict.mismatches} mismatches"
