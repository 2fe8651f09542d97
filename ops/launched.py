"""Running our services of docker-compose.yml as local processes on embedded servers.

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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

from pymongo.uri_parser import parse_uri
from redis import Redis

from ops.compose import APP, Composition, Service
from ops.embedded import EmbeddedServers
from ops.server import is_free
from producer.leash import leashed

_PORTS = range(20_000, 30_000)  # below those of outgoing connections


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

    def last_said(self, name: str) -> str:
        """The last line of what the service says."""
        return self.log(name).read_text(errors="replace").strip().rpartition("\n")[2]

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
