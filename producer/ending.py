"""Ending what lives on until it is told to: by Ctrl-C, or by SIGTERM from who keeps it running."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from producer import console

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def until_told(said: str = "stopped; the ledger knows where to go on") -> Iterator[Event]:
    """An event that is set when this process is told to end, which is no failure; then it is said.

    An exception would be lost where it meets a destructor, so the first signal raises none. Who
    cannot wait sends a second one.
    """
    told = Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    before = {number: signal.signal(number, tell) for number in SIGNALS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if said and told.is_set():
        console.say(said)
