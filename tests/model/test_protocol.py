from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import pytest

from tests.model import variants
from tests.model.protocol import Protocol
from tests.model.safeguards import SENTENCES
from tests.model.schedules import schedules
from tests.model.search import Label, Verdict, explore, told
from tests.model.states import DERIVED, Variant
from tests.model.store import begin, commit, held, plain, put, read

NOTHING = frozenset[str]()


def _explained(verdict: Verdict) -> str:
    return f"{verdict.why}\n{told(verdict.trace)}"


@pytest.mark.parametrize("name", variants.HOLDS)
def test_the_protocol_holds(name: str) -> None:
    verdict = explore(Protocol(variants.HOLDS[name]))
    assert not verdict.why, _explained(verdict)
    assert verdict.quiescent > 1


@pytest.mark.parametrize("safeguard", variants.WITHOUT)
def test_without_a_safeguard_something_goes_wrong(safeguard: str) -> None:
    variant = variants.WITHOUT[safeguard]
    verdict = explore(Protocol(variant))
    sys.stdout.write(f"{SENTENCES[safeguard]} Without it: {_explained(verdict)}")
    assert verdict.why
    assert verdict.trace
    with_it = explore(Protocol(replace(variant, off=NOTHING)))
    assert not with_it.why, _explained(with_it)


@pytest.mark.parametrize("safeguard", variants.HARMLESS)
def test_without_what_only_saves_work_the_protocol_holds(safeguard: str) -> None:
    verdict = explore(Protocol(variants.HARMLESS[safeguard]))
    assert not verdict.why, _explained(verdict)


def test_every_safeguard_is_switched_off_in_some_variant() -> None:
    off = variants.WITHOUT.keys() | variants.UNIQUE_WITHOUT.keys() | variants.HARMLESS.keys()
    assert off == SENTENCES.keys()


def test_a_trace_leads_from_the_initial_state_to_the_fault() -> None:
    model = Protocol(next(iter(variants.WITHOUT.values())))
    verdict, state = explore(model), model.initial()
    for label in verdict.trace:
        state = dict(model.steps(state))[label]
    assert model.fault(state) == verdict.why
    assert len(told(verdict.trace).splitlines()) == len(verdict.trace) == verdict.depth


class _Straying:
    """A toy: counts down to a rest at 0, but may stray to where it never rests."""

    ways = MappingProxyType({2: (1,), 1: (0, 7), 0: (0,), 7: (8,), 8: (7,)})

    def initial(self) -> int:
        return 2

    def steps(self, state: int) -> Iterator[tuple[Label, int]]:
        for reached in self.ways[state]:
            yield ("to", reached), reached

    def canonical(self, state: int) -> int:
        return state

    def is_quiescent(self, state: int) -> bool:
        return state == 0

    def fault(self, state: int) -> str:
        return "below 0" if state < 0 else ""


def test_a_state_that_can_only_go_round_in_circles_is_a_dead_end() -> None:
    verdict = explore(_Straying())
    assert "dead end" in verdict.why
    assert verdict.trace == [("to", 1), ("to", 7)]


COPY, OTHER = (0, 1), (1, 1)


def test_a_transaction_reads_its_snapshot_and_its_own_writes() -> None:
    store, txn = (1, 2), begin(0b11)
    procs = ((*COPY, txn, ()),)
    written = plain(store, procs, ((0, 5),))
    assert written is not None
    store, procs = written
    txn = procs[0][2]
    assert (store[0], read(store, txn, 0)) == (5, 1)
    own = put(store, txn, 1, 9, 0)
    assert own is not None
    assert read(store, own, 1) == 9


def test_a_write_conflicts_with_a_commit_after_the_snapshot_and_with_an_open_write() -> None:
    store, txn = (1, 2), begin(0b11)
    store, procs = commit(store, ((*COPY, txn, ()),), ((0, 1),))
    assert put(store, procs[0][2], 0, 7, 0) is None
    assert put(store, txn, 1, 7, 0b10) is None
    assert put(store, txn, 1, 7, 0b01) is not None


def test_a_write_that_changes_nothing_meets_nobody_but_an_increment_does() -> None:
    store, txn = (1, 2), begin(0b11)
    assert put(store, txn, 0, 1, 0b1) is txn
    assert put(store, txn, 0, 1, 0b1, always=True) is None


def test_a_plain_write_waits_for_whoever_holds_the_key() -> None:
    store = (1, 2)
    txn = put(store, begin(0b11), 0, 4, 0)
    assert txn is not None
    procs = ((*COPY, txn, ()), (*OTHER, (), ()))
    assert held(procs) == 0b1
    assert plain(store, procs, ((0, 3),)) is None
    assert plain(store, procs, ((1, 3),)) is not None


WALKED = Variant(ops=3, crashes=1, rollbacks=1, agains=1, verifies=1, chunk_of=(0, 1))


def test_schedules_are_the_same_for_the_same_seed() -> None:
    assert list(schedules(WALKED, 5, 7)) == list(schedules(WALKED, 5, 7))
    assert list(schedules(WALKED, 5, 7)) != list(schedules(WALKED, 5, 8))


def test_every_schedule_is_a_way_of_the_model_and_ends_at_rest() -> None:
    model = Protocol(WALKED)
    for schedule in schedules(WALKED, 20, 1):
        state = model.initial()
        for action in schedule:
            state = dict(model.steps(state))[action.label]
        rest = schedule[-1].rest
        assert rest is not None
        assert rest.sources == state.store[:2]
        for source, parts, chunk in zip(rest.sources, rest.parts, rest.states, strict=True):
            assert parts == (DERIVED[source] if chunk != "rolled back" else (0, 0))
