"""A MongoDB replica set and a Redis of one's own: folder, ports, configuration, readiness."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeAlias

from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis import Redis

from mongosplit.errors import Failed, UsageError
from ops.server import Server, is_free, mongod_binary, redis_binary, stop, until

Probe: TypeAlias = "MongoClient[dict[str, Any]]"

_SET = "mongosplit"
_SETTINGS = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
_NOT_INITIALIZED = 94
# Below the ephemeral range, so that no outgoing connection sits on the port of a killed server.
_PORTS = range(20000, 30000)


class EmbeddedServers:
    """A mongod replica set (or standalone) and a Redis that live as long as the `with` block.

    `folder` keeps its data and may be opened again with the same `nodes`; without one a temporary
    folder is used and removed. `cache_gb` and `oplog_mb` are sizes for each node, `failpoints`
    allows MongoDB's test commands. When the parent is killed the servers stop by themselves, but
    the temporary folder stays behind.
    """

    def __init__(  # noqa: PLR0913 each one is turned by the demo, the benchmarks or a test
        self,
        folder: Path | None = None,
        *,
        nodes: int = 1,
        redis: bool = True,
        standalone: bool = False,
        failpoints: bool = False,
        cache_gb: float = 0.5,
        oplog_mb: int = 512,
        mongod_options: Sequence[str] = (),
        redis_options: Sequence[str] = (),
    ) -> None:
        if nodes < 1 or (standalone and nodes > 1):
            raise UsageError(f"a set needs one node or more, a standalone just one: not {nodes}")
        self._temporary = folder is None
        fresh = Path(tempfile.gettempdir(), f"mongosplit-{uuid.uuid4().hex}")
        self.folder = (folder or fresh).absolute()
        self._nodes, self._standalone, self._with_redis = nodes, standalone, redis
        self._port_book = self.folder / "ports"
        self._spawner = ThreadPoolExecutor(1)
        self._mongods: list[Server] = []
        self._redis: Server | None = None
        self._mongod_options = [
            *("--bind_ip", "127.0.0.1", "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", str(cache_gb)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # A primary of a set that is being stopped would wait 15 s for its followers.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
            *(("--setParameter", "enableTestCommands=1") if failpoints else ()),
            *(() if standalone else ("--replSet", _SET, "--oplogSize", str(oplog_mb))),
            *mongod_options,
        ]
        self._redis_options = [
            *("--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            *("--maxmemory-policy", "noeviction", *redis_options),
        ]

    @property
    def mongo_url(self) -> str:
        """Where MongoDB listens, ready for `MongoClient`."""
        how = "directConnection=true" if self._standalone else f"replicaSet={_SET}"
        return f"mongodb://{','.join(self._hosts())}/?{how}"

    @property
    def redis_url(self) -> str:
        """Where Redis listens; empty without one."""
        return f"redis://127.0.0.1:{self._redis.port}/0" if self._redis else ""

    @property
    def mongod_processes(self) -> list[subprocess.Popen[bytes]]:
        """The processes of the nodes, in the order of their numbers."""
        return [server.process for server in self._mongods]

    @property
    def redis_process(self) -> subprocess.Popen[bytes] | None:
        """The process of Redis, if there is one."""
        return self._redis.process if self._redis else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; return when a primary takes writes and all other nodes follow it.

        Raises `Failed` with the reason when a server cannot run or is not ready in 30 seconds.
        """
        if self._mongods:
            return
        # A server dies with the thread that spawned it: this one lives until stop().
        self._spawner = ThreadPoolExecutor(1)
        try:
            self._spawn()
            self._await_mongods(*range(self._nodes))
            self._await_redis()
            self._port_book.write_text(" ".join(map(str, self._ports)))
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise Failed(f"no servers in {self.folder}: {error.strerror}") from error
            raise

    def _spawn(self) -> None:
        mongod, redis = mongod_binary(), redis_binary() if self._with_redis else ""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        *ports, redis_port = self._ports = self._choose_ports()
        for i, port in enumerate(ports):
            data = self.folder / f"mongod-{i}"
            data.mkdir(exist_ok=True)
            command = [mongod, "--dbpath", str(data), *self._mongod_options]
            self._mongods.append(self._server(f"mongod-{i}", command, port))
        if redis:
            command = [redis, "--dir", str(self.folder), *self._redis_options]
            self._redis = self._server("redis-server", command, redis_port)

    def _server(self, name: str, command: Sequence[str], port: int) -> Server:
        command = [*command, "--port", str(port)]
        return self._spawner.submit(Server, command, port, self.folder / f"{name}.log").result()

    def _choose_ports(self) -> list[int]:
        """The ports of the last time where they are free: the set's configuration names them."""
        book = self._port_book
        last = [int(port) for port in book.read_text().split()] if book.exists() else []
        if last and len(last) != self._nodes + 1:
            raise UsageError(f"{self.folder} keeps a set of {len(last) - 1}, not of {self._nodes}")
        # Not the shared generator: two test runs with one seed would want the same ports.
        fresh = filter(is_free, random.SystemRandom().sample(_PORTS, len(_PORTS)))
        wanted = last or [next(fresh) for _ in range(self._nodes + 1)]
        return [port if is_free(port) else next(fresh) for port in wanted]

    def stop(self) -> None:
        """Stop everything: asked first, killed after 15 seconds. Harmless when repeated."""
        stop([*self._mongods, *([self._redis] if self._redis else [])])
        self._mongods, self._redis = [], None
        self._spawner.shutdown()
        if self._temporary and self.folder.exists():
            shutil.rmtree(self.folder)

    def kill_mongod(self, i: int) -> None:
        """Kill node `i`, counted from 0, as a power cut would."""
        self._mongods[i].kill()

    def start_mongod(self, i: int) -> None:
        """Start node `i` again; return when it and the other living nodes are of use."""
        self._spawner.submit(self._mongods[i].start).result()
        self._await_mongods(i)

    def kill_redis(self) -> None:
        """Kill Redis as a power cut would: what it held is gone."""
        if self._redis:
            self._redis.kill()

    def start_redis(self) -> None:
        """Start Redis again on the same port, empty."""
        if self._redis:
            self._spawner.submit(self._redis.start).result()
            self._await_redis()

    def primary(self) -> int:
        """Await the end of an election; return the primary's number. `Failed` if half are dead."""
        living = sum(server.alive() for server in self._mongods)
        if 2 * living <= self._nodes:
            raise Failed(f"{living} of {self._nodes} nodes live: too few to have a primary")
        return next(i for i, writable in self._await_mongods().items() if writable)

    def _hosts(self) -> list[str]:
        return [f"127.0.0.1:{server.port}" for server in self._mongods]

    def _await_mongods(self, *started: int) -> dict[int, bool]:
        """Wait until those started and those alive are of use; say of each if it is the primary."""
        numbers = [i for i, node in enumerate(self._mongods) if i in started or node.alive()]
        servers = [self._mongods[i] for i in numbers]
        until(lambda: all(server.accepts() for server in servers), servers)
        with ExitStack() as stack:
            probes = [stack.enter_context(_probe(server)) for server in servers]
            until(lambda: all(map(_is_ours, probes, servers)), servers)
            if not self._standalone:
                until(lambda: self._configured(probes[0]), servers)
            roles = until(lambda: self._roles(probes), servers)
        return dict(zip(numbers, roles, strict=True))

    def _configured(self, probe: Probe) -> bool:
        members = [{"_id": i, "host": host} for i, host in enumerate(self._hosts())]
        try:
            config = probe.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != _NOT_INITIALIZED:
                raise
            config = {"_id": _SET, "members": members, "settings": _SETTINGS}
            probe.admin.command("replSetInitiate", config)
            return True
        if [member["host"] for member in config["members"]] != self._hosts():
            config |= {"members": members, "version": config["version"] + 1}
            probe.admin.command("replSetReconfig", config, force=True)
        return True

    def _roles(self, probes: Sequence[Probe]) -> list[bool]:
        """Of each node whether it is the primary; empty until they agree on who is of use."""
        hellos = [probe.admin.command("hello") for probe in probes]
        primary = [bool(hello["isWritablePrimary"]) for hello in hellos]
        agreed = self._standalone or all(_sees(probe) == len(probes) for probe in probes)
        electable = 2 * len(probes) > self._nodes
        return primary if agreed and sum(primary) == electable else []

    def _await_redis(self) -> None:
        if self._redis:
            until(self._redis.accepts, [self._redis])
            with Redis(host="127.0.0.1", port=self._redis.port) as probe:
                until(lambda: bool(probe.ping()), [self._redis])


def _probe(server: Server) -> Probe:
    url = f"mongodb://127.0.0.1:{server.port}/?directConnection=true"
    return MongoClient(url, serverSelectionTimeoutMS=2_000, socketTimeoutMS=10_000)


def _sees(probe: Probe) -> int:
    """How many nodes, itself included, this one sees as primary (1) or secondary (2)."""
    members = probe.admin.command("replSetGetStatus")["members"]
    return sum(member["state"] in (1, 2) for member in members)


def _is_ours(probe: Probe, server: Server) -> bool:
    """Whether it is not somebody else's mongod that answers on the port we wanted."""
    return bool(probe.admin.command("serverStatus")["pid"] == server.process.pid)
