"""Local workers: real Celery workers as processes of this command, gone when it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mongosplit.errors import UsageError
from mongosplit.settings import PREFIX, Settings
from producer.leash import leashed

STOP_SECONDS = 90
"""Longer than a chunk may take: a warm shutdown lets it end."""


def command(name: str, *, queues: str = "migrate,verify") -> list[str]:
    """The plain Celery command line of one worker with one process."""
    celery = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
    return [*celery, "-Q", queues, "-n", f"{name}@%h", "-c", "1", "-l", "INFO", "--without-gossip"]


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which another process reads these settings."""
    given = {PREFIX + name.upper(): str(value) for name, value in settings.model_dump().items()}
    return {**os.environ, **given}


@contextmanager
def local_workers(
    count: int, settings: Settings, log_folder: Path, *, queues: str = "migrate,verify"
) -> Iterator[list[Path]]:
    """Run workers meanwhile; gives their log files. They finish their chunk when it ends.

    Raises:
        UsageError: the folder for their logs cannot be made.
    """
    try:
        log_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the workers cannot keep their logs in {log_folder}: {error.strerror}",
            hint="run from a folder that may be written",
        ) from error
    logs = [log_folder / f"worker-{n}.log" for n in range(1, count + 1)]
    running = [
        _start(command(f"local{n}", queues=queues), environment(settings), log)
        for n, log in enumerate(logs, start=1)
    ]
    try:
        yield logs
    finally:
        _stop(running)


def _start(line: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        # A session of its own: Ctrl-C is for the driver, which then stops the workers in order.
        return subprocess.Popen(
            leashed(line),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
