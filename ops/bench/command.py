"""The command line of the benchmark: a server of its own, the sections asked for, the tables."""

from __future__ import annotations

import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
import pymongo
from rich import box
from rich.console import Console
from rich.table import Table

from mongosplit.errors import MongosplitError
from mongosplit.mongo import explained
from mongosplit.plan import LARGEST_CHUNK
from ops.bench.result import Goal, Result
from ops.bench.sections import SECTIONS
from ops.bench.stage import QUIET, Stage, open_client, settings
from ops.embedded import EmbeddedServers
from producer.console import counting, duration, say
from producer.options import report_error

DATABASE = "bench"
WIDTH = 118
OPLOG_MB = 1024
"""Room for some forty cells of 20,000 users; it wraps around, and nobody reads it."""

Results = dict[str, Result]


@click.command()
@click.argument("names", metavar="[SECTION]...", nargs=-1, type=click.Choice([*SECTIONS]))
@click.option("--users", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--chunk", type=click.IntRange(1, LARGEST_CHUNK), default=1000, show_default=True)
@click.option("--cache-gb", type=click.FloatRange(0.25), default=2.0, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="write every sample there")
def main(
    names: Sequence[str], users: int, rounds: int, chunk: int, cache_gb: float, file: Path | None
) -> None:
    """Compare the chunk path with its peers and its limit on an embedded one-node replica set.

    Without a SECTION all of them are run. Numbers are reported, not tested: a goal that is not met
    does not change the exit code.
    """
    wanted = names or tuple(SECTIONS)
    began = time.monotonic()
    try:
        with EmbeddedServers(redis=False, cache_gb=cache_gb, oplog_mb=OPLOG_MB) as servers:
            results, facts = _run(servers.mongo_url, wanted, users, rounds, chunk)
    except MongosplitError as error:
        sys.exit(report_error(error))
    typed = f"python -m ops.bench {' '.join(wanted)}"
    facts |= {"command": f"{typed} --users {users} --rounds {rounds} --chunk {chunk}"}
    _show(results, facts, time.monotonic() - began)
    if file:
        sections = {name: result.to_document() for name, result in results.items()}
        file.write_text(json.dumps({**facts, "sections": sections}, indent=2) + "\n")


def _run(
    url: str, wanted: Sequence[str], users: int, rounds: int, chunk: int
) -> tuple[Results, dict[str, Any]]:
    with explained(url), open_client(url) as client:
        stage = Stage(client, settings(url, database=DATABASE, chunk=chunk), rounds)
        say(f"{users:,} users are made up and loaded", style="dim")
        stage.fill(users)
        results: Results = {}
        for name in wanted:
            with _counted(stage, f"{name}, {rounds} rounds"):
                results[name] = SECTIONS[name](stage)
        facts = {
            "mongodb": client.server_info()["version"],
            "pymongo": pymongo.version,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        }
    return results, facts


@contextmanager
def _counted(stage: Stage, label: str) -> Iterator[None]:
    """A bar that moves with each measurement; how many there will be depends on other work."""
    numbers = itertools.count(1)
    say(label, style="dim")
    with counting(label, "measurements") as move:
        stage.on_sample = lambda: move(next(numbers), 0)
        yield


def _show(results: Results, facts: dict[str, Any], seconds: float) -> None:
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    console.print(f"$ {facts['command']}", style="bold")
    console.print(
        f"MongoDB {facts['mongodb']} on one node, pymongo {facts['pymongo']}, "
        f"Python {facts['python']}, {facts['cores']} cores; took {duration(seconds)}"
    )
    for result in results.values():
        console.print()
        console.print(_table(result))
        for goal in result.goals:
            console.print(_goal(result, goal))
    console.print(f"\n{_load(results)}")


def _table(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=result.title, title_justify="left")
    table.add_column("cell", no_wrap=True)
    ratios = [f"to {name}" for name in result.to]
    for heading in ("users/s", "min..max", *ratios, "µs/user mongod", "clients", "others, cores"):
        table.add_column(heading, justify="right")
    for name, samples in result.samples.items():
        rates = result.rates(name)
        foreign = [sample.foreign for sample in samples if sample.foreign is not None]
        table.add_row(
            name,
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f}..{max(rates):,.0f}",
            *(f"{result.ratio(name, to):.2f}" for to in result.to),
            _number(result.cpu(name, lambda sample: sample.mongod), 1),
            _number(result.cpu(name, lambda sample: sample.clients), 1),
            _number(median(foreign) if foreign else None, 2),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _goal(result: Result, goal: Goal) -> str:
    ratio = result.ratio(goal.cell, goal.to)
    verdict = "[green]met    [/green]" if goal.is_met(ratio) else "[yellow]not met[/yellow]"
    bound = f"at most {goal.most:g}" if goal.least is None else f"at least {goal.least:g}"
    cpu = result.cpu_ratio(goal.cell, goal.to) if goal.by_cpu else None
    besides = "" if cpu is None else f" (by CPU per user {cpu:.3g})"
    return f"goal {verdict}  {goal.sentence}, {bound}: {ratio:.3g}{besides}"


def _load(results: Results) -> str:
    """How much other work there was, and how far the numbers can be trusted for it."""
    foreign = [cores for result in results.values() for cores in result.foreign()]
    if not foreign:
        return "this machine does not say what other work took"
    loud = sum(cores >= QUIET for cores in foreign)
    usual, most = median(foreign), max(foreign)
    said = f"other work kept {usual:.2f} cores busy in the median, {most:.2f} at most"
    if not loud:
        return f"{said}: a quiet machine"
    kept = f"{loud} of {len(foreign)} measurements were taken although it was more than {QUIET}"
    return f"{said}; {kept}: run it again on a quiet machine"
