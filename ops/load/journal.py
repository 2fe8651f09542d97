"""The journal of the application: what it was told about its writes, and what follows for a source.

An append-only file of BSON documents `{id, kind, at, before, after}`; an absent document is null.
`intended` stands before each write, so that a writer that is killed leaves both states possible.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeAlias

from pymongo.collection import Collection

from mongosplit import raw
from mongosplit.mongo import raw_documents

State: TypeAlias = bytes | None
"""The bytes of a document; None when there is none."""

INTENDED, ACKNOWLEDGED, READ = "intended", "acknowledged", "read"
LOST = "lost"
UNACKNOWLEDGED = "unacknowledged"


class Journal:
    """Writes the journal; threads may share it. Each entry is with the system when a call returns.

    A killed process loses none of them; a power cut may. What a killed writer left half written is
    cut off when the journal is opened again.

    Raises:
        OSError: the file cannot be opened or written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = Lock()
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        whole = sum(map(len, _entries(file)))
        os.ftruncate(self._descriptor, whole)
        self.is_new = not whole

    def intended(self, key: raw.Value, before: State, after: State) -> None:
        """A write is about to be sent: until more is known, both states are possible."""
        self._append(key, INTENDED, before, after)

    def acknowledged(self, key: raw.Value, after: State) -> None:
        """The server has told that the write is done, and what the document is now."""
        self._append(key, ACKNOWLEDGED, None, after)

    def read(self, key: raw.Value, state: State) -> None:
        """The document was read, and nobody can be writing it."""
        self._append(key, READ, None, state)

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, key: raw.Value, kind: str, before: State, after: State) -> None:
        at = datetime.now(UTC).replace(tzinfo=None)
        fields = [("id", key), ("kind", raw.encode(kind)), ("at", raw.encode(at))]
        left = raw.build([*fields, ("before", _value(before)), ("after", _value(after))])
        with self._lock:
            while left:
                left = left[os.write(self._descriptor, left) :]


@dataclass
class Known:
    """What a journal says about one document: the states it may be in, and all it ever was in."""

    possible: set[State] = field(default_factory=set)
    past: set[int] = field(default_factory=set)
    contradicted: str = ""


@dataclass(frozen=True)
class Difference:
    """A document that is not in a state it may be in.

    `kind` is `lost` (an acknowledged write is gone: an earlier state is back) or `unacknowledged`
    (a state that nobody was told of); `where` is `source`, or `journal` when the application itself
    met it. The document is absent when `state` is None.
    """

    key: raw.Value
    kind: str
    where: str
    state: State

    @property
    def sentence(self) -> str:
        """The difference without any value of the document but its `_id`."""
        now = "absent" if self.state is None else f"{len(self.state)} bytes"
        return f"{self.where}: {self.key.decode()!r} is {self.kind} ({now})"


def known(file: Path) -> dict[raw.Value, Known]:
    """For each `_id` in the journal the states its document may be in; the last one settles.

    An entry that was not written to its end is ignored.
    """
    return _replayed(file)[0]


def compare(file: Path, source: Collection[Any]) -> list[Difference]:
    """What is wrong with a source that the journal's application alone has written.

    Documents that the journal does not know are wrong too: the application enters every document it
    finds when it begins.
    """
    states, differences = _replayed(file)
    left = set(states)
    for document in raw_documents(source.find_raw_batches({})):
        key = raw.field(document, "_id")
        assert key is not None  # every stored document has one
        left.discard(key)
        differences += _difference(key, states.get(key, Known()), document, "source")
    for key in left:
        differences += _difference(key, states[key], None, "source")
    return differences


def _replayed(file: Path) -> tuple[dict[raw.Value, Known], list[Difference]]:
    states: dict[raw.Value, Known] = defaultdict(Known)
    differences: list[Difference] = []
    for entry in _entries(file):
        fields = dict(raw.elements(entry))
        key, kind, after = fields["id"], fields["kind"].decode(), _state(fields["after"])
        one = states[key]
        if kind == INTENDED:
            one.possible = (one.possible or {_state(fields["before"])}) | {after}
        else:
            if one.possible:
                differences += _difference(key, one, after, "journal")
            one.possible = {after}
        one.past |= {hash(state) for state in one.possible}
    return dict(states), differences


def _difference(key: raw.Value, one: Known, state: State, where: str) -> list[Difference]:
    if state in one.possible:
        return []
    kind = LOST if state is None or hash(state) in one.past else UNACKNOWLEDGED
    return [Difference(key, kind, where, state)]


def _entries(file: Path) -> Iterator[bytes]:
    """The entries of a journal up to the first that is not whole."""
    with file.open("rb") as journal:
        while len(head := journal.read(4)) == 4:
            entry = head + journal.read(int.from_bytes(head, "little") - 4)
            if len(entry) < int.from_bytes(head, "little"):
                return
            yield entry


def _value(state: State) -> raw.Value:
    return raw.encode(None) if state is None else raw.Value(0x03, state)


def _state(value: raw.Value) -> State:
    return None if value.is_null else value.data
