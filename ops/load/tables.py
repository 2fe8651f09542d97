"""What was measured, on stdout: a table of phases with their goals, one of lags, one of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ops.bench.stage import QUIET
from ops.load.application import Passed
from ops.load.latency import Summary, by_operation, summary
from ops.load.phases import GOALS, Phase, ratio
from ops.load.showing import WITHIN_SECONDS, Lags

WIDTH = 118
KEPT = 0.95
"""Below this share of its rate the application waits for itself."""

_FELT = ("operations", "p50 ms", "p99 ms", "max ms")


def phases(measured: Sequence[Phase], rate: float, drift: float) -> None:
    """A line for each phase, idle first, the goals, and how far to trust them."""
    idle = measured[0].felt
    headings = (
        "p50 to\nidle",
        "p99 to\nidle",
        "p99 ms but\nfor cores",
        "errors",
        "rate/s",
        "users\nsplit/s",
        "others,\ncores",
    )
    table = _table("what the application felt", "phase", *_FELT, *headings)
    for phase in measured:
        felt, passed = phase.felt, phase.passed
        table.add_row(
            phase.name,
            *_numbers(felt),
            _number(ratio(felt.p50, idle.p50)),
            _number(ratio(felt.p99, idle.p99)),
            _number(phase.served.p99),
            f"{sum(passed.errors.values()):,}",
            f"{passed.rate:,.0f}",
            f"{phase.split:,.0f}",
            "-" if phase.others is None else f"{phase.others:.2f}",
        )
    console = _console()
    console.print(table)
    for goal in goals(measured):
        verdict = "[green]met    [/green]" if goal["met"] else "[yellow]not met[/yellow]"
        said = f"{goal['phase']}: {goal['percentile']} at most {goal['most']:g} times idle"
        console.print(f"goal {verdict}  {said}: {goal['ratio']:.2f}")
    console.print(
        f"p50 of idle afterwards was {drift:.2f} times that of before: "
        f"{'a steady machine' if 0.8 < drift < 1.25 else 'the machine changed meanwhile'}"
    )
    late = [phase.name for phase in measured if phase.passed.rate < KEPT * rate]
    if late:
        console.print(f"{rate:,.0f}/s were not kept in {' and '.join(late)}: a queue was measured")
    most = max((phase.others or 0.0 for phase in measured), default=0.0)
    if most >= QUIET:
        console.print(f"other work kept {most:.2f} cores busy: run it again on a quiet machine")


def goals(measured: Sequence[Phase]) -> list[dict[str, Any]]:
    """Each goal, what was measured, and whether it is met."""
    found = [(goal, goal.ratio([*measured])) for goal in GOALS]
    return [{**vars(goal), "ratio": was, "met": was <= goal.most} for goal, was in found]


def lags(found: Lags, passed: Passed) -> None:
    """How soon a write was shown."""
    table = _table("from acknowledged to shown in a target", "phase", "writes", *_FELT[1:])
    table.add_row("showing", *_numbers(found.felt))
    console = _console()
    console.print(table)
    console.print(
        f"{found.not_shown:,} not shown within {WITHIN_SECONDS:g} s; the application wrote "
        f"{passed.rate:,.0f}/s meanwhile, {sum(passed.errors.values()):,} errors"
    )


def run(passed: Passed) -> None:
    """What an application on its own did, for each operation."""
    table = _table("what the application did", "operation", *_FELT)
    for name, felt in by_operation(passed.samples).items():
        table.add_row(name, *_numbers(felt))
    table.add_row("all", *_numbers(summary(one.seconds for one in passed.samples)))
    console = _console()
    console.print(table)
    errors = ", ".join(f"{count:,} {name}" for name, count in passed.errors.items()) or "none"
    console.print(
        f"{passed.rate:,.0f} operations/s for {passed.seconds:.1f} s, {passed.unstarted:,} not "
        f"begun; errors: {errors}"
    )


def sentences(lines: Iterable[str]) -> None:
    """A line for each."""
    console = _console()
    for line in lines:
        console.print(line, markup=False)


def _numbers(felt: Summary) -> tuple[str, ...]:
    return (f"{felt.count:,}", *(_number(one) for one in (felt.p50, felt.p99, felt.most)))


def _number(one: float) -> str:
    return f"{one:.2f}" if one < 100 else f"{one:,.0f}"


def _table(title: str, first: str, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, width=WIDTH)
