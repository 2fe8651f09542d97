"""Embedded servers for the command line, started when none are given; `dev` adds our services."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import click

from mongosplit.settings import HOME, PREFIX, SERVERS_FILE, Settings, read_settings
from ops.compose import FILE, Composition, made_up, read
from ops.embedded import EmbeddedServers
from ops.launched import Launched, prepared
from producer import console
from producer.connection import given
from producer.ending import until_told

DATABASE = "shop"
USER = "dev"
LOOK_SECONDS = 2.0
END = "Ctrl-C stops them; the data stays"
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
        urls = {"MONGO_URL": servers.mongo_url, "REDIS_URL": servers.redis_url}
        found = {PREFIX + name: value for name, value in (urls | {"DATABASE": DATABASE}).items()}
        with _told(found) as file:
            yield file


@contextmanager
def _told(environment: Mapping[str, str]) -> Iterator[Path]:
    lines = [f"{key}={value}\n" for key, value in environment.items() if key.startswith(PREFIX)]
    SERVERS_FILE.parent.mkdir(exist_ok=True)
    SERVERS_FILE.touch(mode=0o600)
    SERVERS_FILE.write_text(f"{_OWNER}{os.getpid()}\n" + "".join(lines))
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
@click.option("--folder", type=click.Path(path_type=Path), default=HOME, help="where data is kept")
@click.option("--servers-only", is_flag=True, help="MongoDB and Redis, and nobody who uses them")
def dev(folder: Path, servers_only: bool) -> None:
    """Start here what docker-compose.yml would, on embedded servers, until Ctrl-C."""
    with until_told("stopped; the data stays") as told:
        if servers_only:
            with running(folder / "servers") as file:
                _show(file)
                console.say(END)
                told.wait()
            return
        composition = read(FILE, made_up(USER))
        with (
            prepared(composition, folder.absolute()) as launched,
            _told(launched.environment("producer")) as file,
        ):
            _show(file)
            _keep_running(launched, composition, told)


def _keep_running(launched: Launched, composition: Composition, told: Event) -> None:
    for name, service in composition.ours.items():
        launched.start(name)
        answers = (f"http://{launched.address(name, port)}" for port in service.ports)
        console.data.print(f"{name:<15} {next(answers, launched.log(name))}", highlight=False)
    _, _, password = launched.environment("flower")["FLOWER_BASIC_AUTH"].partition(":")
    console.say(f"Flower asks for a user and a password: {USER} and {password}")
    console.say(END)
    while not told.wait(LOOK_SECONDS):
        for name in launched.ended():
            # As `restart: always` has it.
            console.say(f"{name} ended and is started again: {launched.last_said(name)}")
            launched.start(name)


def _show(file: Path) -> None:
    ready = _with_servers(read_settings(), file)
    for what, value in (
        ("MongoDB", ready.mongo_url),
        ("Redis", ready.redis_url),
        ("database", ready.data_database),
    ):
        console.data.print(f"{what:<15} {value}", highlight=False)
    console.say(
        "every mongosplit command and worker typed in this folder finds them; for others:\n"
        f"  set -a; . {SERVERS_FILE}; set +a\n"
        f"some users to split: python -m ops.seed --mongo-url '{ready.mongo_url}'"
    )
