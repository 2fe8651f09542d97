"""The command line of the load: its phases on embedded servers, or the application by itself."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mongosplit.errors import MongosplitError
from mongosplit.mongo import Client, connect, explained
from ops.embedded import EmbeddedServers
from ops.load import tables
from ops.load.application import SOURCE, Application, Passed
from ops.load.by_itself import application, compare
from ops.load.commands import DATABASE, Commands
from ops.load.habits import Habits
from ops.load.phases import Bench
from ops.load.showing import Lags, Sampler
from ops.load.while_following import follow
from ops.seed import seed
from producer.console import print_json, say
from producer.options import output_flag, report_error

SPARED = 200
OPLOG_MB = 1024


@click.group(invoke_without_command=True)
@click.option("--users", type=click.IntRange(1), default=50_000, show_default=True)
@click.option("--rate", type=click.FloatRange(1), help="operations/s  [default: 300; showing: 500]")
@click.option("--seconds", type=click.FloatRange(1), default=15.0, show_default=True)
@click.option("--pace", type=click.FloatRange(1), default=2000.0, show_default=True)
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--cache-gb", type=click.FloatRange(0.25), default=2.0, show_default=True)
@click.option("--showing", is_flag=True, help="how soon a write shows beside `mongosplit follow`")
@output_flag
@click.pass_context
def load(  # noqa: PLR0913, PLR0917 - one argument for each flag
    context: click.Context,
    users: int,
    rate: float | None,
    seconds: float,
    pace: float,
    threads: int,
    cache_gb: float,
    showing: bool,
    output: str,
) -> None:
    """Measure what the application feels of a migration, on an embedded one-node replica set.

    Numbers are reported, not tested: a goal that is not met does not change the exit code.
    """
    if context.invoked_subcommand:
        return
    facts = {"users": users, "seconds": seconds, "pace": pace, "cores": os.cpu_count()}
    try:
        with _stage(users, cache_gb) as (client, commands):
            if showing:
                found, passed = _showing(client, commands, seconds, rate or 500, threads)
                _tell_lags(found, passed, facts, output)
            else:
                with _application(client, rate or 300, threads) as writing:
                    bench = Bench(client, writing, commands)
                    measured, drift = bench.measure(seconds, pace, lambda name: say(name))
                idle = measured[0].felt
                if output == "text":
                    tables.phases(measured, rate or 300, drift)
                else:
                    rows = [phase.to_document(idle) for phase in measured]
                    said = {"phases": rows, "goals": tables.goals(measured), "drift": drift}
                    print_json({**facts, "rate": rate or 300, **said})
    except MongosplitError as error:
        sys.exit(report_error(error))


load.add_command(application)
load.add_command(compare)


@contextmanager
def _stage(users: int, cache_gb: float) -> Iterator[tuple[Client, Commands]]:
    """Embedded servers with so many users."""
    with (
        tempfile.TemporaryDirectory(prefix="mongosplit-load-") as folder,
        EmbeddedServers(cache_gb=cache_gb, oplog_mb=OPLOG_MB) as servers,
        explained(servers.mongo_url),
        connect(servers.mongo_url, application="mongosplit-load") as client,
    ):
        say(f"{users:,} users are made up and loaded")
        seed(client[DATABASE][SOURCE], users)
        yield client, Commands(servers, Path(folder))


def _application(client: Client, rate: float, threads: int, *, spared: int = 0) -> Application:
    habits = Habits(spared=spared)
    return Application(client, DATABASE, seed=1, threads=threads, rate=rate, habits=habits)


def _showing(
    client: Client, commands: Commands, seconds: float, rate: float, threads: int
) -> tuple[Lags, Passed]:
    say("everything is migrated and verified")
    commands.run("start users --yes --local-workers 2")
    with _application(client, rate, threads, spared=SPARED) as writing:
        sampler = Sampler(client[DATABASE], writing.spared)
        say("the application writes beside mongosplit follow")
        return follow(commands, writing, sampler, seconds)


def _tell_lags(found: Lags, passed: Passed, facts: dict[str, Any], output: str) -> None:
    if output == "text":
        tables.lags(found, passed)
    else:
        told = {**found.to_document(), "rate": passed.rate, "errors": passed.errors}
        print_json({**facts, "showing": told})
