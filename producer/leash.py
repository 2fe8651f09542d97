"""A leash: a child process that ends when the process that started it is gone, even by kill -9."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from signal import SIGTERM

# Runs in front of every leashed command, so it imports next to nothing: about 15 ms.
_LEASH = """
import os, sys
signal, parent, *command = sys.argv[1:]
try:
    if sys.platform == "linux":
        import ctypes
        libc, PR_SET_PDEATHSIG = ctypes.CDLL(None, use_errno=True), 1
        if libc.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        # A parent that died before prctl is never announced.
        if os.getppid() != int(parent):
            sys.exit(128 + int(signal))
    os.execvp(command[0], command)
except OSError as error:
    sys.stderr.write(f"leash: cannot run {command[0]}: {error.strerror}\\n")
    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
"""


def leashed(command: Sequence[str], *, signal: int = SIGTERM) -> list[str]:
    """Return `command` wrapped so that it gets `signal` when the process that wraps it dies.

    Spawn the result from the same process, and from a thread that lives as long as the command
    should: to Linux, the death of the thread is the death of the parent. The command keeps the
    process id it is spawned with; its own children are not leashed. Elsewhere than on Linux there
    is no leash. A command that cannot be run ends with status 127 (not found) or 126.
    """
    python = [sys.executable, "-I", "-S", "-c", _LEASH]
    return [*python, str(int(signal)), str(os.getpid()), *command]
