"""What other work does to a measurement: cores that it keeps busy, waits for a core."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ops.bench import meter


@dataclass(frozen=True)
class Reading:
    """Seconds at one moment: of the wall clock, and of CPU time that others have used."""

    wall: float
    others: float | None

    def since(self, before: Reading) -> Reading:
        """What has passed between the two."""
        known = self.others is not None and before.others is not None
        used = (self.others or 0.0) - (before.others or 0.0)
        return Reading(self.wall - before.wall, max(0.0, used) if known else None)

    def __add__(self, other: Reading) -> Reading:
        """Both, one after the other."""
        known = self.others is not None and other.others is not None
        used = (self.others or 0.0) + (other.others or 0.0)
        return Reading(self.wall + other.wall, used if known else None)

    @property
    def cores(self) -> float | None:
        """Cores that others kept busy, once this is a span of time; None where nobody tells."""
        return None if self.others is None or not self.wall else self.others / self.wall


def read() -> Reading:
    """The clocks now; `others` is None where the machine has no /proc."""
    clocks = meter.read(os.getpid())
    return Reading(clocks.wall, None if clocks.machine is None else clocks.machine - _ours())


def starved() -> float:
    """Seconds that the calling thread was ready and no core was free; 0 where nobody tells."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _ours() -> float:
    """CPU seconds of this process, of all below it, and of those they have waited for."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The program's name, in brackets, may hold anything.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended since
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        seconds[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while found := {pid for pid, above in parents.items() if above in ours} - ours:
        ours |= found
    return sum(seconds.get(pid, 0.0) for pid in ours)
