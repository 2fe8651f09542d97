"""Ending what lives on until it is told to: by Ctrl-C, or by SIGTERM from who keeps it running."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from producer import console


@contextmanager
def until_told() -> Iterator[None]:
    """Live until told to end, which is no failure: what is within ends as on Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        console.say("stopped; the ledger knows where to go on")
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
