"""The oplog guard: no run starts or goes on that the oplog could not outlast.

Whoever follows the source may stand still for as long as the oplog reaches back. It must reach back
a stated number of times as long as the run still takes, or one bad night costs the position.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
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
LOOKS = 6
"""So often in a row the oplog must be found too short."""
FULL_AT = 0.9
YOUNG_SECONDS = 3600.0
ACTOR = "oplog guard"
MEND = "enlarge the oplog (replSetResizeOplog), or lower MONGOSPLIT_OPLOG_MULTIPLE"


def window_seconds(client: Client) -> float:
    """How far the oplog reaches back, or would if it were full; infinite while nobody can tell.

    Of an oplog that is not full and less than an hour old nothing can be said: what has filled it
    may have been a load of data.

    Raises:
        OperationFailure: the oplog may not be read.
    """
    size = client.local.command("collStats", "oplog.rs")
    oplog, key = client.local["oplog.rs"], {"ts": 1}
    ends = [oplog.find_one({}, key, sort=[("$natural", way)]) or {} for way in (1, -1)]
    first, last = (end["ts"].time for end in ends)
    reaches = float(last - first)
    share = size["size"] / max(1, size["maxSize"])
    if share >= FULL_AT:
        return reaches
    return math.inf if reaches < YOUNG_SECONDS else reaches / share


def verdict(window: float, needed: float, multiple: float) -> str:
    """Why the oplog does not outlast what is left; empty when it does."""
    if window >= multiple * needed:
        return ""
    wanted = f"{multiple:g} times the {duration(needed)} still needed"
    return f"the oplog reaches back {duration(window)}, and {wanted} are wanted"


def oplog(at: Subject) -> Iterator[Finding]:
    """The oplog must outlast the run."""
    try:
        window = window_seconds(at.client)
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        said = "this user may not read local.oplog.rs, so nobody knows how far it reaches back"
        yield Finding("oplog", "warning", said, "grant read on the database local")
        return
    documents = at.data[at.migration.source].estimated_document_count()
    needed = documents / ASSUMED_RATE
    if sentence := verdict(window, needed, at.settings.oplog_multiple):
        yield Finding("oplog", "refusal", sentence, MEND)
    elif window == math.inf:
        yield Finding("oplog", "ok", "the oplog is young and not full yet")
    else:
        said = f"the oplog reaches back {duration(window)}; a run takes about {duration(needed)}"
        yield Finding("oplog", "ok", said)


@dataclass
class Guard:
    """Looks at the oplog while a run is driven, and pauses the run that it does not outlast."""

    settings: Settings
    looked: float = 0.0
    bad: int = 0

    def look(self, at: OpenRun, run: Run, eta_seconds: float | None) -> None:
        """Look, every few seconds; ask for a pause where that is called for and stays so."""
        if run.state is not RunState.RUNNING or not eta_seconds:
            return
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        # Where the oplog may not be read the check before the start has said so.
        with suppress(OperationFailure):
            self._judge(at, run, eta_seconds)

    def _judge(self, at: OpenRun, run: Run, eta_seconds: float) -> None:
        sentence = verdict(window_seconds(at.client), eta_seconds, self.settings.oplog_multiple)
        self.bad = self.bad + 1 if sentence else 0
        # The first estimates of a run are wild.
        if self.bad >= LOOKS:
            # Somebody else may have stopped it, or it came to its end.
            with suppress(IllegalTransition):
                runs.move(at.ledger, run.id, RunState.PAUSING, actor=ACTOR, why=sentence)
