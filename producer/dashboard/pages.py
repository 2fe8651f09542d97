"""The dashboard's pages: what is answered at which address, to whom; nothing here writes."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler

from mongosplit import mongo
from mongosplit.errors import MongosplitError
from mongosplit.ledger.book import Ledger
from producer.dashboard import cells as chunk_cells
from producer.dashboard.door import Door
from producer.dashboard.events import event
from producer.dashboard.facts import Look
from producer.dashboard.watch import Watches

PAGE = Path(__file__).with_name("page")
FILES = {
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(("page.js", "map.js", "curve.js", "words.js"), "text/javascript"),
}
SILENT_SECONDS = 10.0
"""After so long without a look the browser is told that somebody is still here."""
AGAIN_MILLISECONDS = 2000
"""When a browser that has lost the connection tries again."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; object-src 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NO_TOKEN = "open the address that `mongosplit dashboard` has printed: its token is missing or wrong"
NOT_OURS = "this dashboard does not answer under that name"
NO_SUCH = "there is no such page"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dashboard:
    """What is shown: the ledger behind the door; `name` is the run or migration shown first."""

    door: Door
    ledger: Ledger
    mongo_url: str
    name: str = ""


class Guarded(RequestHandler):
    """Whatever is asked: only reading, only by who has the token, only under our own name."""

    SUPPORTED_METHODS = ("GET",)

    @property
    def at(self) -> Dashboard:
        """What is shown."""
        found: Dashboard = self.settings["dashboard"]
        return found

    @property
    def watches(self) -> Watches:
        """What is watched by anybody."""
        found: Watches = self.settings["watches"]
        return found

    def set_default_headers(self) -> None:
        """Nothing from elsewhere, in no frame, kept nowhere."""
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse a host that is not ours, and who has neither token nor cookie."""
        if not self.at.door.answers_as(self.request.host):
            raise HTTPError(HTTPStatus.FORBIDDEN, NOT_OURS)
        if not self.is_let_in():
            raise HTTPError(HTTPStatus.FORBIDDEN, NO_TOKEN)

    def is_let_in(self) -> bool:
        """Whether the cookie proves that the token was known."""
        return self.at.door.remembers(self.get_cookie(self.at.door.cookie_name))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One sentence."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        said = error.log_message if isinstance(error, HTTPError) else None
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{said or HTTPStatus(status_code).phrase}\n")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Without the request, whose address may hold the token."""
        if not isinstance(value, HTTPError):
            log.error("the dashboard could not answer", exc_info=(typ, value, tb))

    def as_json(self, value: Any) -> None:
        """Answer with a JSON value."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))


class Page(Guarded):
    """The page itself; a token in its address is exchanged for a cookie at once."""

    def is_let_in(self) -> bool:
        """Who brings a token must bring the right one."""
        token = self.get_query_argument("token", None)
        return super().is_let_in() if token is None else self.at.door.opens(token)

    def get(self) -> None:
        """The page, or the way to it without the token."""
        if self.get_query_argument("token", None) is None:
            self.set_header("Content-Type", "text/html; charset=utf-8")
            self.finish((PAGE / "index.html").read_bytes())
            return
        name, cookie = self.at.door.cookie_name, self.at.door.cookie
        self.set_cookie(name, cookie, path="/", httponly=True, samesite="Strict")
        run = self.get_query_argument("run", self.at.name)
        self.redirect("/" + (f"?{urlencode({'run': run})}" if run else ""), status=303)


class Part(Guarded):
    """Style, script and icon of the page."""

    def get(self, name: str) -> None:
        """One of them."""
        self.set_header("Content-Type", f"{FILES[name]}; charset=utf-8")
        self.finish((PAGE / name).read_bytes())


class OneChunk(Guarded):
    """What is known of one chunk."""

    async def get(self) -> None:
        """It, as JSON; the sentence where there is none or the ledger is away."""
        run, number = self.get_query_argument("run"), self.get_query_argument("n")
        if not number.isascii() or not number.isdigit() or len(number) > 9:
            raise HTTPError(HTTPStatus.BAD_REQUEST, "n is the number of a chunk")
        try:
            found = await asyncio.to_thread(self._read, run, int(number))
        except MongosplitError as error:
            raise HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, error.message) from error
        if found is None:
            raise HTTPError(HTTPStatus.NOT_FOUND, "there is no such chunk")
        self.as_json(found)

    def _read(self, run: str, n: int) -> dict[str, Any] | None:
        with mongo.explained(self.at.mongo_url):
            return chunk_cells.one(self.at.ledger, run, n)


class Looks(Guarded):
    """Every look at a run from now on, as server-sent events."""

    gone = False

    def on_connection_close(self) -> None:
        """Nobody listens any more."""
        self.gone = True

    async def get(self) -> None:
        """First everything, then what has changed, until the browser leaves."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")
        number, before = 0, Look()
        with self.watches.watched(self.get_query_argument("run", "")) as watch:
            try:
                self.write(f"retry: {AGAIN_MILLISECONDS}\n\n")
                await self.flush()
                while not self.gone and not self.watches.ended.is_set():
                    seen = await watch.after(number, SILENT_SECONDS)
                    self.write(": still here\n\n" if seen is None else event(seen, before))
                    await self.flush()
                    if seen is not None:
                        number, before = seen.number, seen.look or before
            except StreamClosedError:
                self.gone = True


class Nothing(Guarded):
    """Every other address."""

    def prepare(self) -> None:
        """There is nothing, for those who are let in."""
        super().prepare()
        raise HTTPError(HTTPStatus.NOT_FOUND, NO_SUCH)


def application(dashboard: Dashboard) -> Application:
    """The pages by their addresses. To be called where the loop runs."""
    parts = "|".join(name.replace(".", r"\.") for name in FILES)
    routes: list[Any] = [(r"/", Page), (rf"/({parts})", Part)]
    routes += [(r"/api/chunk", OneChunk), (r"/api/looks", Looks)]
    return Application(
        routes,
        default_handler_class=Nothing,
        # An address may hold the token, and would be logged with it.
        log_function=lambda _: None,
        dashboard=dashboard,
        watches=Watches(dashboard.ledger, dashboard.mongo_url),
    )
