"""Players: real processes that are killed, frozen and started again while a run lives."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from producer.leash import leashed

WHOLE, MAIN, CHILD = "whole", "main", "child"
"""What of a player is killed: all its processes, the first, or one that the first has forked."""


@dataclass
class Player:
    """A process that may be started again and again; what it says goes to a file.

    `line` is asked for the command at each start, with the number of the start, from 1. Start it
    from a thread that lives as long as the player: it is killed when that thread ends.
    """

    name: str
    line: Callable[[int], Sequence[str]]
    environment: Mapping[str, str]
    folder: Path
    starts: int = 0
    frozen: bool = False
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    groups: list[int] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """The file with what it said."""
        return self.folder / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        """Whether its first process runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it (again) unless it runs."""
        if self.alive:
            return
        self.starts += 1
        self.wanted, self.frozen = True, False
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                leashed(self.line(self.starts), signal=signal.SIGKILL),
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.groups.append(self.process.pid)

    def kill(self, what: str) -> bool:
        """Kill it, or a part of it, with SIGKILL; False when there is no such part."""
        if self.process is None or not self.alive:
            return False
        if what == CHILD:
            children = _children(self.process.pid)
            if not children:
                return False
            with suppress(ProcessLookupError):
                os.kill(children[-1], signal.SIGKILL)
            return True
        self.wanted = False
        if what == WHOLE:
            self._signal(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        return True

    def freeze(self) -> bool:
        """Stop it with SIGSTOP, its children too; False when it does not run or is stopped."""
        if self.process is None or not self.alive or self.frozen:
            return False
        self.frozen = True
        self._signal(self.process.pid, signal.SIGSTOP)
        return True

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        if self.process is not None:
            self._signal(self.process.pid, signal.SIGCONT)

    def ask_to_end(self) -> None:
        """Send SIGTERM to its first process; it is not missed when it has ended."""
        self.wanted = False
        self.thaw()
        if self.process is not None and self.alive:
            self.process.terminate()

    def end(self, seconds: float) -> bool:
        """Ask it to end, and kill after so long all that is left of it; True when it has ended."""
        self.ask_to_end()
        ended = True
        if self.process is not None:
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                ended = False
                self.process.kill()
                self.process.wait()
        for group in self.groups:
            self._signal(group, signal.SIGKILL)
        return ended

    def last_words(self, lines: int = 2) -> str:
        """The end of what it said."""
        if not self.log.exists():
            return ""
        said = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in said[-lines:])

    def _signal(self, group: int, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _children(pid: int) -> list[int]:
    """The processes that a process has started, as Linux lists them."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]
    return []
