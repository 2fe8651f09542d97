"""What a stretch of time cost: seconds, the server's CPU, and what others took of the machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Reading:
    """Clocks at one moment, in seconds; None where the machine has no /proc."""

    wall: float
    here: float
    mongod: float | None
    machine: float | None

    def since(self, before: Reading) -> Reading:
        """What has passed between the two."""
        return Reading(
            self.wall - before.wall,
            self.here - before.here,
            _difference(self.mongod, before.mongod),
            _difference(self.machine, before.machine),
        )

    def foreign(self, clients: float) -> float | None:
        """Cores that neither mongod, nor this process, nor the clients (CPU seconds) kept busy."""
        if self.mongod is None or self.machine is None:
            return None
        return max(0.0, self.machine - self.mongod - self.here - clients) / self.wall


def read(mongod: int) -> Reading:
    """The clocks now; `mongod` is the server's process id."""
    return Reading(time.perf_counter(), time.process_time(), _of_process(mongod), _of_machine())


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _of_process(pid: int) -> float | None:
    stat = Path("/proc", str(pid), "stat")
    if not stat.exists():
        return None
    # The program's name, in brackets, may hold anything; behind it user and system time follow.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _of_machine() -> float | None:
    """Busy time of all cores, with what the host took away from them."""
    if not _STAT.exists():
        return None
    user, nice, system, _idle, _waiting, *interrupts_and_stolen = (
        int(ticks) for ticks in _STAT.read_text().partition("\n")[0].split()[1:9]
    )
    busy = user + nice + system + sum(interrupts_and_stolen)
    return busy / os.sysconf("SC_CLK_TCK")
