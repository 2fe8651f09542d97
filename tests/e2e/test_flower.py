"""Flower beside real workers: a run can be read in it, nothing can be done, nobody is betrayed."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from mongosplit.ledger.book import Ledger
from ops.embedded import EmbeddedServers
from ops.seed import seed
from producer.leash import leashed
from tests.conditions import until
from tests.e2e.browser import browser, complaints, needs_browser
from tests.e2e.conftest import Shop

SCREENSHOTS = os.environ.get("MONGOSPLIT_SCREENSHOTS")
"""Where the picture for docs/images goes; read here because no test sees settings of ours."""
CONFIGURATION = Path(__file__).parents[2] / "ops" / "flower" / "flowerconfig.py"
USER, SECRET = "duty:s3same", "c0ffee4711"
USERS, CHUNK = 60, 5
HERE = socket.gethostname()
CHUNKS = ("migrate_chunk", "verify_chunk", "rollback_chunk")
NAMES = {f"mongosplit.{name}" for name in (*CHUNKS, "sync_chunks", "close_wave")}
TRANSIENT = {
    "failCommands": ["commitTransaction"],
    "errorCode": 251,
    "errorLabels": ["TransientTransactionError"],
    "appName": "mongosplit-worker",
}


@dataclass
class Flower:
    """A real Flower with the configuration of ops/, and its memory in a file."""

    url: str
    process: subprocess.Popen[bytes]

    def get(self, path: str, user: str = USER, **request: Any) -> tuple[int, str]:
        """Status and body of an answer; status 0 while there is none."""
        asked = urllib.request.Request(self.url + path, **request)
        if user:
            word = base64.b64encode(user.encode()).decode()
            asked.add_header("Authorization", f"Basic {word}")
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Every task it remembers, by id."""
        status, body = self.get("/api/tasks?limit=1000")
        found: dict[str, dict[str, Any]] = json.loads(body) if status == 200 else {}
        return found

    def of(self, name: str) -> list[dict[str, Any]]:
        """The tasks of one name."""
        return [row for row in self.tasks().values() if row["name"] == f"mongosplit.{name}"]


@contextmanager
def flower(shop: Shop, memory: Path, *flags: str, prefix: str = "") -> Iterator[Flower]:
    """Flower while the block runs; at its end it is stopped as a service is, and saves itself."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    line = [sys.executable, "-m", "celery", "-A", "worker.app", "flower"]
    line += [f"--conf={CONFIGURATION}", f"--port={port}", *flags]
    given = {
        "MONGOSPLIT_REDIS_URL": shop.environment["MONGOSPLIT_REDIS_URL"],
        "FLOWER_BASIC_AUTH": USER,
        "FLOWER_DB": str(memory),
        "PATH": os.defpath,
        **({"FLOWER_URL_PREFIX": prefix} if prefix else {}),
    }
    with (shop.folder / "flower.log").open("ab") as log:
        process = subprocess.Popen(
            leashed(line),
            env=given,
            cwd=shop.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    running = Flower(f"http://127.0.0.1:{port}{'/' if prefix else ''}{prefix}", process)
    try:
        until(lambda: running.get("/healthcheck")[0] == 200, what=shop.log("flower"))
        yield running
        process.terminate()
        assert process.wait(60) == 0, shop.log("flower")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Servers of its own, with a password on Redis, and workers for every queue."""
    folder = tmp_path_factory.mktemp("flower")
    with (
        EmbeddedServers(folder / "servers", failpoints=True) as own,
        MongoClient[dict[str, Any]](own.mongo_url) as client,
        redis.Redis.from_url(own.redis_url) as broker,
    ):
        broker.config_set("requirepass", SECRET)
        settings = {
            "MONGOSPLIT_MONGO_URL": own.mongo_url,
            "MONGOSPLIT_REDIS_URL": own.redis_url.replace("redis://", f"redis://:{SECRET}@"),
            "MONGOSPLIT_DATABASE": "shop",
            "MONGOSPLIT_LEDGER_DATABASE": "ledger",
            "MONGOSPLIT_RETRY_SECONDS": "0.2",
            "MONGOSPLIT_THROTTLE": "off",
            "PATH": os.defpath,
            "COLUMNS": "160",
        }
        found = Shop(client["shop"], Ledger.at(client, "ledger"), settings, folder)
        for name, queues in {"w1": "migrate,verify", "r1": "rollback", "s1": "sync"}.items():
            found.worker(name, queues=queues)
        try:
            yield found
        finally:
            found.stop()


