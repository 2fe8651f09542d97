"""Acting: carries out the drawn actions while the players play, and starts again who has died."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from kombu.exceptions import OperationalError
from pymongo.errors import PyMongoError
from redis import Redis
from redis.exceptions import RedisError

from mongosplit.errors import Failed
from mongosplit.selection import Selection
from ops.seed_hostile import Draw
from ops.soak.chaos import Action, Kind
from ops.soak.scene import RUN, Scene
from producer.console import say
from worker.syncing import sync_chunks
from worker.tasks import migrate_chunk, rollback_chunk, verify_chunk

APPLIED = {"state": {"$in": ["migrated", "verified"]}}
ROLLED_BACK = {"state": "rolled_back"}
MOST_VERBS = 4
POLL_SECONDS = 0.1
AGAIN_SECONDS = 1.0
STEP_DOWN_SECONDS = 5


@dataclass
class Acting:
    """What is done to a scene; `done` counts it by kind."""

    scene: Scene
    done: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    down: int | None = None
    _later: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _returning: Future[None] | None = None
    _beside: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def act(self, actions: list[Action], seconds: float) -> None:
        """Carry out the actions at their times; return when so many seconds are over."""
        for action in actions:
            self._at(action.at, partial(self._carry_out, action))
        while (now := time.monotonic() - self.began) < seconds:
            while self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            self._look_after_node()
            self.look_after()
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        """End the chaos: whoever is away or stopped comes back at once."""
        self._later.clear()
        if self.down is not None:
            if self._returning is None:
                self._mongod_back(self.down)
            assert self._returning is not None  # it was sent for just now, or before
            wait([self._returning])
            self._look_after_node()
        for player in self.scene.players.values():
            if player.frozen:
                player.thaw()
            self._back(player.name)

    def tell(self, sentence: str) -> None:
        """A line of the log, with its time."""
        say(f"{time.monotonic() - self.began:7.2f}  {sentence}")

    def _at(self, moment: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._later, (moment, next(self._order), what))

    def _after(self, seconds: float, what: Callable[[], object]) -> None:
        self._at(time.monotonic() - self.began + seconds, what)

    def look_after(self) -> None:
        """Have those started again who have ended by themselves."""
        for player in self.scene.players.values():
            if player.wanted and player.starts and not player.alive:
                player.wanted = False
                assert player.process is not None  # it was started
                code = player.process.returncode
                self.done["ended by itself"] += 1
                self.tell(f"{player.name} ended by itself with {code}: {player.last_words()}")
                self._after(AGAIN_SECONDS, partial(self._back, player.name))

    def _carry_out(self, action: Action) -> None:
        ways = {
            Kind.KILL: self._kill,
            Kind.FREEZE: self._freeze,
            Kind.AGAIN: self._again,
            Kind.ROLLBACK: self._rollback,
            Kind.RETRY: self._retry,
            Kind.WIPE: self._wipe,
            Kind.STEP_DOWN: self._step_down,
            Kind.KILL_PRIMARY: self._kill_primary,
        }
        try:
            said = ways[action.kind](action)
        except (PyMongoError, RedisError, OperationalError, Failed) as error:
            self.tell(f"{action.sentence}: not done, {type(error).__name__}")
            return
        if said:
            self.done[action.kind] += 1
        self.tell(said or f"{action.sentence}: nothing to do")

    def _kill(self, action: Action) -> str:
        player = self.scene.players[action.player]
        if not player.kill(action.how):
            return ""
        if not player.alive:
            self._after(action.seconds, partial(self._back, player.name))
        return action.sentence

    def _back(self, name: str) -> None:
        player = self.scene.players[name]
        if player.alive:
            return
        if name == "application":
            try:
                self.scene.barrier()
            except PyMongoError:
                self._after(AGAIN_SECONDS, partial(self._back, name))
                return
        player.start()
        self.tell(f"{name} is back")

    def _freeze(self, action: Action) -> str:
        player = self.scene.players[action.player]
        if not player.freeze():
            return ""
        self._after(action.seconds, player.thaw)
        return action.sentence

    def _again(self, action: Action) -> str:
        """Send messages that nobody asked for, of every kind, some of them twice."""
        numbers = self._chosen(action, {})
        draw = Draw(f"{action}")
        verification = self.scene.opened().run.verification
        for n in numbers:
            kind = draw.below(4)
            for _ in range(1 + draw.below(2)):
                if kind == 0:
                    migrate_chunk.apply_async((RUN, n, 0), queue="migrate")
                elif kind == 1:
                    parts = 1 + draw.below(3)
                    sync_chunks.apply_async((RUN, n % parts, parts), queue="sync")
                elif kind == 2:
                    verify_chunk.apply_async((RUN, n, verification), queue="verify")
                else:
                    rollback_chunk.apply_async((RUN, n), queue="rollback")
        return f"messages again for {len(numbers)} chunks" if numbers else ""

    def _rollback(self, action: Action) -> str:
        return self._verb("rollback", self._chosen(action, APPLIED))

    def _retry(self, action: Action) -> str:
        wide = Action(**{**vars(action), "width": 0.9, "first": action.first / 4})
        numbers = self._chosen(wide, ROLLED_BACK)
        return self._verb("retry", numbers) if numbers else self._rollback(action)

    def _verb(self, name: str, numbers: list[int]) -> str:
        under_way = [one for one in self.scene.verbs if one[1].poll() is None]
        if not numbers or len(under_way) >= MOST_VERBS:
            return ""
        words = str(Selection.of(numbers))
        process = self.scene.verb(name, "users", "--chunks", words, "--yes")
        self.scene.verbs.append((f"{name} {words}", process))
        self.done[f"chunks to {name}"] += len(numbers)
        return f"mongosplit {name} users --chunks {words} --yes"

    def _chosen(self, action: Action, query: Mapping[str, object]) -> list[int]:
        rows = self.scene.ledger["chunks"].find({"run": RUN, **query}, {"n": 1}).sort("n", 1)
        numbers = [row["n"] for row in rows]
        first = int(action.first * len(numbers))
        return numbers[first : first + 1 + int(action.width * len(numbers))]

    def _wipe(self, _: Action) -> str:
        with Redis.from_url(self.scene.servers.redis_url) as redis:
            redis.flushall()
        return "FLUSHALL of Redis"

    def _step_down(self, _: Action) -> str:
        if self.down is not None:
            return ""
        command = {"replSetStepDown": STEP_DOWN_SECONDS, "secondaryCatchUpPeriodSecs": 2}
        # The server may close the connection instead of an answer.
        with suppress(PyMongoError):
            self.scene.client.admin.command(command)
        self.done["elections"] += 1
        return "the primary steps down"

    def _kill_primary(self, action: Action) -> str:
        if self.down is not None:
            return ""
        number = self.scene.servers.primary()
        self.scene.servers.kill_mongod(number)
        self.down = number
        self.done["elections"] += 1
        self._after(action.seconds, partial(self._mongod_back, number))
        return f"{action.sentence} (node {number})"

    def _mongod_back(self, number: int) -> None:
        """Start a node again beside the play: it takes seconds until it is of use."""
        self._returning = self._beside.submit(self.scene.servers.start_mongod, number)

    def _look_after_node(self) -> None:
        if self._returning is not None and self._returning.done():
            self._returning.result()
            self._returning = None
            self.tell(f"node {self.down} is back")
            self.down = None
