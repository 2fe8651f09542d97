"""The application as a process of its own, and the comparison of its journal with the source."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from types import FrameType

import click

from mongosplit.errors import Failed, MongosplitError
from mongosplit.mongo import connect, exact, explained
from ops.load import journal as journals
from ops.load import tables
from ops.load.application import SOURCE, Application, Passed
from ops.load.habits import Habits
from ops.load.journal import Journal
from ops.load.latency import by_operation, summary
from producer.console import print_json
from producer.options import output_flag, report_error

_URL = click.option("--mongo-url", "url", envvar="MONGOSPLIT_MONGO_URL", required=True)
_DATABASE = click.option("--database", envvar="MONGOSPLIT_DATABASE", required=True)
DIFFERENT = 4
SHOWN = 20


@click.command("application")
@_URL
@_DATABASE
@click.option("--seed", "number", default=1, show_default=True, help="Decides who does what.")
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--rate", type=click.FloatRange(0.1), default=300.0, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=15.0, show_default=True)
@click.option("--journal", "file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--hot", type=click.IntRange(0), default=0, help="Few users of each thread.")
@click.option("--toggling", is_flag=True, help="Few values, so that states come again.")
@click.option("--bad", type=click.FloatRange(0, 0.5), default=0.0, help="Share that spoils users.")
@click.option("--swap", type=click.FloatRange(0, 0.5), default=0.0, help="Share that swaps values.")
@output_flag
def application(  # noqa: PLR0913, PLR0917 - one argument for each flag
    url: str,
    database: str,
    number: int,
    threads: int,
    rate: float,
    seconds: float,
    file: Path | None,
    hot: int,
    toggling: bool,
    bad: float,
    swap: float,
    output: str,
) -> None:
    """Write to `users` as the marketplace does, until the time is over or SIGTERM comes.

    With a journal that is there already it goes on: nobody else may have written in between.
    """
    habits = Habits(hot=hot, toggling=toggling, bad=bad, swap=swap)
    stopping = Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        with explained(url), ExitStack() as closing:
            client = closing.enter_context(connect(url, application="mongosplit-load"))
            journal = closing.enter_context(_opened(file)) if file else None
            writing = Application(
                client,
                database,
                seed=number,
                threads=threads,
                rate=rate,
                journal=journal,
                habits=habits,
            )
            passed = closing.enter_context(writing).run(seconds, stopping)
    except MongosplitError as error:
        sys.exit(report_error(error))
    _tell(passed, output)


@click.command("compare")
@_URL
@_DATABASE
@click.option("--journal", "file", type=click.Path(path_type=Path, exists=True), required=True)
@output_flag
def compare(url: str, database: str, file: Path, output: str) -> None:
    """Compare the source with a journal of the application; exit code 4 when they differ."""
    try:
        with explained(url), connect(url, application="mongosplit-load") as client:
            found = journals.compare(file, exact(client[database])[SOURCE])
    except MongosplitError as error:
        sys.exit(report_error(error))
    lines = [difference.sentence for difference in found[:SHOWN]]
    if output == "json":
        print_json({"differences": len(found), "first": lines})
    else:
        tables.sentences([*lines, f"{len(found):,} differences"])
    sys.exit(DIFFERENT if found else 0)


def _opened(file: Path) -> Journal:
    try:
        return Journal(file)
    except OSError as error:
        raise Failed(f"no journal in {file}: {error.strerror}") from error


def _tell(passed: Passed, output: str) -> None:
    if output == "text":
        tables.run(passed)
        return
    operations = by_operation(passed.samples)
    print_json(
        {
            **summary(one.seconds for one in passed.samples).to_document(),
            "rate": passed.rate,
            "errors": passed.errors,
            "unstarted": passed.unstarted,
            "operations": {name: felt.to_document() for name, felt in operations.items()},
        }
    )
