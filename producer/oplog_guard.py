"""The oplog guard: no run starts or goes on that the oplog could not outlast.

Whoever follows the source may stand still for as long as the oplog reaches back. It must reach back
a stated number of times as long as the run still takes, or one bad night costs the position.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from pymongo.errors import OperationFailure

from mongosplit.errors import IllegalTransition
from mongosplit.ledger import runs
from mongosplit.model import Run, RunState
from mongosplit.mongo import UNAUTHORIZED, Client
from mongosplit.open_run import OpenRun
from mongosplit.settings import Settings
from producer.console import duration
from producer.findings import Finding, Subject

ASSUMED_RATE = 2000.0
"""Documents per second, before anything of a run was measured; a slow machine's single worker."""
LOOK_SECONDS = 5.0
ACTOR = "oplog guard"
MEND = "enlarge the oplog (replSetResizeOplog), or lower MONGOSPLIT_OPLOG_MULTIPLE"


def window_seconds(client: Client) -> float | None:
    """How far the oplog reaches back, or would if it were full; None where it may not be read."""
    try:
        size = client.local.command("collStats", "oplog.rs")
        ends = [
            client.local["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", way)]) or {}
            for way in (1, -1)
        ]
    except OperationFailure as error:
        if error.code == UNAUTHORIZED:
            return None
        raise
    first, last = (end["ts"].time for end in ends)
    # Of a young oplog the most that can be said is how long it lasts at the speed it has filled.
    grows: float = max(1.0, size["maxSize"] / max(1, size["size"]))
    reaches: float = (last - first + 1) * grows
    return reaches


def verdict(window: float | None, needed: float, multiple: float) -> str:
    """Why the oplog does not outlast what is left; empty when it does."""
    if window is None or not multiple or window >= multiple * needed:
        return ""
    wanted = f"{multiple:g} times the {duration(needed)} still needed"
    return f"the oplog reaches back {duration(window)}, and {wanted} are wanted"


def oplog(at: Subject) -> Iterator[Finding]:
    """The oplog must outlast the run."""
    window = window_seconds(at.client)
    if window is None:
        said = "this user may not read local.oplog.rs, so nobody knows how far it reaches back"
        yield Finding("oplog", "warning", said, "grant read on the database local")
        return
    documents = at.data[at.migration.source].estimated_document_count()
    needed = documents / ASSUMED_RATE
    if sentence := verdict(window, needed, at.settings.oplog_multiple):
        yield Finding("oplog", "refusal", sentence, MEND)
    else:
        said = f"the oplog reaches back {duration(window)}; a run takes about {duration(needed)}"
        yield Finding("oplog", "ok", said)


@dataclass
class Guard:
    """Looks at the oplog while a run is driven, and pauses the run that it does not outlast."""

    settings: Settings
    looked: float = 0.0

    def look(self, at: OpenRun, run: Run, eta_seconds: float | None) -> None:
        """Look, every few seconds; ask for a pause where that is called for."""
        if run.state is not RunState.RUNNING or not eta_seconds:
            return
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        window = window_seconds(at.client)
        if sentence := verdict(window, eta_seconds, self.settings.oplog_multiple):
            try:
                runs.move(at.ledger, run.id, RunState.PAUSING, actor=ACTOR, why=sentence)
            except IllegalTransition:
                # Somebody else has stopped it, or it came to its end.
                return
