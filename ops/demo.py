"""`make demo`: the main job on embedded servers, by the very commands an operator types."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from pymongo import MongoClient

from mongosplit.errors import Failed, MongosplitError
from mongosplit.settings import PREFIX
from ops.compose import FILE, made_up, read
from ops.launched import Launched, prepared
from ops.seed import seed
from producer import console
from producer.leash import leashed
from producer.options import report_error

DATABASE = "shop"
WORKERS = ("worker", "worker-rollback", "worker-sync")
WAVE = 10
READY_SECONDS, POLL_SECONDS = 60.0, 0.2
STOP_SECONDS = 30


@click.command()
@click.option("--users", default=50_000, show_default=True, help="how many users to make up")
@click.option("--hostile", default=0.0005, show_default=True, help="share of odd and bad users")
def demo(users: int, hostile: float) -> None:
    """Seed users, split them with real Celery workers, verify every byte, and sum up."""
    with tempfile.TemporaryDirectory(prefix="mongosplit-demo-") as folder:
        console.say("1  MongoDB, Redis and the workers of docker-compose.yml, here", style="bold")
        with prepared(read(FILE, made_up("demo")), Path(folder)) as launched:
            for name in WORKERS:
                launched.start(name)
            environment = _environment(launched)
            console.say(f"2  {users:,} users of a marketplace", style="bold")
            _seed(environment[PREFIX + "MONGO_URL"], users, hostile)
            _expect_workers(launched)
            console.say("3  the split", style="bold")
            code = _type("plan users --yes", environment, folder)
            code = code or _type(f"start users --yes --wave-size {WAVE}", environment, folder)
            code = code or _type("quarantine list users --limit 5", environment, folder)
    if not code:
        console.say("\nNothing is left running. To play with all of it: mongosplit dev")
    sys.exit(code)


def _environment(launched: Launched) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    ours = launched.environment("producer").items()
    return clean | {name: value for name, value in ours if name.startswith(PREFIX)}


def _expect_workers(launched: Launched) -> None:
    """Wait for the first word of each; `Failed` with its last one when it has none to say."""
    deadline = time.monotonic() + READY_SECONDS
    for name in WORKERS:
        while " ready." not in launched.log(name).read_text(errors="replace"):
            if name in launched.ended() or time.monotonic() > deadline:
                raise Failed(f"{name} does not work: {launched.last_said(name)}")
            time.sleep(POLL_SECONDS)


def _seed(mongo_url: str, users: int, hostile: float) -> None:
    client: MongoClient[dict[str, object]] = MongoClient(mongo_url)
    try:
        with console.counting("seed", "users", users) as move:
            kinds = seed(client[DATABASE]["users"], users, hostile=hostile, progress=move)
    finally:
        client.close()
    odd = sum(count for kind, count in kinds.items() if kind != "plain")
    console.say(f"   {odd:,} of them odd or bad on purpose")


def _type(line: str, environment: dict[str, str], folder: str) -> int:
    """Show a command and carry it out as its own process; returns its exit code."""
    console.say(f"\n$ mongosplit {line}", style="bold cyan")
    command = [sys.executable, "-m", "ops.entry", *shlex.split(line)]
    process = subprocess.Popen(leashed(command), env=environment, cwd=folder)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal has told the command too; it stops its workers in order.
        _wait(process, command)
        raise


def _wait(process: subprocess.Popen[bytes], command: Sequence[str]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        console.say(f"{command[-1]} did not stop in {STOP_SECONDS} s and is ended")
        process.send_signal(signal.SIGTERM)
        process.wait()


def main() -> None:
    """Run the demo; an interrupted one ends with 1 and leaves nothing behind."""
    try:
        demo.main(standalone_mode=False)
    except MongosplitError as error:
        sys.exit(report_error(error))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        console.say("stopped; nothing is left running", style="yellow")
        sys.exit(1)


if __name__ == "__main__":
    main()
