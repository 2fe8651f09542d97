"""The process that compares: verify, which looks again at what differs until it can tell why.

It remembers the ids that differ, how many entries of the log its position lies behind the look, the
ids written since that look, the row as first seen, the tampered ids it owes a report, and those it
has found. `Written since` and `owed` are what the log and an onlooker would say; no step of verify
reads them except where it asks the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tests.model import safeguards as safe
from tests.model import states as the
from tests.model.store import AT, KIND, MEMORY, TXN, Proc, bits

if TYPE_CHECKING:
    from tests.model.protocol import Protocol
    from tests.model.states import State, Step

IDLE, WAITS, WAITS_DIRTY, LOOKS, RECORDS = range(5)


class Memory(NamedTuple):
    """What verify knows, and what is known of it."""

    chunk: int
    differing: int
    behind: int
    since: int
    state: int
    written: int
    owed: int
    found: int


def passed(proc: Proc, count: int) -> Proc:
    """The follower's saved position has moved on by so many entries."""
    if proc[KIND] != the.VERIFY or not proc[MEMORY]:
        return proc
    memory = Memory(*proc[MEMORY])
    return _with(proc, memory._replace(behind=max(0, memory.behind - count)))


def notices(proc: Proc, sources: int, tampered: int) -> Proc:
    """These sources were written; these ids are still as a foreign writer left them."""
    if proc[KIND] != the.VERIFY or not proc[MEMORY]:
        return proc
    memory = Memory(*proc[MEMORY])
    since = memory.since | sources & memory.differing
    return _with(proc, memory._replace(since=since, owed=memory.owed & tampered))


def _with(proc: Proc, memory: Memory) -> Proc:
    return (proc[KIND], proc[AT], proc[TXN], memory)


def steps(model: Protocol, state: State, number: int) -> Iterator[Step]:
    """What verify can do next."""
    proc = state.procs[number]
    if proc[AT] == IDLE:
        if state.left[the.VERIFIES]:
            for c in model.chunks:
                if state.store[model.row + c].state in the.IN_FORCE:
                    yield _first_look(model, state, number, c)
    elif proc[AT] == RECORDS:
        yield from _record(model, state, number, Memory(*proc[MEMORY]))
    elif proc[AT] == LOOKS:
        yield _look(model, state, number, Memory(*proc[MEMORY]))
    else:
        yield from _wait(model, state, number, Memory(*proc[MEMORY]))


def _first_look(model: Protocol, state: State, number: int, c: int) -> Step:
    row = state.store[model.row + c]
    differing = _differing(model, state, model.of_chunk[c])
    owed = state.tampered & differing
    memory = Memory(c, differing, len(state.log), 0, row.state, row.written, owed, 0)
    state = model.spent(state, the.VERIFIES)
    if differing and safe.VERIFY_AGAIN in model.off:
        state = _judged(model, state, differing)
        after = _told(model, state, number, memory._replace(found=differing, differing=0))
    else:
        after = _go_on(model, state, number, memory)
    return ("verify", number, "look", c), after


def _differing(model: Protocol, state: State, ids: list[int], state_first: int = -1) -> int:
    def differs(i: int) -> bool:
        expected = model.expected(state.store, i)
        if state_first in the.IN_FORCE:
            expected = the.DERIVED[state.store[i]]
        return expected != model.parts(state.store, i)

    return bits(i for i in ids if differs(i))


def _wait(model: Protocol, state: State, number: int, memory: Memory) -> Iterator[Step]:
    dirty_first = safe.VERIFY_ORDER in model.off
    at = state.procs[number][AT]
    if (at == WAITS) != dirty_first:
        passes, label = not memory.behind, "passed"
    else:
        passes = not any(state.store[model.dirty + i] for i in _ids(model, memory.differing))
        label = "not dirty"
    if passes:
        moved = model.at(state, number, WAITS_DIRTY if at == WAITS else LOOKS, (), memory)
        yield ("verify", number, label), moved


def _look(model: Protocol, state: State, number: int, memory: Memory) -> Step:
    first = memory.state if safe.VERIFY_STATE in model.off else -1
    differing = _differing(model, state, _ids(model, memory.differing), first)
    written = 0 if safe.VERIFY_ASKS in model.off else memory.since
    state = _judged(model, state, differing & ~written)
    found = memory.found | differing & ~written
    stays = 0 if safe.VERIFY_KEEPS in model.off else differing & written
    owed = memory.owed | state.tampered & differing
    again = memory._replace(differing=stays, behind=len(state.log), since=0, owed=owed, found=found)
    return ("verify", number, "look again"), _go_on(model, state, number, again)


def _judged(model: Protocol, state: State, found: int) -> State:
    """A mismatch is real when a foreign writer made it and nobody has written since."""
    if wrong := _ids(model, found & ~state.tampered):
        return state._replace(fault=f"verify reports a mismatch of id {wrong[0]}, which is none")
    return state


def _go_on(model: Protocol, state: State, number: int, memory: Memory) -> State:
    if memory.differing:
        return model.at(state, number, WAITS, (), memory)
    if memory.found:
        return _told(model, state, number, memory)
    return model.at(state, number, RECORDS, (), memory)


def _told(model: Protocol, state: State, number: int, memory: Memory) -> State:
    """The end of a verify that reports mismatches."""
    if missed := _ids(model, memory.owed & ~memory.found):
        state = state._replace(fault=f"verify ended and did not report id {missed[0]}")
    return model.at(state, number, IDLE)


def _record(model: Protocol, state: State, number: int, memory: Memory) -> Iterator[Step]:
    key = model.row + memory.chunk
    row = state.store[key]
    as_seen = row.state == memory.state and (
        row.written == memory.written or safe.VERIFY_WRITTEN in model.off
    )
    if not as_seen:
        yield ("verify", number, "starts over"), model.at(state, number, IDLE)
        return
    after = model.wrote(state, ((key, row._replace(state=the.VERIFIED)),))
    if after is None:
        return
    if row.written != memory.written:
        after = after._replace(fault=f"chunk {memory.chunk} is verified, but not this copy of it")
    elif missed := _ids(model, memory.owed):
        after = after._replace(fault=f"verified, though a foreign writer changed id {missed[0]}")
    yield ("verify", number, "record"), model.at(after, number, IDLE)


def _ids(model: Protocol, mask: int) -> list[int]:
    return [i for i in model.ids if mask >> i & 1]
