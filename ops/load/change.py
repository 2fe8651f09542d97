"""What an update makes of a document, in the very bytes that the server will store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mongosplit import raw

REMOVED = object()
"""As the value of a path: the field is taken away."""


class _Branch(dict[str, Any]):
    """Changes below a path, unlike a document that is a value."""


def update_of(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The update command for changes by dotted path.

    The paths are sorted, or servers before 5.0 would append new fields in another order.
    """
    paths = sorted(changes, key=lambda path: path.split("."))
    put = {path: changes[path] for path in paths if changes[path] is not REMOVED}
    taken = {path: "" for path in paths if changes[path] is REMOVED}
    return {name: part for name, part in (("$set", put), ("$unset", taken)) if part}


def changed(document: bytes, changes: Mapping[str, Any]) -> bytes:
    """The document after `update_of` these changes; no path may lead through an array."""
    tree = _Branch()
    for path, value in changes.items():
        *parents, last = path.split(".")
        branch = tree
        for name in parents:
            branch = branch.setdefault(name, _Branch())
        branch[last] = value
    return _changed(document, tree)


def _changed(document: bytes, tree: _Branch) -> bytes:
    left = dict(sorted(tree.items()))
    fields = []
    for name, value in raw.elements(document):
        change = left.pop(name, value)
        if change is not REMOVED:
            fields.append((name, _value(change, value.data)))
    empty = raw.build([])
    fields += [(name, _value(new, empty)) for name, new in left.items() if new is not REMOVED]
    return raw.build(fields)


def _value(change: Any, present: bytes) -> raw.Value:
    if isinstance(change, raw.Value):  # untouched
        return change
    if isinstance(change, _Branch):
        return raw.Value(0x03, _changed(present, change))
    return raw.encode(change)
