"""Undoing: what a rollback comes to, asking for it in the ledger, and what it has left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mongosplit import rollback
from mongosplit.errors import Refused
from mongosplit.ledger import asks, chunks, claims, kept, runs, tally
from mongosplit.ledger.book import Ledger
from mongosplit.model import APPLIED, ChunkState, Run, RunState
from mongosplit.open_run import OpenRun
from mongosplit.selection import Selection
from producer import console
from producer.connection import Connection
from producer.console import counted
from producer.selecting import Asked, resolve

LISTED = 100
_OVER: dict[RunState, str] = {
    RunState.PLANNING: "nothing of it is applied",
    RunState.PLANNED: "nothing of it is applied",
    RunState.ROLLED_BACK: "nothing of it is applied any more",
    RunState.CANCELLING: "wait until its last chunk has ended",
    RunState.CUT_OVER: "the application uses the targets",
    RunState.FINALIZED: "the source is archived for good",
}


@dataclass(frozen=True)
class Part:
    """What is to be rolled back: the whole run, or chunks of it; all of them are applied."""

    run: str
    numbers: list[int]
    docs: int
    where: dict[str, Any]
    words: str
    whole: bool

    @property
    def sentence(self) -> str:
        """What it is, with counts."""
        what = f"{counted(len(self.numbers), 'chunk')}, {counted(self.docs, 'document')}"
        return (
            f"all of {self.run} ({what})" if self.whole else f"{self.words} of {self.run} ({what})"
        )


def look(at: Connection, run: Run, asked: Asked) -> Part:
    """What is to be rolled back.

    Raises:
        Refused: the run has nothing to roll back, or a chunk that was named is not applied.
    """
    if run.state in _OVER:
        raise Refused(f"{run.id} is {run.state_words}: {_OVER[run.state]}", hint=_instead(run))
    if run.state is RunState.ROLLING_BACK and asked.anything:
        raise Refused(
            f"{run.id} is rolling back as a whole already",
            hint=f"to go on with it: mongosplit rollback {run.id}",
        )
    selection = resolve(at, run, asked)
    where = asks.EVERYWHERE if selection is None else selection.query()
    if selection is not None:
        _refuse_what_is_not_applied(at.ledger, run, selection)
    applied = {"$and": [chunks.IS_APPLIED, where]}
    numbers = chunks.numbers(at.ledger, run.id, applied)
    docs = tally.docs(at.ledger, run.id, applied)
    return Part(run.id, numbers, docs, where, asked.description, whole=selection is None)


def _instead(run: Run) -> str:
    if run.state is RunState.PLANNED:
        return f"to give it up: mongosplit cancel {run.id}"
    return f"mongosplit status {run.id}"


def _refuse_what_is_not_applied(ledger: Ledger, run: Run, selection: Selection) -> None:
    def spans(query: dict[str, Any]) -> list[tuple[int, int]]:
        return tally.spans(ledger, run.id, {"$and": [query, selection.query()]})

    missing = spans({"$nor": [chunks.IS_APPLIED]})
    if not missing:
        return
    others = [state for state in ChunkState if state not in APPLIED]
    states = ", ".join(state.replace("_", " ") for state in others if spans({"state": state.value}))
    applied = spans(chunks.IS_APPLIED)
    one = len(missing) == 1 and missing[0][0] == missing[0][1]
    which = f"chunk {missing[0][0]}" if one else f"chunks {tally.span_words(missing)}"
    raise Refused(
        f"{which} of {run.id} {'is' if one else 'are'} not applied ({states}): "
        "there is nothing to roll back",
        hint=f"only what is applied: --chunks {tally.span_words(applied, most=1000)}"
        if applied
        else f"mongosplit status {run.id}",
    )


def refuse_changed(opened: OpenRun, part: Part) -> None:
    """Look at every chunk before any of them is touched.

    Raises:
        Refused: documents in a target were changed since they were migrated.
    """
    with console.counting("compare", "chunks", len(part.numbers)) as move:
        for done, n in enumerate(part.numbers, start=1):
            rollback.refuse_changed(opened, n)
            move(done)


def ask(at: Connection, opened: OpenRun, part: Part, on_change: str) -> None:
    """Ask for it in the ledger."""
    run, actor = opened.run, at.settings.actor
    at.tell("rollback", run=run.id, part=part.words, on_change=on_change)
    claims.forget_attempts(at.ledger, run.id, part.numbers, work=rollback.WORK)
    runs.first_verification(at.ledger, run.id)
    if part.whole:
        runs.move(at.ledger, run.id, RunState.ROLLING_BACK, actor=actor, on_change=on_change)
        asks.forget_refusals(at.ledger, run.id)
    else:
        asks.undo(at.ledger, run.id, part.where, on_change=on_change, actor=actor)


def is_done(ledger: Ledger, run_id: str, part: Part) -> bool:
    """Whether nothing of it is left to do."""
    if part.whole:
        return runs.get(ledger, run_id).state is not RunState.ROLLING_BACK
    left = {"$and": [asks.TO_UNDO, part.where]}
    return not chunks.numbers(ledger, run_id, left, limit=1)


def facts(ledger: Ledger, run: Run, part: Part) -> dict[str, Any]:
    """What a rollback came to: chunks, documents kept, chunks that refused, what is left behind."""
    refused = {"$and": [{"undo_error": {"$ne": None}}, part.where]}
    rows = tally.failures(ledger, run.id, refused)
    undone = {"$and": [{"state": ChunkState.ROLLED_BACK.value}, part.where]}
    wrong = {"$and": [undone, {"mismatches": {"$gt": 0}}]}
    return {
        "documents": part.docs - sum(row.docs for row in rows),
        "chunks": len(part.numbers) - len(rows),
        "kept": kept.count(ledger, run.id),
        "kept_documents": kept.listed(ledger, run.id, limit=LISTED),
        "refused": [{"chunk": row.n, **(row.error or {})} for row in rows],
        "left_behind": len(chunks.numbers(ledger, run.id, wrong)),
        "why": run.asked.get("why", "") if run.finished else "",
    }
