"""docker-compose.yml carried out: our services, as the file has them, through a whole migration."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from ops.compose import FILE, read
from ops.launched import Launched, prepared
from ops.seed import seed
from tests.conditions import until

SECRETS = {
    "REDIS_PASSWORD": "c0ffee",
    "FLOWER_USER": "duty",
    "FLOWER_PASSWORD": "s3same",
    "GRAFANA_PASSWORD": "unused",
}
START_SECONDS = 40


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Every service of ours, started."""
    composition = read(FILE, SECRETS)
    with prepared(composition, tmp_path_factory.mktemp("compose")) as launched:
        for name in composition.ours:
            launched.start(name)
        yield launched


def typed(up: Launched, *words: str) -> str:
    """What a command says where the producer runs."""
    done = up.execute("producer", "mongosplit", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fetched(address: str, path: str, user: str = "", **request: Any) -> tuple[int, str]:
    """Status and body of an answer; status 0 while there is none."""
    asked = urllib.request.Request(f"http://{address}{path}", **request)
    if user:
        asked.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
    except OSError:
        return 0, ""


def tasks_by_worker(up: Launched) -> dict[str, set[str]]:
    """Which tasks Flower has seen each service do, by the name before the @."""
    status, body = fetched(up.address("flower", 5555), "/api/tasks?limit=500", "duty:s3same")
    found: dict[str, set[str]] = {}
    for task in json.loads(body).values() if status == 200 else ():
        if task["worker"] and task["state"] == "SUCCESS":
            name = task["name"].removeprefix("mongosplit.")
            found.setdefault(task["worker"].partition("@")[0], set()).add(name)
    return found


def test_a_migration_goes_through_the_services_of_the_file(up: Launched) -> None:
    here = up.environment("flower")["HOSTNAME"]
    workers = {f"{name}@{here}" for name in ("worker", "rollback", "sync")}
    until(lambda: up.ended() or workers <= listed(up), seconds=START_SECONDS)
    assert not up.ended(), [up.log(name).read_text()[-2000:] for name in up.ended()]

    settings = up.environment("producer")
    with MongoClient[dict[str, Any]](settings["MONGOSPLIT_MONGO_URL"]) as client:
        shop, ledger = client[settings["MONGOSPLIT_DATABASE"]], client["mongosplit"]
        seed(shop["users"], 300)
        typed(up, "start", "users", "--yes", "--detach", "--chunk-size", "20")
        done = {"_id": "users-1", "state": "verified"}
        until(lambda: ledger["runs"].find_one(done), seconds=START_SECONDS)
        assert shop["base_users"].count_documents({}) == 300

        typed(up, "rollback", "users", "--chunks", "1-2", "--yes")
        assert ledger["chunks"].count_documents({"state": "rolled_back"}) == 2
        assert shop["base_users"].count_documents({}) == 260

        shop["users"].delete_one({"_id": {"$in": shop["base_users"].distinct("_id")}})
        until(lambda: shop["base_users"].count_documents({}) == 259)
    assert_each_did_its_own_work(up)
    metrics = fetched(up.address("producer", 9464), "/metrics")[1]
    assert 'mongosplit_chunks{run="users-1",state="rolled_back"} 2.0' in metrics


def listed(up: Launched) -> set[str]:
    """The workers that Flower knows."""
    status, body = fetched(up.address("flower", 5555), "/api/workers?refresh=1", "duty:s3same")
    return set(json.loads(body)) if status == 200 else set()


def assert_each_did_its_own_work(up: Launched) -> None:
    """Every worker of the file has done the tasks of its queues, and none of another's."""
    expected = {
        "worker": {"migrate_chunk", "verify_chunk", "close_wave"},
        "rollback": {"rollback_chunk"},
        "sync": {"sync_chunks"},
    }
    until(lambda: tasks_by_worker(up) == expected, what=f"not {tasks_by_worker(up)}")


def test_every_health_check_of_the_file_succeeds_where_its_service_runs(up: Launched) -> None:
    for name in read(FILE, SECRETS).ours:
        until(partial(up.is_healthy, name), seconds=START_SECONDS, what=name)


def test_flower_asks_for_the_password_and_lets_nobody_change_anything(up: Launched) -> None:
    address, right = up.address("flower", 5555), "duty:s3same"
    until(lambda: fetched(address, "/healthcheck")[0] == 200, seconds=START_SECONDS)
    assert fetched(address, "/api/tasks")[0] == 401
    assert fetched(address, "/api/tasks", "duty:wrong")[0] == 401
    assert fetched(address, "/api/tasks", right)[0] == 200
    stop = f"/api/worker/shutdown/worker@{up.environment('flower')['HOSTNAME']}"
    assert fetched(address, stop, right, method="POST", data=b"")[0] == 403


TYPOS = {
    "producer": ("mongosplit, serve,", "mongosplit, sreve,"),
    "worker": ("migrate,verify", "migrate,verfy"),
    "worker-rollback": ("MONGOSPLIT_MONGO_URL:", "MONGOSPLIT_MONGO_URI:"),
    "flower": ("/flowerconfig.py", "/flowerconf.py"),
}


def test_a_service_with_a_typo_in_the_file_ends_with_an_error(tmp_path: Path) -> None:
    broken = {}
    for name, (right, wrong) in TYPOS.items():
        assert right in FILE.read_text()
        copy = tmp_path / f"{name}.yml"
        copy.write_text(FILE.read_text().replace(right, wrong))
        broken[name] = read(copy, SECRETS).ours[name]
    launched = Launched(broken, {}, tmp_path)
    try:
        started = [launched.start(name) for name in broken]
        until(lambda: set(launched.ended()) == set(broken), seconds=START_SECONDS)
        assert all(process.returncode != 0 for process in started)
    finally:
        launched.stop()
