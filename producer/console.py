"""Talk on stderr and data on stdout: sentences, live progress, JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from bson import json_util
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from mongosplit.model import APPLIED, HELD, ChunkState, RunState
from producer.tick import Tick


class Counter(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, whole: int = ...) -> None:
        """So many are done, of so many."""


data = Console(soft_wrap=True, highlight=False)
talk = Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON value on stdout; BSON values as MongoDB's relaxed extended JSON."""
    text = json_util.dumps(value, json_options=json_util.RELAXED_JSON_OPTIONS, indent=2)
    sys.stdout.write(text + "\n")


def say(sentence: str, *, style: str = "") -> None:
    """One sentence of talk."""
    talk.print(Text(sentence, style=style))


def counted(count: int, what: str) -> str:
    """A count and what is counted, in the plural where that is right."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _progress(*columns: ProgressColumn) -> Progress:
    # Off a terminal a bar would be drawn once, at its end, and leave an empty line in the log.
    return Progress(
        *columns,
        console=talk,
        transient=True,
        refresh_per_second=8,
        disable=not talk.is_terminal,
    )


@contextmanager
def counting(label: str, unit: str, about: int = 0) -> Iterator[Counter]:
    """A bar for something counted; gives the function that moves it to so many, of so many."""
    columns = (TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.fields[said]}"))
    with _progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task(label, total=about or None, said="")

        def move(done: int, whole: int = about) -> None:
            said = f"{done:,} of {max(whole, done):,} {unit}"
            progress.update(task, completed=done, total=max(whole, done, 1), said=said)

        yield move


@contextmanager
def standing() -> Iterator[Callable[[str, str], None]]:
    """A line that stands, with what changes behind it; off a terminal only the line, when new."""
    said = ""
    with talk.status("") as status:

        def show(line: str, detail: str) -> None:
            nonlocal said
            if talk.is_terminal:
                status.update(Text(f"{line} · {detail}"))
            elif line != said:
                talk.print(Text(line))
            said = line

        yield show


@contextmanager
def driving(run: str) -> Iterator[Callable[[Tick], None]]:
    """The live view of a run: chunks migrated and verified, users/s, ETA, pace and obstacles."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(30),
        TextColumn("{task.fields[said]}"),
    )
    with _progress(*columns) as progress:
        rows = {
            "migrate": progress.add_task(f"{run} migrate", total=None, said="waiting for workers"),
            "verify": progress.add_task(f"{run} verify ", total=None, said=""),
        }
        rollback = progress.add_task(f"{run} rollback", total=None, said="", visible=False)
        lines = _PlainLines()

        def show(tick: Tick) -> None:
            _show(progress, rows, tick)
            _show_rollback(progress, rollback, tick)
            if not talk.is_terminal:
                lines.show(tick)

        yield show


def _show(progress: Progress, rows: dict[str, TaskID], tick: Tick) -> None:
    applied = tick.chunks(*APPLIED)
    progress.update(
        rows["migrate"], total=tick.total, completed=applied, said=migrate_sentence(tick)
    )
    verified = tick.chunks(ChunkState.VERIFIED)
    wrong = tick.sum("mismatches")
    said = f"{verified:,}/{tick.total:,} chunks" + (f" · {wrong:,} mismatches" if wrong else "")
    progress.update(rows["verify"], total=tick.total, completed=verified, said=said)


def _show_rollback(progress: Progress, row: TaskID, tick: Tick) -> None:
    if tick.to_undo or tick.run.state is RunState.ROLLING_BACK:
        undone = tick.chunks(ChunkState.ROLLED_BACK)
        whole = undone + tick.to_undo
        said = rollback_sentence(tick)
        progress.update(row, total=max(whole, 1), completed=undone, said=said, visible=True)


def rollback_sentence(tick: Tick) -> str:
    """How much is rolled back, how fast, and what stands in the way."""
    undone = tick.chunks(ChunkState.ROLLED_BACK)
    parts = [f"{undone:,} chunks rolled back", f"{max(0.0, -tick.rate):,.0f} {tick.unit}/s"]
    return " · ".join(parts)


def migrate_sentence(tick: Tick) -> str:
    """Chunks, rate, ETA, pace, and what stands in the way."""
    if tick.run.state in HELD:
        return f"{tick.run.state_words}: {_why(tick)}"
    rate = max(0.0, tick.rate)
    parts = [f"{tick.chunks(*APPLIED):,}/{tick.total:,} chunks", f"{rate:,.0f} {tick.unit}/s"]
    eta = tick.eta_seconds
    parts.append(f"ETA {duration(eta)}" if eta is not None else "ETA unknown")
    parts.append(f"pace: {tick.pace}")
    if failed := tick.chunks(ChunkState.FAILED):
        parts.append(f"[red]{failed:,} failed[/red]")
    if quarantined := tick.sum("quarantined"):
        parts.append(f"{quarantined:,} quarantined")
    if tick.obstacle:
        parts.append(f"[red]{tick.obstacle}[/red]")
    return " · ".join(parts)


def _why(tick: Tick) -> str:
    asked = tick.run.asked
    why = asked.get("why") or f"asked by {asked.get('actor') or 'the driver'}"
    return f"{why} · {tick.chunks(*APPLIED):,}/{tick.total:,} chunks are applied"


class _PlainLines:
    """Progress where there is no terminal: a line for each tenth, and for each new obstacle."""

    def __init__(self) -> None:
        self.said: tuple[int, str, RunState | None] = -1, "", None

    def show(self, tick: Tick) -> None:
        """Say the line if there is news."""
        undoing = bool(tick.to_undo) or tick.run.state is RunState.ROLLING_BACK
        news = 10 * tick.chunks(*APPLIED) // max(tick.total, 1), tick.obstacle, tick.run.state
        if news != self.said:
            self.said = news
            sentence = rollback_sentence(tick) if undoing else migrate_sentence(tick)
            talk.print(f"{tick.run.id}: {sentence}")
