"""Owns running our services of docker-compose.yml as local processes on embedded servers.

Command, environment, health check and signal to stop are the file's own. Only what a container has
for itself is replaced: the hosts `mongodb` and `redis`, ports, and the folders of its volumes.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import SystemRandom
from threading import Event
from typing import Any

import click
import yaml
from pymongo.uri_parser import parse_uri
from redis import Redis

from mongosplit.errors import Failed, MongosplitError, UsageError
from ops.embedded import EmbeddedServers
from ops.server import is_free
from producer import console
from producer.leash import leashed
from producer.options import report_error

APP = Path(__file__).parents[1]  # stands for the image's working directory
FILE = APP / "docker-compose.yml"
_PORTS = range(20_000, 30_000)  # below those of outgoing connections
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<how>[-?])(?P<word>[^}]*))?\}|)")


@dataclass(frozen=True)
class Service:
    """One service that is built here: what its container would run, and how it is stopped."""

    command: tuple[str, ...]
    environment: dict[str, str]
    health: tuple[str, ...]
    stop_signal: int
    grace_seconds: float
    ports: tuple[int, ...]
    volumes: tuple[str, ...]


@dataclass(frozen=True)
class Composition:
    """Our services by name, and how the file configures Redis."""

    ours: dict[str, Service]
    redis: dict[str, str]


def read(file: Path, variables: Mapping[str, str]) -> Composition:
    """The file with these variables; `UsageError` when one, or a part of the file, is missing."""
    try:
        filled = filled_in(yaml.safe_load(file.read_text()), variables)
        services = filled["services"].items()
        ours = {name: _service(service) for name, service in services if "build" in service}
        lines = filled["configs"]["redis"]["content"].splitlines()
        return Composition(ours, dict(line.split(maxsplit=1) for line in lines))
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{file.name} cannot be read as ours: {error}") from error


def filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    """The value with `${NAME}`, `${NAME:-default}`, `${NAME:?why}` and `$$` replaced.

    Raises `UsageError` when a variable is not given, or a `$` begins nothing that is known.
    """
    if isinstance(value, dict):
        return {key: filled_in(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled_in(inner, variables) for inner in value]
    return _VARIABLE.sub(partial(_value, variables), value) if isinstance(value, str) else value


def _value(variables: Mapping[str, str], found: re.Match[str]) -> str:
    if found["dollar"]:
        return "$"
    if not found["name"]:
        raise UsageError("a $ begins no variable", hint="write ${NAME}, or $$ for the sign itself")
    if given := variables.get(found["name"]) or (found["how"] == "-" and found["word"]):
        return given
    why = found["word"] or "the file has no default for it"
    raise UsageError(f"{found['name']} is not set: {why}", hint=f"export {found['name']}=…")


def _service(written: dict[str, Any]) -> Service:
    kind, *health = written["healthcheck"]["test"]
    ports = (*written.get("ports", ()), *written.get("expose", ()))
    return Service(
        command=tuple(map(str, written["command"])),
        environment={name: str(value) for name, value in written["environment"].items()},
        health=("/bin/sh", "-c", *health) if kind == "CMD-SHELL" else tuple(health),
        stop_signal=signal.Signals[written["stop_signal"]],
        grace_seconds=float(written["stop_grace_period"].removesuffix("s")),
        ports=tuple(int(str(port).rpartition(":")[2]) for port in ports),
        volumes=tuple(mount.split(":")[1] for mount in written.get("volumes", ())),
    )


class Launched:
    """Services of ours as processes; ports and folders of volumes are local ones."""

    def __init__(self, services: Mapping[str, Service], hosts: Mapping[str, str], folder: Path):
        self._services, self._hosts, self._folder = services, hosts, folder
        free = filter(is_free, SystemRandom().sample(_PORTS, len(_PORTS)))
        ports = [(name, port) for name, service in services.items() for port in service.ports]
        self._ports = {key: next(free) for key in ports}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start one service by its own command, in its own environment and no other."""
        service = self._services[name]
        for target in service.volumes:
            self._volume(name, target).mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._line(name, service.command, service.stop_signal),
                env=self.environment(name),
                cwd=APP,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the signal to stop is for the service's first process
            )
        return self._running[name]

    def environment(self, name: str) -> dict[str, str]:
        """All that the service finds in its environment."""
        given = self._services[name].environment
        own = {key: self._localized(name, value) for key, value in given.items()}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
        return {"PATH": path, "HOSTNAME": socket.gethostname(), **own}

    def address(self, name: str, port: int) -> str:
        """Where a port of a service's container answers here."""
        return f"127.0.0.1:{self._ports[name, port]}"

    def log(self, name: str) -> Path:
        """The file that holds what the service says."""
        return self._folder / f"{name}.log"

    def execute(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Carry out a command where the service runs, as `docker compose exec` would."""
        return subprocess.run(
            self._line(name, command, signal.SIGTERM),
            env=self.environment(name),
            cwd=APP,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    def is_healthy(self, name: str) -> bool:
        """Whether the service's own health check succeeds now."""
        return self.execute(name, *self._services[name].health).returncode == 0

    def ended(self) -> list[str]:
        """The services that no longer run."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def stop(self) -> None:
        """Send each service its own signal; kill those that outlast their grace."""
        for name in self._running.keys() - set(self.ended()):
            self._running[name].send_signal(self._services[name].stop_signal)
        for name, process in self._running.items():
            try:
                process.wait(self._services[name].grace_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _line(self, name: str, command: Iterable[str], stop_signal: int) -> list[str]:
        return leashed([self._localized(name, word) for word in command], signal=stop_signal)

    def _volume(self, name: str, target: str) -> Path:
        return self._folder / name / target.strip("/")

    def _localized(self, name: str, text: str) -> str:
        service = self._services[name]
        local = {
            **self._hosts,
            "0.0.0.0": "127.0.0.1",
            **{str(port): str(self._ports[name, port]) for port in service.ports},
            **{target: str(self._volume(name, target)) for target in service.volumes},
        }
        words = "|".join(map(re.escape, local))
        return re.sub(rf"(?<![\w.-])(?:{words})(?![\w-])", lambda word: local[word[0]], text)


@contextmanager
def prepared(composition: Composition, folder: Path) -> Iterator[Launched]:
    """Embedded servers, Redis as the file configures it; `Failed` when one of them cannot run."""
    name = "requirepass"  # set when it runs: until then the embedded servers look at it without
    options = [w for k, v in composition.redis.items() if k != name for w in (f"--{k}", v)]
    with EmbeddedServers(folder / "servers", redis_options=options) as servers:
        with Redis.from_url(servers.redis_url) as redis:
            redis.config_set(name, composition.redis[name])
        [(host, port)] = parse_uri(servers.mongo_url)["nodelist"]
        at_redis = servers.redis_url.removeprefix("redis://").partition("/")[0]
        hosts = {"mongodb:27017": f"{host}:{port}", "redis:6379": at_redis}
        launched = Launched(composition.ours, hosts, folder)
        try:
            yield launched
        finally:
            launched.stop()


@click.command()
@click.option("--file", type=click.Path(path_type=Path), default=FILE, help="another file")
@click.argument("services", nargs=-1)
def compose(file: Path, services: tuple[str, ...]) -> None:
    """Run the SERVICES of docker-compose.yml that are ours (all) here, until Ctrl-C."""
    composition = read(file, os.environ)
    if unknown := set(services) - set(composition.ours):
        known = ", ".join(composition.ours)
        raise UsageError(f"{file.name} builds no {min(unknown)}", hint=f"it builds {known}")
    with (
        tempfile.TemporaryDirectory(prefix="mongosplit-compose-") as folder,
        prepared(composition, Path(folder)) as launched,
    ):
        for name in services or composition.ours:
            launched.start(name)
            answers = [launched.address(name, port) for port in composition.ours[name].ports]
            console.say(f"{name:16} {' '.join(answers) or launched.log(name)}")
        console.say("Ctrl-C stops them")
        while not Event().wait(1):
            for name in launched.ended():
                said = launched.log(name).read_text().strip().rpartition("\n")[2]
                raise Failed(f"{name} ended: {said or 'it said nothing'}")


if __name__ == "__main__":
    try:
        compose()
    except MongosplitError as error_of_ours:
        sys.exit(report_error(error_of_ours))
