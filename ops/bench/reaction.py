"""From a lag on a set of three to quiet, and back: how soon the throttle says stop, and go."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from mongosplit import signals
from mongosplit.errors import Failed
from mongosplit.mongo import Client
from mongosplit.signal_thresholds import Thresholds
from mongosplit.throttle import Throttle
from mongosplit.verdict import Verdict
from ops.bench.stage import Stage, open_client
from ops.embedded import EmbeddedServers
from producer.health import LOOK_SECONDS

LAG_SECONDS = 2.0
THRESHOLDS = f"replication-lag=1:{LAG_SECONDS:g}," + ",".join(
    f"{name}=off"
    for name in (
        *("flow-control", "queued-operations", "cache-dirty", "oplog-window"),
        *("probe-latency", "follower-backlog", "command"),
    )
)
GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Reaction:
    """Seconds from the moment the lag was at its threshold to stop, and from its end to go."""

    stop: float
    go: float
    hold: float
    title: str = f"a secondary that stands still, on three nodes; hard at {LAG_SECONDS:g} s of lag"

    def sentences(self) -> list[str]:
        """Two lines."""
        return [
            f"{self.stop:.1f} s from the lag at its threshold to the verdict that stops (goal 2 s)",
            f"{self.go:.1f} s from the end of the lag to the first speed, of a hold of "
            f"{self.hold:.0f} s",
        ]

    def foreign(self) -> list[float]:
        """Nothing is known of other work."""
        return []

    def to_document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return dict(vars(self))


def measure(stage: Stage) -> Reaction:
    """Let a secondary stand still while somebody writes, and then let it go on."""
    with (
        EmbeddedServers(nodes=3, redis=False) as servers,
        open_client(servers.mongo_url) as client,
        _writing(client),
    ):
        throttle = Throttle(Thresholds.parse(THRESHOLDS))
        _until(client, throttle, lambda verdict: not verdict.stop)
        secondary = servers.mongod_processes[(servers.primary() + 1) % 3]
        secondary.send_signal(signal.SIGSTOP)
        try:
            stopped = _until(client, throttle, lambda verdict: verdict.stop)
        finally:
            secondary.send_signal(signal.SIGCONT)
        gone_on = _until(client, throttle, lambda verdict: not verdict.stop)
    stage.on_sample()
    return Reaction(max(0.0, stopped - LAG_SECONDS), gone_on, throttle.rules.hold)


def _until(client: Client, throttle: Throttle, condition: Callable[[Verdict], bool]) -> float:
    """Look once a second, as the driver does; seconds until the verdict is as wanted."""
    began = time.monotonic()
    sources = signals.Sources(client)
    while time.monotonic() - began < GIVE_UP_SECONDS:
        readings = signals.read_all(sources, throttle.thresholds)
        if condition(throttle.observe(readings, rate_limit=None, throughput=1000.0)):
            return time.monotonic() - began
        time.sleep(LOOK_SECONDS)
    raise Failed("the throttle of the benchmark did not come to another verdict")


@contextmanager
def _writing(client: Client) -> Iterator[None]:
    """Somebody writes meanwhile, so that there is something to lag behind."""
    done = Event()

    def write() -> None:
        while not done.wait(0.05):
            client["bench"]["beat"].insert_one({})

    writer = Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
