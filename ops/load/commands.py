"""mongosplit's own command line as processes beside the application, on embedded servers."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mongosplit.errors import Failed
from mongosplit.settings import PREFIX
from ops.embedded import EmbeddedServers
from producer.leash import leashed

DATABASE = "shop"
VERB_SECONDS, STOP_SECONDS = 300.0, 100.0
POLL_SECONDS = 0.05
DONE_OR_DIFFERENT = (0, 4)
"""Exit codes: users who are written while no follower runs are differences."""


class Commands:
    """Carries out command lines against the servers; what they say goes to files in `folder`."""

    def __init__(self, servers: EmbeddedServers, folder: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environment = {
            **clean,
            PREFIX + "MONGO_URL": servers.mongo_url,
            PREFIX + "REDIS_URL": servers.redis_url,
            PREFIX + "DATABASE": DATABASE,
        }
        self._folder = folder

    def run(self, line: str, *, codes: Collection[int] = (0,)) -> None:
        """Carry out a command line to its end.

        Raises:
            Failed: it ended with another exit code, or not in five minutes.
        """
        with self.running(line) as process:
            try:
                code = process.wait(VERB_SECONDS)
            except subprocess.TimeoutExpired:
                raise Failed(f"mongosplit {line} took more than {VERB_SECONDS:g} s") from None
        if code not in codes:
            raise self.failed(line, code)

    @contextmanager
    def running(self, line: str) -> Iterator[subprocess.Popen[bytes]]:
        """Have a command line run meanwhile; it is asked to stop at the end."""
        command = [sys.executable, "-m", "ops.entry", *shlex.split(line)]
        with self._log(line).open("ab") as log:
            process = subprocess.Popen(
                leashed(command),
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            _stop(process)

    def failed(self, line: str, code: int | None) -> Failed:
        """The error for a command line that ended as it should not, with what it said last."""
        said = self._log(line).read_text(errors="replace").strip().splitlines()
        return Failed(f"mongosplit {line} ended with {code}", hint=" / ".join(said[-2:]))

    def until(
        self, condition: Callable[[], object], line: str, process: subprocess.Popen[bytes]
    ) -> None:
        """Wait for something that a running command line brings about.

        Raises:
            Failed: it ended before, or it took more than five minutes.
        """
        deadline = time.monotonic() + VERB_SECONDS
        while not condition():
            if (code := process.poll()) is not None or time.monotonic() > deadline:
                raise self.failed(line, code)
            time.sleep(POLL_SECONDS)

    def _log(self, line: str) -> Path:
        return self._folder / f"{shlex.split(line)[0]}.log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
