"""Metrics of a live run: whatever dashboard, alerts and autoscaler name is there, and moves."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mongosplit.series import SERIES, Kind
from producer.leash import leashed
from producer.local_workers import command
from tests.conditions import until
from tests.e2e.conftest import Shop
from tests.integration.conftest import CONFLICT, oid, user, users

OPS = Path(__file__).parents[2] / "ops"
RUN = "users-1"
USERS, CHUNK, CHUNKS = 60, 4, 15
EVERY_CHUNK = CHUNKS + 1
"""With the one of the user who cannot be split."""
HEALTHY: dict[str, tuple[dict[str, str], float]] = {
    "mongosplit_ledger_up": ({}, 1.0),  # without the ledger there is no run to look at
    "mongosplit_follower_alive": ({"run": RUN}, 1.0),  # the producer that tells it also follows
}
"""What says only that something is wrong, with its labels and its healthy value."""
COUNTS = {series.name for series in SERIES if series.kind is not Kind.GAUGE}
Labels = frozenset[tuple[str, str]]


def named() -> set[str]:
    """Every metric of ours that dashboard, alerts and autoscaler name."""
    files = [OPS / "grafana/dashboards/runs.json", OPS / "prometheus/alerts.yml"]
    text = "".join(path.read_text() for path in files)
    for found in yaml.safe_load_all((OPS / "kubernetes/worker-scaling.yaml").read_text()):
        text += "".join(trigger["metadata"]["query"] for trigger in found["spec"]["triggers"])
    return set(re.findall(r"\bmongosplit_[a-z_]+\b", text))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Scraped:
    """Every value that any scrape of these addresses has shown, by sample and labels."""

    ports: dict[str, int]
    values: dict[str, dict[tuple[str, Labels], set[float]]] = field(default_factory=dict)

    def look(self) -> dict[str, dict[Labels, float]]:
        """Scrape all who answer; what it says now, added up over those who say the same."""
        now: dict[str, dict[Labels, float]] = {}
        for who, port in self.ports.items():
            for name, labels, value in scraped(port):
                told = self.values.setdefault(name, {})
                told.setdefault((who, labels), set()).add(value)
                there = now.setdefault(name, {})
                there[labels] = there.get(labels, 0.0) + value
        return now

    def now(self, name: str, **labels: str) -> float | None:
        """The sum of a sample's numbers with these labels; None while there is none."""
        found = self.look().get(f"mongosplit_{name}", {})
        wanted = set(labels.items())
        values = [value for have, value in found.items() if wanted <= have]
        return sum(values) if values else None

    def until(self, name: str, holds: Callable[[float], bool], **labels: str) -> None:
        """Wait until the sample's number is as wanted."""

        def is_so() -> bool:
            value = self.now(name, **labels)
            return value is not None and holds(value)

        until(is_so, what=f"{name} {labels} has only been {self.values.get('mongosplit_' + name)}")

    def has_moved(self, name: str) -> bool:
        """Whether one series of it took two values; a count or a fact may also have appeared."""
        told = self.values.get(name, {})
        if any(len(values) > 1 for values in told.values()):
            return True
        series = re.sub(r"^mongosplit_|_(total|count|sum|bucket)$", "", name)
        return (series in COUNTS and bool(told)) or (name.endswith("_info") and len(told) > 1)


