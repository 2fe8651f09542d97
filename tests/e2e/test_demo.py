"""The demo and the embedded servers behind the command line; neither leaves anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path

import pytest

from ops.compose import FILE, Service, made_up, read
from producer.leash import leashed
from tests.conditions import until

USERS = 4000


class Marked:
    """A command whose whole family of processes is known by a mark in the environment."""

    def __init__(self, module: str, *arguments: str, folder: Path) -> None:
        self.mark, self.folder = uuid.uuid4().hex, folder
        self.log = folder / f"{self.mark}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                leashed([sys.executable, "-m", module, *arguments], signal=signal.SIGKILL),
                env={**os.environ, "FAMILY": self.mark, "TMPDIR": str(folder)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text()

    def family(self) -> list[str]:
        """The command lines of every living process that was begun by the command."""
        return [line for _, line in self.processes()]

    def processes(self) -> list[tuple[int, str]]:
        """Number and command line of every living process with the mark, or that says what it
        says into the folder: services have an environment of their own.
        """
        found = []
        for process in Path("/proc").iterdir():
            try:
                marked = f"FAMILY={self.mark}".encode() in (process / "environ").read_bytes()
                if marked or (process / "fd" / "1").readlink().is_relative_to(self.folder):
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found += [(int(process.name), line)] if line else []
            except OSError:
                continue
        return found


def test_the_demo_splits_verifies_sums_up_and_leaves_no_process(tmp_path: Path) -> None:
    demo = Marked("ops.demo", "--users", str(USERS), "--hostile", "0.01", folder=tmp_path)
    assert demo.process.wait(timeout=300) == 0, demo.said()
    said = demo.said()
    assert "users-1: verified" in said
    assert "every byte of all" in said
    assert "quarantined" in said
    assert "next" in said
    assert demo.family() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_a_demo_stopped_in_the_middle_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    demo = Marked("ops.demo", "--users", str(USERS), folder=tmp_path)
    until(lambda: any("celery" in line for line in demo.family()), seconds=60)
    if number is signal.SIGINT:
        # As a terminal does: to the whole foreground group.
        os.killpg(demo.process.pid, number)
    else:
        demo.process.kill()
    demo.process.wait(timeout=60)
    until(lambda: not demo.family(), seconds=60, what=str(demo.family()))


@pytest.mark.parametrize("only", [(), ("--servers-only",)], ids=["everything", "servers only"])
def test_dev_starts_what_compose_would_and_other_commands_in_the_folder_find_it(
    tmp_path: Path, only: tuple[str, ...]
) -> None:
    dev = Marked("ops.entry", "dev", *only, folder=tmp_path)
    file = tmp_path / ".mongosplit" / "servers.env"
    until(lambda: file.exists() and "Ctrl-C" in dev.said())
    assert dev.said().startswith("MongoDB")
    services = {} if only else read(FILE, made_up("nobody")).ours
    for name in services:
        until(partial(is_run, dev, services[name]), what=f"{name} not among {dev.family()}")
        assert f"\n{name} " in dev.said()
    assert any("celery" in line for line in dev.family()) is not bool(only)
    check = Marked("ops.entry", "check", folder=tmp_path)
    assert check.process.wait(timeout=60) == 3, check.said()
    assert "there is no collection shop.users" in check.said()
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(timeout=60) == 0
    assert not file.exists()
    assert dev.family() == []


def is_run(dev: Marked, service: Service) -> bool:
    """Whether one of the processes has the service's words, but for what is made local."""
    words = {word for word in service.command if not {*"./:%="} & {*word}}
    return any(words <= {*map(last_part, line.split())} for line in dev.family())


def last_part(word: str) -> str:
    return word.rpartition("/")[2]


def test_dev_starts_a_service_again_that_has_ended(tmp_path: Path) -> None:
    dev = Marked("ops.entry", "dev", folder=tmp_path)

    def flowers() -> list[int]:
        return [number for number, line in dev.processes() if "flowerconfig" in line]

    [first] = until(flowers)
    until(lambda: "Ctrl-C" in dev.said())
    os.kill(first, signal.SIGKILL)
    until(lambda: flowers() not in ([], [first]), what=dev.said())
    assert "flower ended and is started again" in dev.said()
    dev.process.send_signal(signal.SIGTERM)
    assert dev.process.wait(timeout=60) == 0


def test_without_any_server_given_a_command_runs_on_embedded_ones_of_its_own(
    tmp_path: Path,
) -> None:
    # What a killed `dev` leaves behind names servers that are gone.
    home = tmp_path / ".mongosplit"
    home.mkdir()
    (home / "servers.env").write_text(
        "# written by process 999999999\nMONGOSPLIT_MONGO_URL=mongodb://127.0.0.1:1/\n"
        "MONGOSPLIT_REDIS_URL=redis://127.0.0.1:1/\n"
    )
    check = Marked("ops.entry", "check", folder=tmp_path)
    assert check.process.wait(timeout=60) == 3, check.said()
    assert "embedded ones are used" in check.said()
    assert not (home / "servers.env").exists()
    assert check.family() == []
