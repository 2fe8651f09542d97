"""Exhaustive search: every state that can be reached, breadth first, so that traces are shortest.

A state is remembered by the 64-bit hash of its canonical form (states that differ only in which of
two equal workers does what are one state), as TLC does; with a million states two of them share a
hash with a probability of about 3e-8. Liveness is checked as `no dead end`: from every state some
quiescent state can still be reached.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple, Protocol

Label = tuple[Any, ...]
"""One step, in the vocabulary of `schedules.py`."""


class Model(Protocol):
    """What can be searched."""

    def initial(self) -> Any: ...
    def steps(self, state: Any) -> Iterable[tuple[Label, Any]]: ...
    def canonical(self, state: Any) -> Hashable: ...
    def is_quiescent(self, state: Any) -> bool: ...
    def fault(self, state: Any) -> str: ...


class Verdict(NamedTuple):
    """What a search has found; `why` is empty when everything holds."""

    why: str
    trace: list[Label]
    states: int
    steps: int
    quiescent: int
    depth: int
    seconds: float


class TooMany(Exception):
    """More states than allowed."""


class _Seen:
    """The states found so far, numbered in the order of discovery."""

    def __init__(self) -> None:
        self.number: dict[int, int] = {}
        self.parent = array("l")
        self.successors: list[array[int]] = []
        self.quiescent = bytearray()

    def chain(self, last: int) -> list[int]:
        """The hashes of the states on the shortest way to one, the initial state left out."""
        hashes = list(self.number)
        found = []
        while last:
            found.append(hashes[last])
            last = self.parent[last]
        return found[::-1]


def explore(model: Model, most: int = 20_000_000) -> Verdict:
    """Search everything; ends at the first fault or dead end, with the shortest way to it.

    Raises:
        TooMany: more than `most` states.
    """
    started = time.perf_counter()
    seen = _Seen()
    gc.disable()  # nothing here is cyclic, and looking for cycles takes a fifth of the time
    try:
        why, last, depth = _spread(model, seen, most)
    finally:
        gc.enable()
    if not why:
        last = _dead_end(seen)
        why = "dead end: from here on it can never be quiescent" if last >= 0 else ""
    return Verdict(
        why,
        replay(model, seen.chain(last)) if why else [],
        len(seen.number),
        sum(map(len, seen.successors)),
        sum(seen.quiescent),
        depth,
        time.perf_counter() - started,
    )


def _spread(model: Model, seen: _Seen, most: int) -> tuple[str, int, int]:
    first = model.canonical(model.initial())
    why = _discover(model, seen, first, 0)
    frontier, depth = [first], 0
    while frontier and not why:
        depth += 1
        following: list[Any] = []
        for state in frontier:
            why = _expand(model, seen, state, following)
            if why:
                return why, len(seen.number) - 1, depth
        if len(seen.number) > most:
            raise TooMany(f"more than {most:,} states")
        frontier = following
    return why, 0, depth


def _expand(model: Model, seen: _Seen, state: Any, following: list[Any]) -> str:
    here, targets = len(seen.successors), array("l")
    seen.successors.append(targets)
    for _, reached in model.steps(state):
        form = model.canonical(reached)
        known = seen.number.get(hash(form))
        if known is None:
            targets.append(len(seen.number))
            if why := _discover(model, seen, form, here):
                return why
            following.append(form)
        else:
            targets.append(known)
    return ""


def _discover(model: Model, seen: _Seen, state: Any, parent: int) -> str:
    seen.number[hash(state)] = len(seen.number)
    seen.parent.append(parent)
    seen.quiescent.append(model.is_quiescent(state))
    return model.fault(state)


def _dead_end(seen: _Seen) -> int:
    """The first state that cannot become quiescent any more, or -1."""
    can = bytearray(seen.quiescent)
    changed = True
    while changed:
        changed = False
        for state in range(len(can) - 1, -1, -1):
            if not can[state] and any(can[reached] for reached in seen.successors[state]):
                can[state] = 1
                changed = True
    return can.find(0)


def replay(model: Model, hashes: list[int]) -> list[Label]:
    """The labels along a way, each worker keeping its number from the first step to the last."""
    state, labels = model.initial(), []
    for wanted in hashes:
        for label, reached in model.steps(state):
            if hash(model.canonical(reached)) == wanted:
                labels.append(label)
                state = reached
                break
    return labels


def told(trace: Iterable[Label]) -> str:
    """The trace for a reader, one numbered step on each line."""
    return "".join(f"  {n:2d}. {_sentence(label)}\n" for n, label in enumerate(trace, 1))


def _sentence(label: Label) -> str:
    who, *rest = label
    if who in ("app", "foreign"):
        what = f"writes {rest[1]}" if rest[1] else "deletes it"
        return f"{'application' if who == 'app' else 'foreign writer'}: id {rest[0]}: {what}"
    if who == "ask":
        return f"operator: asks to {rest[0]} chunk {rest[1]}"
    number = "" if who == "follower" else f" {rest.pop(0)}"
    said = " ".join(str(list(word)) if isinstance(word, tuple) else str(word) for word in rest)
    return f"{who}{number}: {said}"
