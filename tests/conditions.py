"""Waiting in tests: on a condition, with a deadline, never for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, seconds: float = 90.0, what: str = "") -> T:
    """The condition's first truthy value; AssertionError when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, what or f"not within {seconds:g} s"
        Event().wait(0.05)
