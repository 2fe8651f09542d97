"""The dashboard over HTTP on a real ledger: what it tells, what it keeps to itself, who gets in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from threading import Event, Thread
from typing import Any

import pytest
from pymongo.monitoring import CommandListener, CommandStartedEvent

from mongosplit.ledger import chunks, runs
from mongosplit.ledger.book import Ledger, now
from mongosplit.model import ChunkState
from mongosplit.mongo import Client, connect
from mongosplit.open_run import OpenRun
from producer.dashboard import pages, server
from producer.dashboard.cells import LETTERS
from producer.dashboard.door import Door
from producer.dashboard.pages import Dashboard
from producer.dashboard.watch import Watches
from tests.conditions import until
from tests.integration.conftest import (
    Begin,
    content,
    failing,
    ledger_row,
    migrated,
    oid,
    put_state,
    user,
    users,
    verified,
)

TOKEN = "a token for the tests"
APPLICATION = "a test's dashboard"
PATHS = ("/", "/page.css", "/page.js", "/api/looks", "/api/chunk?run=users-1&n=1", "/nothing")
DEADLINE_SECONDS = 90


@dataclass
class Site:
    """A dashboard that answers, and ways to ask it."""

    door: Door

    @contextmanager
    def ask(
        self, path: str, *, method: str = "GET", cookie: bool = True, host: str = ""
    ) -> Iterator[HTTPResponse]:
        headers = {"Host": host or f"127.0.0.1:{self.door.port}"}
        if cookie:
            headers["Cookie"] = f"{self.door.cookie_name}={self.door.cookie}"
        connection = HTTPConnection("127.0.0.1", self.door.port, timeout=DEADLINE_SECONDS)
        with closing(connection):
            connection.request(method, path, headers=headers)
            with connection.getresponse() as answer:
                yield answer

    def body(self, path: str, **how: Any) -> tuple[int, str]:
        with self.ask(path, **how) as answer:
            return answer.status, answer.read().decode()

    @contextmanager
    def watching(self, run: str = "") -> Iterator[Watched]:
        with self.ask(f"/api/looks?run={run}") as answer:
            assert answer.status == 200
            yield Watched(answer)


@dataclass
class Watched:
    """A browser that puts together what it is told."""

    answer: HTTPResponse
    facts: dict[str, Any] = field(default_factory=dict)
    cells: list[str] = field(default_factory=list)
    samples: list[list[float]] = field(default_factory=list)
    text: str = ""

    def next(self) -> tuple[str, dict[str, Any]]:
        """The name and the data of the next event."""
        lines: list[str] = []
        while True:
            line = self.answer.readline().decode()
            assert line, "the stream has ended"
            if line == "\n" and any(found.startswith("event: ") for found in lines):
                break
            lines = [] if line == "\n" else [*lines, line.rstrip("\n")]
        self.text = "\n".join(lines)
        event, data = lines
        told: dict[str, Any] = json.loads(data.removeprefix("data: "))
        return event.removeprefix("event: "), told

    def look(self) -> dict[str, Any]:
        """The next look, put on top of what was there."""
        name, told = self.next()
        assert name == "look", told
        self.facts = told["facts"]
        if "cells" in told:
            short = re.findall(r"(\d*)(\D)", told["cells"])
            self.cells = [*"".join(letter * int(count or 1) for count, letter in short)]
            self.samples = told["samples"]
        else:
            for first, letter, count in told["changes"]:
                self.cells[first - 1 : first - 1 + count] = [letter] * count
            fresh = {sample[0] for sample in told["samples"]}
            self.samples = [old for old in self.samples if old[0] not in fresh] + told["samples"]
        return told

    def until(self, cells: str) -> None:
        """Looks until the map is this one."""

        def is_there() -> bool:
            self.look()
            return "".join(self.cells) == cells

        until(is_there, what=f"the map never was {cells}")


@contextmanager
def answering(ledger: Ledger, url: str, name: str = "") -> Iterator[Site]:
    with server.listen("127.0.0.1", 0) as listening:
        door, told = Door("127.0.0.1", listening.getsockname()[1], TOKEN), Event()
        shown = Dashboard(door, ledger, url, name)
        thread = Thread(target=server.serve, args=(shown, listening, told))
        thread.start()
        try:
            yield Site(door)
        finally:
            told.set()
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def site(ledger: Ledger, mongo_url: str) -> Iterator[Site]:
    with (
        connect(mongo_url, seconds=3, application=APPLICATION) as own,
        answering(Ledger.at(own, ledger.database.name), mongo_url) as found,
    ):
        yield found


def in_ledger(at: OpenRun) -> str:
    """The map as the rows of the chunks have it, one after the other."""
    rows = at.ledger["chunks"].find({"run": at.run.id}).sort("n", 1)
    return "".join(
        LETTERS[ChunkState(row["state"])].upper()
        if row.get("quarantined")
        else LETTERS[ChunkState(row["state"])]
        for row in rows
    )


def test_first_everything_is_told_and_then_what_changes(begin: Begin, site: Site) -> None:
    bad = user(31, {"kontakt.email": 5})
    at = begin([*users(30), bad, *(user(n) for n in range(32, 61))], chunk_size=10)
    with site.watching() as browser:
        told = browser.look()
        assert told["cells"] == "6pm"
        assert browser.facts["chunks"] == {
            **{state.value: 0 for state in ChunkState},
            "pending": 6,
            "migrated": 1,
        }
        for n in (1, 2, 4):
            migrated(at, n)
        verified(at, 1)
        put_state(at, ChunkState.FAILED, 6)
        browser.until("vmpMpfm")
        assert "".join(browser.cells) == in_ledger(at)
        documents = browser.facts["documents"]
        assert (documents["source"], documents["migrated"], documents["quarantined"]) == (60, 29, 1)
        [row] = browser.facts["quarantine"]
        assert (row["path"], row["count"]) == ("kontakt.email", 1)
        # Later looks tell only what is new.
        told = browser.look()
        assert told.get("changes") == []
        assert len(told["samples"]) <= 3
        # Whoever comes later is told everything at once.
        with site.watching(at.run.id) as later:
            later.look()
            assert later.cells == browser.cells


def test_no_id_and_no_value_of_a_document_is_told(begin: Begin, site: Site) -> None:
    at = begin([*users(9), user(10, {"kontakt.email": 5})], chunk_size=5)
    with site.watching() as browser:
        browser.look()
        for n in (1, 2):
            migrated(at, n)
        chunks.fail(at.ledger, at.run.id, 1, {"class": "Failed", "sentence": "no"}, actor="w1@here")
        browser.until("mMm")
        told = browser.text + site.body(f"/api/chunk?run={at.run.id}&n=2")[1]
    row = ledger_row(at, 2)
    assert row["ranges"]
    assert not any(str(oid(n)) in told for n in range(1, 11))
    assert not re.search(r"[0-9a-f]{24}|example\.org|Käthe|K\\u00e4the", told)


def test_a_claimed_chunk_is_marked_while_somebody_works_on_it(begin: Begin, site: Site) -> None:
    at = begin(users(20), chunk_size=5)
    key = {"work": "migrate", "run": at.run.id, "n": 2}
    holder = {"worker": "w1@here", "task": "", "session": b"", "since": now()}
    with site.watching() as browser:
        browser.look()
        at.ledger["claims"].insert_one(
            {"_id": key, "run": at.run.id, "work": "migrate", "attempts": 2, "holders": [holder]}
        )
        browser.until("pcppm")
        assert browser.facts["marked"]["claimed"] == 1
        found = json.loads(site.body(f"/api/chunk?run={at.run.id}&n=2")[1])
        assert (found["claimed_by"], found["attempts"]) == (["w1@here"], 2)
        at.ledger["claims"].update_one({"_id": key}, {"$set": {"holders": []}})
        browser.until("ppppm")


def test_the_curve_begins_with_what_the_ledger_knows(begin: Begin, site: Site) -> None:
    at = begin(users(40), chunk_size=10)
    runs.note(at.ledger, at.run.id, started=now().replace(year=now().year - 1))
    migrated(at, 1)
    with site.watching() as browser:
        browser.look()
        assert 150 < len(browser.samples) <= 181
        # The last points fall into the seconds in which the chunk was migrated.
        assert max(rate for _, rate, _ in browser.samples[-3:]) > 0
        assert browser.samples[0][2] == 40
        assert browser.samples[-1][2] == 30


def fill(ledger: Ledger, at: OpenRun, count: int) -> None:
    """So many chunks, in the worst order for a map in short."""
    row = ledger_row(at)
    states = [state.value for state in ChunkState]
    ledger["chunks"].delete_many({"run": at.run.id})
    ledger["chunks"].insert_many(
        [
            {**row, "_id": {"run": at.run.id, "n": n}, "n": n, "state": states[n * 7 % 5]}
            for n in range(1, count + 1)
        ]
    )


def test_of_100_000_chunks_the_first_look_is_small_and_looking_writes_nothing(
    begin: Begin, site: Site, ledger: Ledger
) -> None:
    at = begin(users(5))
    fill(ledger, at, 100_000)
    before = content(at)
    with site.watching() as browser:
        browser.look()
        assert len(browser.text) < 300_000
        assert len(browser.cells) == 100_000
        assert browser.facts["chunks"] == {state.value: 20_000 for state in ChunkState}
        assert site.body(f"/api/chunk?run={at.run.id}&n=99999")[0] == 200
        browser.look()
        assert len(browser.text) < 10_000
    assert content(at) == before


def test_without_a_run_it_says_so_and_shows_the_first_one_when_it_comes(
    begin: Begin, site: Site
) -> None:
    with site.watching() as browser:
        browser.look()
        assert browser.facts["run"] is None
        begin(users(5))
        browser.until("pm")
        assert browser.facts["runs"] == [{"run": "users-1", "state": "running"}]


def test_a_run_that_is_none_is_said_with_those_that_are(begin: Begin, site: Site) -> None:
    begin(users(5))
    with site.watching("users-7") as browser:
        name, told = browser.next()
        assert name == "trouble"
        assert told["sentence"] == 'there is no run of "users-7" in this ledger'
        assert told["hint"] == "there are: users-1"


def test_a_ledger_that_is_away_is_said_and_comes_back_by_itself(
    begin: Begin, site: Site, client: Client
) -> None:
    begin(users(5))
    with site.watching() as browser:
        browser.look()
        how = {"errorCode": 91, "appName": APPLICATION}
        with failing(client, "aggregate", **how):
            name, told = until(lambda: _trouble(browser))
            assert name == "trouble"
            assert "MongoDB at 127.0.0.1" in told["sentence"]
            assert site.body("/")[0] == 200
        until(lambda: browser.next()[0] == "look")


def _trouble(browser: Watched) -> tuple[str, dict[str, Any]] | None:
    found = browser.next()
    return found if found[0] == "trouble" else None


class Counting(CommandListener):
    """Counts the looks."""

    def __init__(self) -> None:
        self.looks = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.looks += event.command_name == "aggregate"

    def succeeded(self, event: Any) -> None:
        """Of no interest."""

    def failed(self, event: Any) -> None:
        """Of no interest."""


def test_all_browsers_share_one_watch_and_it_ends_with_the_last_of_them(
    begin: Begin, ledger: Ledger, mongo_url: str
) -> None:
    begin(users(5))
    counting = Counting()
    with Client(mongo_url, event_listeners=[counting]) as own:
        watches = Watches(Ledger.at(own, ledger.database.name), mongo_url)

        async def watch() -> list[int]:
            with watches.watched("users-1") as first, watches.watched("users-1") as second:
                assert first is second
                number = 0
                for _ in range(3):
                    seen = [await one.after(number, DEADLINE_SECONDS) for one in (first, second)]
                    assert seen[0] is seen[1]
                    assert seen[0] is not None
                    number = seen[0].number
                assert len(watches) == 1
            assert len(watches) == 0
            before = counting.looks
            await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=2.5)
            return [number, before, counting.looks]

        number, before, after = asyncio.run(watch())
    assert number == 3
    # The curve is read once more; the look that was under way may still have ended.
    assert before <= 5
    assert after <= before + 1


def test_it_ends_at_once_and_without_complaint_while_browsers_watch(
    begin: Begin, ledger: Ledger, mongo_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    begin(users(5))
    with ExitStack() as stack:
        with answering(ledger, mongo_url) as site:
            browsers = [stack.enter_context(site.watching()) for _ in range(3)]
            for browser in browsers:
                browser.look()
        for browser in browsers:
            until(lambda one=browser: not one.answer.readline())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


# ---- who gets in --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_shown(site: Site, path: str) -> None:
    status, said = site.body(path, cookie=False)
    assert (status, said) == (403, pages.NO_TOKEN + "\n")


@pytest.mark.parametrize("token", ["", "wrong", TOKEN.replace(" ", "%20") + "x"])
def test_a_wrong_token_is_refused_even_from_who_was_let_in(site: Site, token: str) -> None:
    assert site.body(f"/?token={token}", cookie=True)[0] == 403
    assert site.body(f"/?token={token}", cookie=False)[0] == 403


def test_the_token_is_exchanged_at_once_for_a_cookie_that_scripts_and_others_cannot_use(
    site: Site,
) -> None:
    with site.ask(site.door.url.partition(str(site.door.port))[2], cookie=False) as answer:
        assert answer.status == 303
        assert answer.headers["Location"] == "/"
        cookie = answer.headers["Set-Cookie"]
        assert TOKEN not in str(answer.headers)
    assert cookie.startswith(f"{site.door.cookie_name}={site.door.cookie};")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert site.body("/")[0] == 200


@pytest.mark.parametrize("path", PATHS)
def test_under_another_name_nothing_is_shown(site: Site, path: str) -> None:
    status, said = site.body(path, host=f"evil.example:{site.door.port}")
    assert (status, said) == (403, pages.NOT_OURS + "\n")


@pytest.mark.parametrize("path", PATHS)
def test_only_reading_is_allowed(site: Site, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        assert site.body(path, method=method)[0] == 405


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_forbids_what_is_elsewhere_frames_and_memory(site: Site, path: str) -> None:
    for how in ({}, {"cookie": False}, {"method": "POST"}, {"host": "evil.example"}):
        with site.ask(path, **how) as answer:
            headers = answer.headers
        for name, value in pages.HEADERS.items():
            assert headers[name] == value
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "Server" not in headers


def test_a_chunk_that_is_none_is_said_in_one_line(begin: Begin, site: Site) -> None:
    begin(users(5))
    for n in ("0", "99", "-1", "x", "1e3", "٣", "9" * 30, ""):
        status, said = site.body(f"/api/chunk?run=users-1&n={quoted(n)}")
        assert status in (400, 404)
        assert len(said.splitlines()) == 1


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def test_the_page_asks_for_nothing_that_is_elsewhere() -> None:
    for file in pages.PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*// .*$|\s+// .*$", "", text, flags=re.MULTILINE), file
        assert not re.search(r"\b(eval|innerHTML|outerHTML|insertAdjacentHTML)\b", text), file
    assert {file.name for file in pages.PAGE.iterdir()} == {*pages.FILES, "index.html"}
