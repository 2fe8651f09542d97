"""The scene: servers, users, a planned run, and the players that are to bring it to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mongosplit.ledger.book import Ledger
from mongosplit.mongo import Client, Data, connect, exact
from mongosplit.open_run import OpenRun, open_run
from mongosplit.raw import Value
from mongosplit.settings import PREFIX, Settings
from ops.embedded import EmbeddedServers
from ops.seed import seed as plant_users
from ops.seed_hostile import Draw
from ops.soak import subscribers
from ops.soak.players import Player
from producer.leash import leashed
from producer.local_workers import command
from worker import app as celery

DATABASE, SOURCE, RUN = "shop", "users", "users-1"
Line = Callable[[int], Sequence[str]]
VERB_SECONDS = 120.0
HOSTILE = 0.01
QUEUES = {
    "migrate1": "migrate,verify",
    "migrate2": "migrate,verify",
    "sync1": "sync",
    "sync2": "sync",
    "rollback1": "rollback",
}
SETTINGS = {
    "DATABASE": DATABASE,
    "BREAKER_DOCUMENTS": "1",
    "BREAKER_CHUNKS": "1",
    "THROTTLE": "off",
    "MAX_ATTEMPTS": "100",
    "RETRY_SECONDS": "0.2",
    "RECHECK_SECONDS": "1",
    "OPLOG_MULTIPLE": "0",
}
"""Nothing that would hold the run up by itself: what is looked for are wrong bytes."""


@dataclass(frozen=True)
class Shape:
    """How large and how fast a run is."""

    seed: int
    seconds: float
    nodes: int
    users: int
    chunk_size: int
    rate: float


@dataclass
class Scene:
    """Servers with a run, its players, and verbs that are under way."""

    shape: Shape
    servers: EmbeddedServers
    client: Client
    folder: Path
    environment: dict[str, str]
    planted: dict[Value, bytes] = field(default_factory=dict)
    players: dict[str, Player] = field(default_factory=dict)
    verbs: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    @property
    def data(self) -> Data:
        """The application's database."""
        return exact(self.client[DATABASE])

    @property
    def ledger(self) -> Ledger:
        """The ledger of the run."""
        return Ledger.at(self.client, "mongosplit")

    @property
    def journal(self) -> Path:
        """What the application knows of its writes."""
        return self.folder / "journal"

    def opened(self) -> OpenRun:
        """The run, with the declaration."""
        return open_run(self.client, self.ledger, RUN, holder="the stress test")

    def verb(self, *arguments: str, name: str = "") -> subprocess.Popen[bytes]:
        """Begin a verb of the command line; what it says goes to its file."""
        with (self.folder / f"{name or arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                leashed([sys.executable, "-m", "ops.entry", *arguments]),
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def verb_to_its_end(self, *arguments: str) -> int:
        """Carry out a verb; returns its exit code, -1 when it took longer than two minutes."""
        process = self.verb(*arguments)
        try:
            return process.wait(VERB_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return -1

    def said(self, name: str) -> str:
        """The end of what a verb has said."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:])

    def barrier(self) -> None:
        """Return when every write that was begun before is either done for good or gone for good.

        A majority that has this one has all that went before it.
        """
        self.client["soak"]["barrier"].insert_one({})

    def end(self) -> None:
        """End all players and verbs that are left."""
        for player in self.players.values():
            player.end(0)
        for _, process in self.verbs:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def prepared(shape: Shape, folder: Path) -> Iterator[Scene]:
    """Servers with users and with subscribers of the application, and players not yet started."""
    with ExitStack() as closing:
        servers = closing.enter_context(
            EmbeddedServers(folder / "servers", nodes=shape.nodes, cache_gb=0.25, oplog_mb=256)
        )
        client = closing.enter_context(connect(servers.mongo_url, application="mongosplit-soak"))
        scene = Scene(shape, servers, client, folder, _environment(servers))
        closing.callback(scene.end)
        plant_users(client[DATABASE]["users"], shape.users, seed=shape.seed, hostile=HOSTILE)
        scene.planted = subscribers.plant(scene.data, shape.seed)
        celery.connect(Settings(redis_url=servers.redis_url))
        for name, line in _lines(scene).items():
            scene.players[name] = Player(name, line, scene.environment, folder)
        yield scene


def _environment(servers: EmbeddedServers) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    given = {**SETTINGS, "MONGO_URL": servers.mongo_url, "REDIS_URL": servers.redis_url}
    return {**clean, **{PREFIX + name: value for name, value in given.items()}, "COLUMNS": "160"}


def _lines(scene: Scene) -> dict[str, Line]:
    python = [sys.executable, "-m"]
    return {
        "application": lambda start: [*python, "ops.load", *_application(scene, start)],
        "serve": lambda _: [*python, "ops.entry", "serve"],
        "follow": lambda _: [*python, "ops.entry", "follow", "users"],
        **{name: _worker(name, queues) for name, queues in QUEUES.items()},
    }


def _worker(name: str, queues: str) -> Line:
    return lambda start: command(f"{name}x{start}", queues=queues)


def _application(scene: Scene, start: int) -> list[str]:
    # Other habits at each start: few users who are written all the time, and then no more, are
    # those of whom a lost mark is seen.
    shape, draw = scene.shape, Draw(f"habits {scene.shape.seed} {start}")
    hot, toggling = draw.pick((0, 3, 10, 40)), draw.chance(0.7)
    options = {"seed": shape.seed * 100 + start, "rate": shape.rate, "seconds": 36_000}
    options |= {"bad": draw.pick((0.01, 0.05)), "swap": draw.pick((0.02, 0.08)), "hot": hot}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    more = ["--toggling"] if toggling else []
    return ["application", *words, *more, "--journal", str(scene.journal)]