def scraped(port: int) -> Iterator[tuple[str, Labels, float]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, frozenset(sample.labels.items()), sample.value


def worker(
    shop: Shop, name: str, queues: str, *more: str, port: int | str = "", processes: int = 1
) -> subprocess.Popen[bytes]:
    """A real worker that keeps its numbers below `tmp-NAME`."""
    folder = shop.folder / f"tmp-{name}"
    folder.mkdir()
    own = {"MONGOSPLIT_WORKER_METRICS": f"127.0.0.1:{port}" if port else "", "TMPDIR": str(folder)}
    line = [*command(name, queues=queues), "-c", str(processes), *more]
    with (shop.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            leashed(line, signal=signal.SIGKILL),
            env={**shop.environment, **own},
            cwd=shop.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    shop.started.append(process)
    return process


def files_of(shop: Shop, name: str) -> list[str]:
    return sorted(path.name for path in (shop.folder / f"tmp-{name}").rglob("*.db"))


def folders_of(shop: Shop, name: str) -> list[Path]:
    return list((shop.folder / f"tmp-{name}").glob("mongosplit-metrics-*"))


def typed(shop: Shop, *words: str, code: int = 0, **changes: str) -> str:
    done = shop.mongosplit(*words, **changes)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def level(shop: Shop) -> Path:
    """What the operator's own command prints of the database's health; 30 stops the run."""
    found = shop.folder / "level"
    found.write_text("1")
    script = shop.folder / "health"
    script.write_text(f"#!/bin/sh\ncat {found}\n")
    script.chmod(0o755)
    shop.environment |= {
        "MONGOSPLIT_THROTTLE": "command=20:30",
        "MONGOSPLIT_THROTTLE_COMMAND": str(script),
        "MONGOSPLIT_RECHECK_SECONDS": "0",
        "MONGOSPLIT_CHUNK_SIZE": str(CHUNK),
        "MONGOSPLIT_WAVE_SIZE": "4",
    }
    return found


@contextmanager
def failing(shop: Shop, command: str, how: dict[str, Any], *, times: int) -> Iterator[None]:
    """The server fails this command of the workers so many times."""
    admin = shop.data.client.admin
    data = {"failCommands": [command], "appName": "mongosplit-worker", **how}
    admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)
    try:
        yield
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")


def rename(shop: Shop, n: int, name: str) -> None:
    shop.data["users"].update_one({"_id": oid(n)}, {"$set": {"username": name}})


def planned(shop: Shop) -> Scraped:
    """A planned run with one bad user, and a producer that may drive it."""
    bad = user(USERS + 1, {"kontakt.email": None})
    shop.data["users"].insert_many([*users(USERS), bad])
    typed(shop, "plan", "users", "--yes")
    found = Scraped({name: free_port() for name in ("serve", "movers", "others")})
    shop.begin("serve", "--metrics", f"127.0.0.1:{found.ports['serve']}", log="serve")
    found.until("run_state", lambda value: value == 1, run=RUN, state="planned")
    assert found.now("driver_alive", run=RUN) == 0
    return found


def started(shop: Shop, seen: Scraped, level: Path) -> None:
    """The run waits for workers: it is paced, was stopped, and the application has written."""
    typed(shop, "pace", "users", "100/s", "--per-worker", "50/s", "--yes")
    typed(shop, "start", "users", "--yes", "--detach")
    seen.until("driver_alive", lambda value: value == 1, run=RUN)
    seen.until("waves_open", lambda value: value > 0, run=RUN)
    seen.until("wave_chunks_open", lambda value: value > 0, run=RUN)
    seen.until("follower_alive", lambda value: value == 1, run=RUN)
    seen.until("throttle_stopped", lambda value: value == 0, run=RUN)
    level.write_text("99")
    seen.until("throttle_stopped", lambda value: value == 1, run=RUN)
    level.write_text("2")
    seen.until("throttle_stopped", lambda value: value == 0, run=RUN)
    # Without a worker for it the producer derives again by itself, and then takes the row away.
    with shop.slowed("delete", milliseconds=5000, application="mongosplit"):
        rename(shop, 1, "first")
        seen.until("follower_backlog_documents", lambda value: value > 0, run=RUN)


def migrated(shop: Shop, seen: Scraped) -> subprocess.Popen[bytes]:
    """Two processes migrate every chunk, each replaced after three tasks; some tries are lost."""
    three = ("--max-tasks-per-child", "3")
    with failing(shop, "insert", CONFLICT, times=12):
        port = seen.ports["movers"]
        found = worker(shop, "movers", "migrate", *three, port=port, processes=2)
        seen.until("chunks", lambda value: value == EVERY_CHUNK + 1, run=RUN, state="migrated")
    seen.until("wave_chunks_open", lambda value: value == 0, run=RUN)
    seen.until("documents_unverified", lambda value: value == USERS + 1, run=RUN)
    seen.until("retries_total", lambda v: v > 0, work="migrate", error="TransientError")
    return found


def assert_nothing_was_lost(shop: Shop, seen: Scraped) -> None:
    """What the processes have counted together is what the ledger says."""
    done = {"run": RUN, "state": "migrated", "tail": None}
    assert shop.ledger["chunks"].count_documents(done) == EVERY_CHUNK
    moved = {"work": "migrate", "outcome": "migrated"}
    seen.until("chunk_seconds_count", lambda value: value == EVERY_CHUNK, **moved)
    assert seen.now("chunk_seconds_bucket", **moved, le="+Inf") == EVERY_CHUNK
    assert seen.now("worker_documents_total", work="migrate") == USERS + 1
    told = [row["actor"] for row in shop.outcomes(RUN) if row["facts"]["to"] == "migrated"]
    assert len(told) == EVERY_CHUNK
    assert len(set(told)) > 2, "no process was replaced"
    assert files_of(shop, "movers") == [
        f"{kind}_{place}.db" for kind in ("counter", "histogram") for place in (1, 2)
    ]


def only_the_main_process_listens(process: subprocess.Popen[bytes]) -> bool:
    """Also of processes that came later: one that outlived the worker would keep the port."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    try:
        ports = [listening(int(child)) for child in children]
    except FileNotFoundError:  # replaced meanwhile
        return False
    return len(listening(process.pid)) == 1 and len(ports) >= 2 and not any(ports)


def verified(shop: Shop, seen: Scraped) -> subprocess.Popen[bytes]:
    """Another worker compares, and derives again what the application has written."""
    found = worker(shop, "others", "verify,rollback,sync", port=seen.ports["others"])
    seen.until("run_state", lambda value: value == 1, run=RUN, state="verified")
    seen.until("driver_alive", lambda value: value == 0, run=RUN)
    seen.until("follower_backlog_documents", lambda value: value == 0, run=RUN)
    rename(shop, 2, "second")
    until(lambda: shop.data["base_users"].find_one({"_id": oid(2), "username": "second"}))
    seen.until("worker_documents_total", lambda value: value >= 1, work="sync")
    seen.until("sync_batches_total", lambda value: value >= 1, outcome="synced")
    typed(shop, "pace", "users", "off", "--per-worker", "off", "--yes")
    return found


def damaged_and_rolled_back(shop: Shop, seen: Scraped) -> None:
    """Somebody writes a target: it is told, found, and saved by a rollback at its second try."""
    shop.data["base_users"].update_one({"_id": oid(1)}, {"$set": {"username": "other"}})
    seen.until("foreign_writes", lambda value: value == 1, collection="base_users")
    shop.data["base_users"].update_one({"_id": oid(1)}, {"$set": {"username": "another"}})
    seen.until("foreign_writes", lambda value: value == 2, collection="base_users")
    typed(shop, "verify", "users", code=4)
    seen.until("mismatches", lambda value: value > 0, run=RUN)
    with failing(shop, "delete", {"errorCode": 2}, times=1):
        shop.mongosplit("rollback", "users", "--chunks", "1", "--yes")
    seen.until("failures_total", lambda value: value == 1, work="rollback", error="Failed")
    typed(shop, "rollback", "users", "--chunks", "1", "--yes")
    seen.until("documents_kept", lambda value: value == 1, run=RUN)
    seen.until("mismatches", lambda value: value == 0, run=RUN)
    seen.until("documents_migrated", lambda value: value == USERS - CHUNK, run=RUN)


def test_every_metric_that_is_named_anywhere_moves_in_a_live_run(shop: Shop, level: Path) -> None:
    seen = planned(shop)
    started(shop, seen, level)
    movers = migrated(shop, seen)
    assert_nothing_was_lost(shop, seen)
    until(lambda: only_the_main_process_listens(movers), what="the port is inherited")
    last = verified(shop, seen)
    damaged_and_rolled_back(shop, seen)
    seen.until("rate_limit_documents_per_second", lambda value: value > 100, run=RUN)

    for name in sorted(named()):
        assert name in seen.values, f"{name} is not there"
        if name in HEALTHY:
            labels, value = HEALTHY[name]
            assert seen.look()[name] == {frozenset(labels.items()): value}, name
        else:
            assert seen.has_moved(name), f"{name} stands at {seen.values[name]}"
    every = {sample for series in SERIES for sample in series.samples}
    assert every <= set(seen.values), "not exposed by anybody"

    assert len(folders_of(shop, "others")) == 1
    last.send_signal(signal.SIGTERM)
    assert last.wait(120) == 0
    assert folders_of(shop, "others") == []
    for name in ("serve", "movers", "others"):
        assert "Traceback" not in shop.log(name), name


def test_a_worker_whose_port_is_taken_says_so_once_and_moves_the_data(shop: Shop) -> None:
    shop.data["users"].insert_many(users(20))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        worker(shop, "w1", "migrate,verify", port=port)
        typed(shop, "start", "users", "--yes", "--chunk-size", "5")
    assert shop.data["base_users"].count_documents({}) == 20
    said = f"Prometheus is not answered at 127.0.0.1:{port}: address already in use"
    assert shop.log("w1").count(said) == 1
    assert "Traceback" not in shop.log("w1")


def test_without_the_setting_a_worker_listens_nowhere_and_keeps_no_numbers(shop: Shop) -> None:
    shop.data["users"].insert_many(users(20))
    process = worker(shop, "w1", "migrate,verify")
    typed(shop, "start", "users", "--yes", "--chunk-size", "5")
    assert folders_of(shop, "w1") == []
    assert listening(process.pid) == set()


def listening(pid: int) -> set[str]:
    """The TCP addresses at which a process listens, as the kernel writes them."""
    folder = Path(f"/proc/{pid}")
    sockets = {
        found[1]
        for path in (folder / "fd").iterdir()
        if path.is_symlink() and (found := re.match(r"socket:\[(\d+)\]", str(path.readlink())))
    }
    rows = [row.split() for row in (folder / "net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in sockets}


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_without_processes_of_its_own_counts_too(shop: Shop, pool: str) -> None:
    shop.data["users"].insert_many(users(20))
    seen = Scraped({"w1": free_port()})
    process = worker(shop, "w1", "migrate,verify", "-P", pool, port=seen.ports["w1"])
    typed(shop, "start", "users", "--yes", "--chunk-size", "5")
    for work, outcome in (("migrate", "migrated"), ("verify", "verified")):
        seen.until("chunk_seconds_count", lambda v: v >= 4, work=work, outcome=outcome)
    assert seen.now("worker_documents_total", work="migrate") == 20
    assert files_of(shop, "w1") == ["counter_main.db", "histogram_main.db"]
    assert len(listening(process.pid)) == 1


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed: apt-get install prometheus (.ci/run does)",
)


@needs_promtool
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_takes_rules_and_configuration_and_each_alert_fires(words: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *words],
        cwd=OPS / "prometheus",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_an_expression_of_the_dashboard_is_one_that_prometheus_reads(tmp_path: Path) -> None:
    dashboard = json.loads((OPS / "grafana/dashboards/runs.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for found in yaml.safe_load_all((OPS / "kubernetes/worker-scaling.yaml").read_text()):
        expressions += [trigger["metadata"]["query"] for trigger in found["spec"]["triggers"]]
    rules: list[dict[str, Any]] = [
        {"record": f"expression_{n}", "expr": expression}
        for n, expression in enumerate(expressions)
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=none", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
