"""The gate: whether a chunk may be begun, asked of the ledger once its claim is taken.

The claim comes first: whoever asks for a pause writes that and then looks at the claims, so that of
the two at least one sees the other, and `paused` is true when it is said.
"""

from __future__ import annotations

from mongosplit.ledger import chunks, runs
from mongosplit.model import APPLIED, HELD, RunState
from mongosplit.open_run import OpenRun


def holds_migration(at: OpenRun) -> str:
    """The state of the run that keeps chunks from being migrated; empty when none does."""
    state = runs.get(at.ledger, at.run.id).state
    return "" if state is RunState.RUNNING else state.value


def holds_verification(at: OpenRun, n: int, verification: int) -> str:
    """The state of the run that keeps the chunk from being compared; empty when none does.

    A verification that somebody asked for goes on, and so does the look whether a chunk that is not
    applied has left anything behind.
    """
    run = runs.get(at.ledger, at.run.id)
    if run.state not in HELD or run.requested == verification:
        return ""
    applied = chunks.get(at.ledger, at.run.id, n).state in APPLIED
    return run.state.value if applied else ""
