"""Again: what a retry comes to, and asking for it in the ledger."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mongosplit.errors import LeaseHeld, Refused
from mongosplit.ledger import asks, chunks, claims, leases, runs
from mongosplit.model import ChunkState, Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.selection import Selection
from producer import planning
from producer.connection import Connection, refuse_over
from producer.console import counted
from producer.selecting import Asked, resolve

_KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "failed": ({"state": ChunkState.FAILED.value}, "failed chunk"),
    "unverified": (asks.UNABLE, "chunk that could not be verified"),
    "rolled back": ({"state": ChunkState.ROLLED_BACK.value}, "chunk that was rolled back"),
    "quarantined": (asks.HOLDING, "chunk with documents in quarantine"),
}
_RESTING = (RunState.MIGRATED, RunState.VERIFIED)


@dataclass(frozen=True)
class Wanted:
    """What is to be tried again: chunks by kind, and the part of the run that was named."""

    kinds: dict[str, list[int]]
    where: dict[str, Any]
    part: str

    @property
    def numbers(self) -> list[int]:
        """The chunks, in order."""
        return sorted({n for found in self.kinds.values() for n in found})

    @property
    def sentence(self) -> str:
        """What there is, counted by kind."""
        said = [counted(len(found), _KINDS[kind][1]) for kind, found in self.kinds.items() if found]
        return ", ".join(said)


def look(at: Connection, run: Run, asked: Asked, *, quarantined: bool) -> Wanted:
    """What there is to try again.

    Raises:
        Refused: nothing, or the run is not in a state to try anything again.
    """
    _refuse_state(run)
    selection = resolve(at, run, asked)
    where = {} if selection is None else selection.query()
    kinds = ["failed", "unverified"]
    if selection is not None:
        kinds += ["rolled back", "quarantined"]
    if quarantined:
        kinds = ["quarantined"]
    found = {kind: _numbers(at, run, _KINDS[kind][0], where) for kind in kinds}
    wanted = Wanted(found, where, asked.description)
    if not wanted.numbers:
        raise _nothing(run, asked, quarantined=quarantined)
    return wanted


def _numbers(at: Connection, run: Run, query: dict[str, Any], where: dict[str, Any]) -> list[int]:
    return chunks.numbers(at.ledger, run.id, {"$and": [query, where]})


def _refuse_state(run: Run) -> None:
    again = f"mongosplit status {run.id}"
    if run.state is RunState.PAUSED and not run.resting:
        raise Refused(f"{run.id} is paused", hint=f"mongosplit resume {run.id}")
    refuse_over(run)
    if run.state not in (RunState.RUNNING, RunState.PAUSED, *_RESTING):
        raise Refused(f"{run.id} is {run.state_words}: nothing can be tried again now", hint=again)


def _nothing(run: Run, asked: Asked, *, quarantined: bool) -> Refused:
    part = f" in {asked.description}" if asked.anything else ""
    hint = f"mongosplit status {run.id}"
    if quarantined:
        return Refused(f"nothing{part} of {run.id} is in quarantine", hint=hint)
    if asked.anything:
        return Refused(
            f"nothing{part} of {run.id} failed, was rolled back or is in quarantine", hint=hint
        )
    return Refused(f"no chunk of {run.id} has failed", hint=hint)


def ask(at: Connection, opened: OpenRun, wanted: Wanted) -> OpenRun:
    """Ask for it in the ledger, and let the run go on with it."""
    run, actor = opened.run, at.settings.actor
    at.tell("retry", run=run.id, part=wanted.part, what=wanted.sentence)
    for work in claims.WORKS:
        claims.forget_attempts(at.ledger, run.id, wanted.numbers, work=work)
    _let_go_on(at, opened, wanted)
    for kind in wanted.kinds:
        _ask_kind(at, run, kind, wanted.where, actor)
    opened = OpenRun(at.client, at.ledger, runs.get(at.ledger, run.id), opened.migration)
    if opened.run.resting or opened.run.state in _RESTING:
        # Its driver brought it to its end before anything was asked for.
        return _run_on(at, opened, wanted)
    return opened


def _let_go_on(at: Connection, opened: OpenRun, wanted: Wanted) -> None:
    """The run goes on before chunks are asked for: in one that is over they would wait for ever."""
    run = opened.run
    if run.state is not RunState.RUNNING:
        with suppress(LeaseHeld):
            # A driver that has the run, to verify the rest of it, goes on with what is asked for.
            leases.hold_when_free(at.ledger, run.id, planning.holder_of(at.settings))
        _run_on(at, opened, wanted)
    elif run.selection is not None:
        both = [*run.selection, *_spans(wanted)]
        merged = Selection.merged((first, last) for first, last in both)
        runs.note(at.ledger, run.id, selection=merged.to_document())


def _run_on(at: Connection, opened: OpenRun, wanted: Wanted) -> OpenRun:
    why = f"retry of {wanted.part}"
    return planning.run_on(opened, _spans(wanted), actor=at.settings.actor, why=why)


def _ask_kind(at: Connection, run: Run, kind: str, where: dict[str, Any], actor: str) -> None:
    if kind == "unverified":
        asks.recheck(at.ledger, run.id, where, actor=actor)
    elif kind == "quarantined":
        asks.mend(at.ledger, run.id, where, actor=actor)
    else:
        state = ChunkState(kind.replace(" ", "_"))
        asks.reopen(at.ledger, run.id, state, where, actor=actor)


def _spans(wanted: Wanted) -> list[list[int]]:
    """The chunks that become pending, as spans."""
    numbers = [*wanted.kinds.get("failed", ()), *wanted.kinds.get("rolled back", ())]
    return Selection.of(numbers).to_document() if numbers else []
