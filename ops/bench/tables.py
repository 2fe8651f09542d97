"""The benchmark on stdout: a table for each section, its goals, and how far to trust them."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ops.bench.result import Goal, Result, Told
from ops.bench.stage import QUIET
from producer.console import duration

WIDTH = 118


def heading(facts: dict[str, Any]) -> None:
    """What was typed, and on what it runs."""
    console = _console()
    console.print(f"$ {facts['command']}", style="bold")
    console.print(
        f"MongoDB {facts['mongodb']} on one node, pymongo {facts['pymongo']}, "
        f"Python {facts['python']}, {facts['cores']} cores"
    )


def section(result: Result) -> None:
    """The table of a section, and a line for each of its goals."""
    console = _console()
    console.print()
    console.print(_table(result))
    for goal in result.goals:
        console.print(_goal(result, goal))


def told(found: Told) -> None:
    """What a section says in sentences."""
    console = _console()
    console.print(f"\n{found.title}", style="italic")
    for sentence in found.sentences():
        console.print(sentence)


def ending(results: Iterable[Result | Told], seconds: float) -> None:
    """How long it took, and what other work there was meanwhile."""
    _console().print(f"\ntook {duration(seconds)}; {_load(results)}")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, width=WIDTH)


def _table(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=result.title, title_justify="left")
    table.add_column("cell", no_wrap=True)
    ratios = [f"to\n{name}" for name in result.to]
    cpu = ("CPU µs/user\nmongod", "\nclients", "others,\ncores")
    for heading in ("users/s", "min..max", *ratios, *cpu):
        table.add_column(heading, justify="right", no_wrap=True)
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


def _load(results: Iterable[Result | Told]) -> str:
    """How much other work there was, and how far the numbers can be trusted for it."""
    foreign = [cores for result in results for cores in result.foreign()]
    if not foreign:
        return "this machine does not say what other work took"
    loud = sum(cores >= QUIET for cores in foreign)
    usual, most = median(foreign), max(foreign)
    said = f"other work kept {usual:.2f} cores busy in the median, {most:.2f} at most"
    if not loud:
        return f"{said}: a quiet machine"
    kept = f"{loud} of {len(foreign)} measurements were taken although it was more than {QUIET}"
    return f"{said}; {kept}: run it again on a quiet machine"
