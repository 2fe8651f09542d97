"""The verb `dashboard`: a page in the browser that shows a run while it goes on."""

from __future__ import annotations

import click
from rich.text import Text

from mongosplit import mongo
from mongosplit.ledger.book import Ledger
from mongosplit.settings import Settings
from producer import console
from producer.connection import connected
from producer.dashboard import door as doors
from producer.dashboard import facts, server
from producer.dashboard.pages import Dashboard
from producer.ending import until_told
from producer.options import name_argument, settings_flags

PORT = 8777
ANSWER_SECONDS = 3.0
"""How long a look waits for MongoDB before the page says that it is away."""
APPLICATION = "mongosplit-dashboard"


@click.command("dashboard")
@name_argument("MIGRATION|RUN")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=PORT,
    show_default=True,
    help="where to listen; 0: any that is free",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="on which address; another than this machine's own needs a token of your choice",
)
@click.option(
    "--token",
    envvar=doors.VARIABLE,
    metavar="…",
    help="what opens the page, 16 letters or more; one is made where none is given "
    f"[env {doors.VARIABLE}, which other users of this machine cannot see]",
)
@settings_flags
@click.pass_context
def dashboard_(
    context: click.Context,
    name: str | None,
    settings: Settings,
    port: int,
    host: str,
    token: str | None,
) -> None:
    """Show a run in the browser: its chunks, rate, pace, live writes, quarantine and audit.

    It writes nothing. Without a name the newest run is shown; all can be chosen on the page.
    """
    doors.door(host, port, token or None)  # asked now, so that what is wrong is said first
    with (
        until_told("stopped; runs are not touched by it") as told,
        connected(settings, context.obj) as at,
    ):
        facts.find(at.ledger, name or "")
        with server.listen(host.strip("[]"), port) as listening:
            door = doors.door(host, listening.getsockname()[1], token or None)
            seconds = min(ANSWER_SECONDS, at.settings.server_seconds)
            url = at.settings.mongo_url
            with mongo.connect(url, seconds=seconds, application=APPLICATION) as client:
                ledger = Ledger.at(client, at.settings.ledger_database)
                console.data.print(Text(door.url))
                console.say("open this address; stop with Ctrl-C")
                server.serve(Dashboard(door, ledger, url, name or ""), listening, told)
