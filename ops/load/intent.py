"""One write the application is about to send: to whom, and from which state to which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mongosplit import raw
from ops.load.change import changed
from ops.load.journal import State


@dataclass(frozen=True)
class Intent:
    """A write of one document.

    Without `before` it is an insert, without `after` a deletion, with `changes` an update by path,
    otherwise a replacement. `username` is looked up first: a login.
    """

    operation: str
    key: raw.Value
    before: State
    after: State
    changes: Mapping[str, Any] | None = None
    username: raw.Value | None = None


def update(
    operation: str,
    key: raw.Value,
    before: bytes,
    changes: Mapping[str, Any],
    *,
    username: raw.Value | None = None,
) -> Intent:
    """An update by dotted path, with the state that it leads to."""
    return Intent(operation, key, before, changed(before, changes), changes, username)
