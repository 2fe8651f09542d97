"""`mongosplit dashboard` as a process, looked at in a real browser while a run goes on."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from mongosplit.ledger import chunks, runs
from mongosplit.ledger.book import now
from mongosplit.ledger.claims import Attempt
from mongosplit.open_run import open_run
from mongosplit.verify import verify_chunk
from tests.conditions import until
from tests.e2e.browser import browser, complaints, needs_browser
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes, refused
from tests.integration.conftest import user, users

SCREENSHOTS = os.environ.get("MONGOSPLIT_SCREENSHOTS")
"""A folder to put the picture of the documents into."""
APPLICATION = "mongosplit-dashboard"
OPEN = "open this address; stop with Ctrl-C"
STOPPED = "stopped; runs are not touched by it"


@contextmanager
def opened(shop: Shop, *arguments: str, **changes: str) -> Iterator[str]:
    """A dashboard as a process; gives the address it has printed, and ends it as systemd would."""
    process = shop.begin("dashboard", "--port", "0", *arguments, log="dashboard", **changes)
    url = until(lambda: _printed(shop, process), what="no address was printed")
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 0
    # No traceback, and no request, whose address would hold the token.
    assert shop.log("dashboard").splitlines() == [url, OPEN, STOPPED]


def _printed(shop: Shop, process: subprocess.Popen[bytes]) -> str:
    assert process.poll() is None, shop.log("dashboard")
    found = re.search(r"^http\S+$", shop.log("dashboard"), re.MULTILINE)
    return found[0] if found else ""


def planned(shop: Shop, *more: dict[str, Any]) -> None:
    """A run of 20 chunks and the tail that has begun, and that nobody drives."""
    shop.data["users"].insert_many([*users(195), *(user(n) for n in range(196, 201 - len(more)))])
    if more:
        shop.data["users"].insert_many(list(more))
    done = shop.mongosplit("start", "users", "--yes", "--chunk-size", "10", "--detach")
    assert done.returncode == 0, done.stderr


def text(page: Chrome, name: str) -> str:
    return page.find_element(By.ID, name).text


def legend(page: Chrome) -> dict[str, int]:
    """The counts of the legend by the word of their kind."""
    items = page.find_elements(By.CSS_SELECTOR, "#legend li")
    counts = {str(i.get_attribute("data-kind")): i.find_element(By.TAG_NAME, "b") for i in items}
    return {kind: int(count.text.replace(",", "")) for kind, count in counts.items()}


def colours(page: Chrome) -> int:
    """How many pixels of the map have the colour of a migrated chunk."""
    return int(
        page.execute_script("""
            const map = document.getElementById("map");
            const copy = new OffscreenCanvas(map.width, map.height);
            const context = copy.getContext("2d", {willReadFrequently: true});
            context.drawImage(map, 0, 0);
            const data = context.getImageData(0, 0, map.width, map.height).data;
            let found = 0;
            for (let i = 0; i < data.length; i += 4)
                if (data[i] === 0x56 && data[i + 1] === 0xb4 && data[i + 2] === 0xe9) found++;
            return found;
        """)
    )


def is_live(page: Chrome) -> bool:
    return page.find_element(By.ID, "live").get_attribute("data-is") == "live"


@needs_browser
def test_the_page_shows_a_run_and_follows_it_without_being_loaded_again(
    shop: Shop, tmp_path: Path
) -> None:
    planned(shop, user(200, {"kontakt.email": 5}))
    with opened(shop) as url, browser(tmp_path / "profile") as page:
        page.get(url)
        until(lambda: is_live(page))
        assert "token" not in page.current_url
        page.execute_script("window.loadedOnce = true")
        assert legend(page)["pending"] == 20
        assert text(page, "state") == "users-1: running"
        assert text(page, "migrated") == "0"
        before = colours(page)
        shop.migrate_here(1, 2, 3, 20)
        until(lambda: legend(page)["migrated"] == 5)
        assert legend(page)["pending"] == 16
        assert colours(page) > 3 * before
        assert text(page, "migrated") == "39"
        assert text(page, "whole") == "200"
        assert "kontakt.email" in text(page, "quarantine")
        assert legend(page)["quarantined"] == 1
        label = page.find_element(By.ID, "map").get_attribute("aria-label")
        assert label == "Chunk map: 16 pending, 5 migrated, 1 with quarantined documents"
        assert "4 chunks: pending → migrated" in text(page, "history")
        assert text(page, "next") == shop.json("status", "users")["next"].partition("   ")[0]
        done = shop.mongosplit("pace", "users", "700/s", "--yes")
        assert done.returncode == 0, done.stderr
        until(lambda: text(page, "pace").startswith("700 documents/s, set by "))
        assert page.execute_script("return window.loadedOnce") is True
        assert complaints(page) == []


@needs_browser
def test_a_chunk_is_told_of_when_it_is_pointed_at_or_walked_to_without_its_ids(
    shop: Shop, tmp_path: Path
) -> None:
    planned(shop)
    shop.migrate_here(1)
    chunks.fail(
        shop.ledger, "users-1", 2, {"class": "Failed", "sentence": "no luck"}, actor="w1@here"
    )
    with opened(shop, "users-1") as url, browser(tmp_path / "profile") as page:
        page.get(url)
        until(lambda: is_live(page))
        drawn = page.find_element(By.ID, "map")
        drawn.send_keys(Keys.ARROW_RIGHT)
        until(lambda: "10 of 10 planned documents" in text(page, "chunk"))
        assert text(page, "chunk").startswith("Chunk 1: migrated · ")
        assert "1 attempt" in text(page, "chunk")
        drawn.send_keys(Keys.ARROW_RIGHT)
        until(lambda: "no luck" in text(page, "chunk"))
        assert text(page, "chunk").startswith("Chunk 2: failed · ")
        page.execute_script(
            "arguments[0].dispatchEvent(new PointerEvent('pointermove', {clientX: "
            "arguments[0].getBoundingClientRect().left + 3, clientY: "
            "arguments[0].getBoundingClientRect().top + 3, bubbles: true}))",
            drawn,
        )
        until(lambda: text(page, "chunk").startswith("Chunk 1: migrated · "))
        assert not re.search(r"[0-9a-f]{24}|example\.org|Käthe", page.page_source)
        assert complaints(page) == []


@needs_browser
def test_the_page_says_that_mongodb_is_away_and_comes_back_by_itself(
    shop: Shop, tmp_path: Path
) -> None:
    planned(shop)
    admin = shop.data.client.admin
    how = {"failCommands": ["find", "aggregate"], "errorCode": 91, "appName": APPLICATION}
    with opened(shop) as url, browser(tmp_path / "profile") as page:
        page.get(url)
        until(lambda: is_live(page))
        admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=how)
        try:
            until(lambda: "MongoDB at 127.0.0.1" in text(page, "trouble"))
            assert not is_live(page)
        finally:
            admin.command("configureFailPoint", "failCommand", mode="off")
        shop.migrate_here(1)
        until(lambda: is_live(page) and legend(page)["migrated"] == 2)
        assert text(page, "trouble") == ""


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 900), (2560, 1440)])
def test_nothing_is_cut_off_on_a_phone_nor_on_a_wall(
    shop: Shop, tmp_path: Path, width: int, height: int
) -> None:
    planned(shop)
    shop.migrate_here(1, 2)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    with opened(shop) as url, browser(tmp_path / "profile") as page:
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.get(url)
        until(lambda: is_live(page))
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        assert complaints(page) == []


@needs_browser
def test_without_a_run_the_page_says_what_to_type_and_a_run_can_be_chosen_later(
    shop: Shop, tmp_path: Path
) -> None:
    with opened(shop) as url, browser(tmp_path / "profile") as page:
        page.get(url)
        until(lambda: is_live(page))
        assert "mongosplit plan" in text(page, "nothing")
        planned(shop)
        until(lambda: text(page, "state") == "users-1: running")
        page.find_element(By.CSS_SELECTOR, "#runs option[value='users-1']").click()
        until(lambda: page.current_url.endswith("/?run=users-1") and is_live(page))
        assert text(page, "state") == "users-1: running"
        assert complaints(page) == []


def test_looking_writes_nothing_and_a_wrong_token_gets_nothing(shop: Shop) -> None:
    planned(shop)
    with nothing_changes(shop), opened(shop, MONGOSPLIT_DASHBOARD_TOKEN="sixteen letters.") as url:
        assert url.endswith("/?token=sixteen%20letters.")
        for wrong in (url + "x", url.partition("?")[0]):
            with pytest.raises(urllib.error.HTTPError) as found:
                urllib.request.urlopen(wrong, timeout=90)
            found.value.close()
            assert found.value.code == 403
        jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with jar.open(url, timeout=90) as answer:
            assert "?" not in answer.url
            looks = answer.url + "api/looks"
        with jar.open(looks, timeout=90) as answer:
            until(lambda: answer.readline().startswith(b"event: look"))


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(shop, monkeypatch, capsys)


def test_what_cannot_be_served_ends_with_one_sentence_and_what_to_type(
    shop: Shop, typed: Typed
) -> None:
    planned(shop)
    typed("status")
    said = typed("dashboard", "users-9")
    refused(said, 2, 'there is no run of "users-9" in this ledger', "there are: users-1")
    said = typed("dashboard", "--host", "0.0.0.0")
    hint = "set MONGOSPLIT_DASHBOARD_TOKEN; or leave --host out and come by "
    hint += "ssh -L 8777:localhost:8777"
    sentence = "others could reach the dashboard at 0.0.0.0, and no token was chosen for it"
    refused(said, 3, sentence, hint)
    said = typed("dashboard", "--token", "short")
    hint = "set MONGOSPLIT_DASHBOARD_TOKEN to a longer one, or to none: one is made then"
    refused(said, 2, "the token has fewer than 16 letters", hint)
    assert typed("dashboard", "--port", "70000").code == 2
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        said = typed("dashboard", "--port", taken)
        sentence = f"the dashboard cannot be served at 127.0.0.1:{taken}: address already in use"
        refused(said, 1, sentence, "give another --port or --host")
    assert typed("dashboard", "--host", "no such host", "--token", "x" * 16).code == 1


@needs_browser
@pytest.mark.skipif(SCREENSHOTS is None, reason="MONGOSPLIT_SCREENSHOTS names no folder")
def test_the_picture_of_the_documents_is_taken(shop: Shop, tmp_path: Path) -> None:
    bad = [user(n, {"kontakt.email": 5}) for n in (1151, 1152, 1391)]
    shop.data["users"].insert_many([*users(1150), *bad[:2], *(user(n) for n in range(1153, 1391))])
    shop.data["users"].insert_many([bad[2], *(user(n) for n in range(1392, 3001))])
    line = ("start", "users", "--yes", "--chunk-size", "10", "--detach")
    assert shop.mongosplit(*line, MONGOSPLIT_ACTOR="anna@shop").returncode == 0
    line = ("pace", "users", "5000/s", "--yes")
    assert shop.mongosplit(*line, MONGOSPLIT_ACTOR="anna@shop").returncode == 0
    # No chunk is compared in the background, which would name this machine in the audit.
    still = {"MONGOSPLIT_RECHECK_SECONDS": "0"}
    with opened(shop) as url, browser(tmp_path / "profile", height=1640) as page:
        shop.begin("follow", "users", log="follow", MONGOSPLIT_ACTOR="anna@shop", **still)
        at = open_run(shop.data.client, shop.ledger, "users-1", holder="a test")
        for n in range(1, 171):
            shop.migrate_here(n)
        for n in range(1, 101):
            verify_chunk(at, n, Attempt(f"w{n % 2}@here"), verification=1, independent=False)
        error = {"class": "Failed", "sentence": "chunk 175 of users-1: Interrupted (code 11601)"}
        chunks.fail(shop.ledger, "users-1", 175, error, actor="w2@here")
        backdate(shop)
        page.get(url)
        until(lambda: is_live(page) and legend(page)["verified"] == 100)
        until(lambda: "up to date" in text(page, "follower"))
        page.save_screenshot(str(Path(SCREENSHOTS or "") / "dashboard.png"))


def backdate(shop: Shop) -> None:
    """As if the chunks had been migrated one after the other until now, faster in the middle."""
    first = now() - timedelta(minutes=24)
    runs.note(shop.ledger, "users-1", source="shop.users", started=first)
    for n in range(1, 171):
        wave = timedelta(seconds=100 * math.sin(n / 17))
        ended = min(first + timedelta(seconds=24 * 60 / 170 * n) + wave, now())
        key = {"run": "users-1", "n": n}
        shop.ledger["chunks"].update_one(key, {"$set": {"finished": ended}})
    for n in range(171, 175):
        row = {"run": "users-1", "work": "migrate", "attempts": 1, "holders": [{"worker": "w1"}]}
        key = {"work": "migrate", "run": "users-1", "n": n}
        shop.ledger["claims"].update_one({"_id": key}, {"$set": row}, upsert=True)
