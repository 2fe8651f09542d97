"""Embedded servers for the command line: started when none are given, or kept running by `dev`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import click

from mongosplit.settings import HOME, PREFIX, SERVERS_FILE, Settings, read_settings
from ops.embedded import EmbeddedServers
from producer import console
from producer.connection import given

DATABASE = "shop"
_OWNER = "# written by process "


@contextmanager
def embedded_unless_given(settings: Settings) -> Iterator[Settings]:
    """The given servers; embedded ones for as long as the command runs when none are given.

    Raises:
        UsageError: only one of the two is given.
    """
    if settings.mongo_url or settings.redis_url:
        with given(settings) as ready:
            yield ready
        return
    console.say(f"no servers are given: embedded ones are used, data in {HOME}/", style="dim")
    with running(HOME / "servers") as file:
        yield _with_servers(settings, file)


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Embedded servers, told to other commands in this folder by the servers file."""
    with EmbeddedServers(folder) as servers:
        SERVERS_FILE.parent.mkdir(exist_ok=True)
        SERVERS_FILE.write_text(
            f"{_OWNER}{os.getpid()}\n"
            f"{PREFIX}MONGO_URL={servers.mongo_url}\n"
            f"{PREFIX}REDIS_URL={servers.redis_url}\n"
            f"{PREFIX}DATABASE={DATABASE}\n"
        )
        try:
            yield SERVERS_FILE
        finally:
            SERVERS_FILE.unlink(missing_ok=True)


def _with_servers(settings: Settings, file: Path) -> Settings:
    found = dict(
        line.removeprefix(PREFIX).split("=", 1)
        for line in file.read_text().splitlines()
        if line.startswith(PREFIX)
    )
    servers = {name.lower(): value for name, value in found.items()}
    if settings.database:
        del servers["database"]
    return settings.model_copy(update=servers)


def forget_stale() -> None:
    """Remove the servers file of a process that is gone: its servers went with it."""
    if not SERVERS_FILE.exists():
        return
    owner = SERVERS_FILE.read_text().partition("\n")[0].removeprefix(_OWNER)
    if owner.isdigit() and Path("/proc/self").exists() and not Path("/proc", owner).exists():
        SERVERS_FILE.unlink(missing_ok=True)


@click.command("dev")
@click.option("--folder", type=click.Path(path_type=Path), help="where the data is kept")
def dev(folder: Path | None) -> None:
    """Keep an embedded replica set and Redis running for playing around, until Ctrl-C."""
    with running(folder or HOME / "servers") as file:
        ready = _with_servers(read_settings(), file)
        console.data.print(f"MongoDB   {ready.mongo_url}")
        console.data.print(f"Redis     {ready.redis_url}")
        console.data.print(f"database  {ready.data_database}")
        console.say(
            "every mongosplit command and worker typed in this folder finds them; for others:\n"
            f"  set -a; . {SERVERS_FILE}; set +a\n"
            f"some users to split: python -m ops.seed --mongo-url '{ready.mongo_url}'\n"
            "Ctrl-C stops them; the data stays"
        )
        Event().wait()
