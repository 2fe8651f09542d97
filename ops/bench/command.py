"""The command line of the benchmark: a server of its own, and the sections asked for."""

from __future__ import annotations

import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pymongo

from mongosplit.errors import MongosplitError
from mongosplit.mongo import explained
from mongosplit.plan import LARGEST_CHUNK
from ops.bench import tables
from ops.bench.result import Result, Told
from ops.bench.sections import SECTIONS
from ops.bench.stage import Stage, open_client, settings
from ops.embedded import EmbeddedServers
from producer.console import counting, say
from producer.options import report_error

DATABASE = "bench"
OPLOG_MB = 1024
"""Room for some forty cells of 20,000 users; it wraps around, and nobody reads it."""


@click.command()
@click.argument("names", metavar="[SECTION]...", nargs=-1, type=click.Choice([*SECTIONS]))
@click.option("--users", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--chunk", type=click.IntRange(1, LARGEST_CHUNK), default=1000, show_default=True)
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="seconds a section may take to repeat what was measured beside other work",
)
@click.option("--cache-gb", type=click.FloatRange(0.25), default=2.0, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="write every sample there")
def main(
    names: Sequence[str],
    users: int,
    rounds: int,
    chunk: int,
    patience: float,
    cache_gb: float,
    file: Path | None,
) -> None:
    """Compare the chunk path with its peers and its limit on an embedded one-node replica set.

    Without a SECTION all of them are run. Numbers are reported, not tested: a goal that is not met
    does not change the exit code.
    """
    wanted = dict.fromkeys(names or SECTIONS)
    typed = f"python -m ops.bench {' '.join(wanted)}"
    facts = {"command": f"{typed} --users {users} --rounds {rounds} --chunk {chunk}"}
    began = time.monotonic()
    try:
        with EmbeddedServers(cache_gb=cache_gb, oplog_mb=OPLOG_MB) as servers:
            url = servers.mongo_url
            with explained(url), open_client(url) as client:
                own = settings(url, servers.redis_url, database=DATABASE, chunk=chunk)
                stage = Stage(client, own, rounds, patience)
                facts |= _facts(stage)
                tables.heading(facts)
                say(f"{users:,} users are made up and loaded", style="dim")
                stage.fill(users)
                results = {name: _section(stage, name) for name in wanted}
    except MongosplitError as error:
        sys.exit(report_error(error))
    tables.ending(results.values(), time.monotonic() - began)
    if file:
        sections = {name: result.to_document() for name, result in results.items()}
        file.write_text(json.dumps({**facts, "sections": sections}, indent=2) + "\n")


def _section(stage: Stage, name: str) -> Result | Told:
    """Run a section and show it; how many measurements it takes depends on other work."""
    label = f"{name}, {stage.rounds} rounds"
    numbers = itertools.count(1)
    say(label, style="dim")
    with counting(label, "measurements") as move:
        stage.on_sample = lambda: move(next(numbers), 0)
        result = SECTIONS[name](stage)
    if isinstance(result, Result):
        tables.section(result)
    else:
        tables.told(result)
    return result


def _facts(stage: Stage) -> dict[str, Any]:
    return {
        "mongodb": stage.client.server_info()["version"],
        "pymongo": pymongo.version,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
