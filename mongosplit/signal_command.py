"""The operator's own command as a health signal: started without a shell, bounded, never left."""

from __future__ import annotations

import math
import os
import select
import shlex
import shutil
import signal as unix_signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from mongosplit.errors import UsageError
from mongosplit.signal_thresholds import SIGNALS, Level, Reading, Threshold, weigh

NAME = "command"
SECONDS = 2.0
"""Longest time the command may take; the throttle takes its verdict every second."""

OUTPUT_BYTES = 4096
"""As much of the output is kept as a first line may need; the rest is read and dropped."""

_TICK = 0.02


@dataclass(frozen=True)
class CommandLine:
    """A program and its arguments, as the operator wrote them."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> CommandLine:
        """Split the text as a shell would, without one.

        Raises:
            UsageError: nothing is there, a quotation is open, or no such program can be run.
        """
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise UsageError(
                "the throttle's command cannot be split into words",
                hint="close every quotation mark",
            ) from error
        if not words:
            raise UsageError(
                "the throttle's command is empty", hint="give a program and its arguments"
            )
        if shutil.which(words[0]) is None:
            raise UsageError(
                f"the throttle's command {words[0]!r} is not there or is not executable",
                hint="give the full path of a program that this user may run",
            )
        return cls(words)


def read_command(line: CommandLine, threshold: Threshold, *, seconds: float = SECONDS) -> Reading:
    """Run the command; any answer but exit code 0 with nothing or a number is a hard stop."""
    try:
        process = subprocess.Popen(
            line.words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return _stops(f"command cannot be started: {(error.strerror or 'unknown').lower()}")
    with process:
        try:
            output = _output(process, time.monotonic() + seconds)
        finally:
            # Its children too, even after a good end: one left each second would pile up.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, unix_signal.SIGKILL)
        code = process.wait()
    if output is None:
        return _stops(f"command was killed after {seconds:g} s without an end")
    if code < 0:
        return _stops(f"command was ended by signal {-code} (expected exit code 0)")
    if code:
        return _stops(f"command exited with {code} (expected 0)")
    return _weighed(output, threshold)


def _output(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """The beginning of what the command wrote until it ended; None when it did not end in time."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    kept, open_still = b"", True
    while True:
        ended = _has_ended(process)
        wait = 0.0 if ended else min(_TICK, max(0.0, deadline - time.monotonic()))
        ready = bool(select.select([pipe] if open_still else [], [], [], wait)[0])
        if ready:
            block = os.read(pipe, 65_536)
            open_still = bool(block)
            kept = (kept + block)[:OUTPUT_BYTES]
        if ended and not (ready and open_still):
            return kept
        if time.monotonic() >= deadline:
            return None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    # Not reaped yet, so that its number still means its own group when that is killed.
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, how) is not None


def _weighed(output: bytes, threshold: Threshold) -> Reading:
    first = output.partition(b"\n")[0].strip()
    if not output.strip():
        return Reading(NAME, None, SIGNALS[NAME].unit, Level.OK, "command is content")
    try:
        number = float(first)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        return _stops("command wrote a first line that is not a number")
    return weigh(NAME, number, threshold)


def _stops(sentence: str) -> Reading:
    return Reading(NAME, None, SIGNALS[NAME].unit, Level.HARD, sentence)
