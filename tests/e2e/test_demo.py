"""The demo and the embedded servers behind the command line; neither leaves anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from producer.leash import leashed
from tests.conditions import until

USERS = 4000


class Marked:
    """A command whose whole family of processes is known by a mark in the environment."""

    def __init__(self, module: str, *arguments: str, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
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
        """The command lines of every living process with the mark."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                if f"FAMILY={self.mark}".encode() in (process / "environ").read_bytes():
                    line = (process / "cmdline").read_bytes()
                    found += [line.replace(b"\0", b" ").decode()] if line else []
            except OSError:
                continue
        return found


def test_the_demo_splits_verifies_sums_up_and_leaves_no_process(tmp_path: Path) -> None:
    demo = Marked("ops.demo", "--users", str(USERS), "--hostile", "0.01", folder=tmp_path)
    assert demo.process.wait(timeout=120) == 0, demo.said()
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


def test_dev_keeps_servers_running_and_other_commands_in_the_folder_find_them(
    tmp_path: Path,
) -> None:
    dev = Marked("ops.entry", "dev", folder=tmp_path)
    file = tmp_path / ".mongosplit" / "servers.env"
    until(lambda: file.exists() and "Ctrl-C" in dev.said())
    assert dev.said().startswith("MongoDB")
    check = Marked("ops.entry", "check", folder=tmp_path)
    assert check.process.wait(timeout=60) == 3, check.said()
    assert "there is no collection shop.users" in check.said()
    dev.process.send_signal(signal.SIGINT)
    dev.process.wait(timeout=60)
    assert not file.exists()
    assert dev.family() == []


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