@pytest.fixture(scope="module")
def memory(shop: Shop) -> Path:
    """What a Flower has saved that saw a whole run: a retry, a rollback, and live writes."""
    file = shop.folder / "tasks"
    with flower(shop, file) as seeing:
        workers = {f"{name}@{HERE}" for name in ("w1", "r1", "s1")}
        until(lambda: workers <= set(json.loads(seeing.get("/api/workers?refresh=1")[1] or "{}")))
        whole_run(shop)
        done = {"SUCCESS"}
        until(lambda: {row["name"] for row in seeing.tasks().values()} == NAMES)
        until(lambda: {row["state"] for row in seeing.tasks().values()} == done)
    return file


def whole_run(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    admin = shop.data.client.admin
    # Five tries inside of a task, and one more: the first chunk needs a second message.
    admin.command("configureFailPoint", "failCommand", mode={"times": 6}, data=TRANSIENT)
    good(shop, "start", "users", "--yes", "--chunk-size", str(CHUNK))
    good(shop, "rollback", "users", "--chunks", "1-2", "--yes")
    serve = shop.begin("serve", log="serve")
    left = USERS - 2 * CHUNK - 1
    shop.data["users"].delete_one({"_id": {"$in": shop.data["base_users"].distinct("_id")}})
    until(lambda: shop.data["base_users"].count_documents({}) == left, what=shop.log("serve"))
    serve.send_signal(2)
    serve.wait()


def good(shop: Shop, *words: str) -> str:
    done = shop.mongosplit(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def remembering(shop: Shop, memory: Path) -> Iterator[Flower]:
    """A Flower that was started after the run, with what another one had saved of it."""
    with flower(shop, memory) as found:
        yield found


def test_after_a_restart_of_flower_a_run_can_still_be_read_in_it(
    shop: Shop, remembering: Flower
) -> None:
    rows = list(remembering.tasks().values())
    assert {row["name"] for row in rows} == NAMES
    for row in rows:
        assert row["state"] == "SUCCESS"
        if row["name"].removeprefix("mongosplit.") in CHUNKS:
            assert re.fullmatch(r"users-1 #\d+", row["args"]), row
            assert len(row["result"]) < 200, row
    migrated = remembering.of("migrate_chunk")
    assert {row["args"] for row in migrated} == {f"users-1 #{n + 1}" for n in range(USERS // CHUNK)}
    assert all(re.match(r"attempt [12], wave \d+, ", row["kwargs"]) for row in migrated), migrated
    assert all("'did': 'migrated'" in row["result"] for row in migrated)
    assert {row["args"] for row in remembering.of("rollback_chunk")} == {"users-1 #1", "users-1 #2"}


def test_a_second_attempt_is_shown_with_its_number_and_its_wave(remembering: Flower) -> None:
    again = [row for row in remembering.of("migrate_chunk") if row["retries"]]
    assert again
    assert all(row["kwargs"].startswith("attempt 2, wave 1, ") for row in again), again


def test_no_user_and_no_password_can_be_read_anywhere(shop: Shop, remembering: Flower) -> None:
    uuid = next(iter(remembering.tasks()))
    until(lambda: f"w1@{HERE}" in remembering.get("/api/workers?refresh=1")[1])
    pages = ["/api/workers", "/api/tasks?limit=1000", "/tasks", "/workers", "/broker", "/metrics"]
    pages += [f"/worker/w1@{HERE}", f"/task/{uuid}", f"/api/task/info/{uuid}"]
    people = [
        word
        for user in shop.data["users"].find({})
        for word in (user.get("username"), (user.get("kontakt") or {}).get("email"))
        if isinstance(word, str) and word
    ]
    assert len(people) > USERS
    for page in pages:
        status, body = remembering.get(page)
        assert status == 200, page
        assert "mongodb://" not in body, page
        assert SECRET not in body, page
        assert USER.partition(":")[2] not in body, page
        assert [word for word in people if word in body] == [], page


def test_it_asks_for_the_password_and_lets_nobody_do_anything(
    shop: Shop, remembering: Flower
) -> None:
    for path in ("/api/tasks", "/api/workers", "/tasks"):
        assert remembering.get(path, "")[0] == 401
        assert remembering.get(path, "duty:wrong")[0] == 401
        assert remembering.get(path)[0] == 200
    for path in (
        f"/api/worker/shutdown/w1@{HERE}",
        f"/api/worker/pool/restart/w1@{HERE}",
        "/api/task/apply/mongosplit.close_wave",
        "/api/task/async-apply/mongosplit.close_wave",
        "/api/task/send-task/mongosplit.close_wave",
        f"/api/task/revoke/{next(iter(remembering.tasks()))}",
    ):
        said = remembering.get(path, method="POST", data=b'{"args": ["users-1:1"]}')
        assert said[0] == 403, (path, said)
    assert all(process.poll() is None for process in shop.started[:3])


def test_behind_a_prefix_everything_has_moved_there(shop: Shop, memory: Path) -> None:
    with flower(shop, memory, prefix="flower") as moved:
        status, page = moved.get("/tasks")
        assert status == 200
        assert re.findall(r'(?:src|href)="(/[^"]*)"', page)
        assert all(at.startswith("/flower") for at in re.findall(r'(?:src|href)="(/[^"]*)"', page))
        assert moved.get("/api/tasks")[0] == 200
        root = Flower(moved.url.removesuffix("/flower"), moved.process)
        assert root.get("/api/tasks")[0] == 404


def test_flower_forgets_the_oldest_task_and_the_ledger_does_not(
    shop: Shop, tmp_path: Path, memory: Path
) -> None:
    assert memory.name, "the run is there when its memory is"
    with flower(shop, tmp_path / "tasks", "--max_tasks=5") as small:
        until(lambda: f"w1@{HERE}" in small.get("/api/workers?refresh=1")[1])
        good(shop, "verify", "users")
        until(
            lambda: len(small.tasks()) == 5 and all(row["args"] for row in small.of("verify_chunk"))
        )
        remembered = {row["args"] for row in small.tasks().values()}
    told = shop.json("history", "users-1", "--limit", "1000")["entries"]
    known = {f"users-1 #{row['chunk']}" for row in told if row.get("chunk")}
    assert known >= {f"users-1 #{n + 1}" for n in range(USERS // CHUNK)}
    assert known - remembered
    assert shop.json("status", "users")["chunks"]["verified"] >= USERS // CHUNK - 2


@needs_browser
def test_the_page_shows_the_run_and_finds_a_chunk(remembering: Flower, tmp_path: Path) -> None:
    with browser(tmp_path / "profile", width=1780, height=800) as page:
        # Flower draws its table by requests, which repeat the password of the address.
        page.get(remembering.url.replace("://", f"://{USER}@") + "/tasks")
        page.get(remembering.url + "/tasks")
        shown = until(lambda: table(page))
        assert [heading.lower() for heading in shown[0][:4]] == ["name", "args", "kwargs", "state"]
        choose(page, "50")
        said = until(lambda: is_whole(table(page)))
        assert {row[0].rpartition(".")[2] for row in said} == {
            name.rpartition(".")[2] for name in NAMES
        }
        search(page, PICTURED)
        until(lambda: all(shows(table(page), word) for word in PICTURED_ROWS), what=PICTURED)
        picture(page, "flower.png")
        for words, expected in SEARCHES.items():
            search(page, words)
            until(partial(found_only, page, expected), what=f"{words}: {table(page)}")
        assert complaints(page) == []


# Each finds nothing that the one before it finds, so that a table that has not changed yet is told.
SEARCHES = {
    "args:#12": ("args", "users-1 #12"),
    'kwargs:"attempt 2"': ("kwargs", "attempt 2"),
    "name:rollback_chunk worker:r1@": ("name", "rollback_chunk"),
    'kwargs:"wave 1,"': ("kwargs", "wave 1,"),
    'result:"rolled back"': ("name", "rollback_chunk"),
}
PICTURED = 'args:"users-1 #2" OR name:sync_chunks OR kwargs:"attempt 2"'
PICTURED_ROWS = ("migrate_chunk", "verify_chunk", "rollback_chunk", "sync_chunks", "attempt 2")
COLUMNS = ["name", "args", "kwargs", "state"]


def table(page: Chrome) -> list[list[str]]:
    """Headings and rows of the table of tasks; nothing while it is drawn."""
    read = (
        "return [...document.querySelectorAll('#tasks-table tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    heads = (
        "return [...document.querySelectorAll('#tasks-table thead th')].map(h=>h.dataset.column)"
    )
    rows: list[list[str]] = page.execute_script(read)
    names: list[str] = page.execute_script(heads)
    return [names, *rows] if rows and len(rows[0]) > 1 else []


def is_whole(found: list[list[str]]) -> list[list[str]]:
    return found[1:] if {row[0] for row in found[1:]} >= NAMES else []


def shows(found: list[list[str]], word: str) -> bool:
    return len(found) < USERS // CHUNK and any(word in cell for row in found for cell in row)


def found_only(page: Chrome, expected: tuple[str, str]) -> bool:
    found, place = table(page), COLUMNS.index(expected[0])
    return len(found) > 1 and all(expected[1] in row[place] for row in found[1:])


def choose(page: Chrome, length: str) -> None:
    page.find_element(By.CSS_SELECTOR, f"#tasks-table_length option[value='{length}']").click()


def search(page: Chrome, words: str) -> None:
    box = page.find_element(By.CSS_SELECTOR, "#tasks-table_filter input")
    box.clear()
    box.send_keys(words)


def picture(page: Chrome, name: str) -> None:
    """Keep a picture where MONGOSPLIT_SCREENSHOTS says."""
    if SCREENSHOTS:
        page.execute_script("window.scrollTo(0, 0)")
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        assert page.save_screenshot(str(Path(SCREENSHOTS) / name))
