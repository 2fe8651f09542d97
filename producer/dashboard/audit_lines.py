"""The last audit entries as the dashboard tells them: folded, and without ids of documents."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

from mongosplit.ledger.book import Ledger
from mongosplit.model import RunState

LINES = 20
CHUNKS_READ = 300
"""Of the entries on chunks, which are many, so many of the newest are looked at."""
LETTERS = 160
_AT_ONCE = 5000
_WHOLE = frozenset({"pace", "throttle", "follower", "foreign", "repair", "ask"})
"""Of these actions every fact is a number, a name or a sentence of ours."""
_TOLD: dict[str, tuple[str, ...]] = {
    "verb": ("chunk_size", "on_change", "repair", "restart", "undo", "documents", "reason"),
    "run": ("migration",),
}
"""Of others only these: a part may be told by ids, and a release by what somebody wrote."""
Row = dict[str, Any]


class Entries:
    """The newest entries of one run; what was read once is remembered."""

    def __init__(self, ledger: Ledger, run: str) -> None:
        self._ledger, self._run = ledger, run
        self._chunks: deque[Row] = deque(maxlen=CHUNKS_READ)
        self._others: deque[Row] = deque(maxlen=LINES)
        self._last = 0

    def lines(self) -> list[dict[str, str]]:
        """Time (ISO 8601, UTC), actor and sentence of the newest, the newest first."""
        waiting = self._waiting()
        self._read()
        remembered = sorted([*self._chunks, *self._others], key=lambda row: int(row["_id"]))
        chained = {row.get("entry") for row in remembered}
        return fold([*remembered, *(row for row in waiting if row["_id"] not in chained)])

    def _waiting(self) -> list[Row]:
        newest = [("at", -1), ("_id", -1)]
        found = self._ledger["outbox"].find({"run": self._run}, sort=newest, limit=CHUNKS_READ)
        return [*found][::-1]

    def _read(self) -> None:
        if not self._last:
            self._chunks.extend(self._newest({"action": "chunk"}, CHUNKS_READ))
            self._others.extend(self._newest({"action": {"$ne": "chunk"}}, LINES))
        else:
            later = {"run": self._run, "_id": {"$gt": self._last}}
            for row in self._ledger["audit"].find(later, sort=[("_id", 1)], limit=_AT_ONCE):
                (self._chunks if row.get("action") == "chunk" else self._others).append(row)
        self._last = max((int(row["_id"]) for row in (*self._chunks, *self._others)), default=0)

    def _newest(self, query: dict[str, Any], limit: int) -> list[Row]:
        # Only numbers: a forged _id of another type would stand in the way.
        asked = {"run": self._run, "_id": {"$type": ["int", "long"]}, **query}
        return [*self._ledger["audit"].find(asked, sort=[("_id", -1)], limit=limit)][::-1]


def fold(rows: list[Row]) -> list[dict[str, str]]:
    """Rows from the oldest on, as lines from the newest on; equal changes of chunks are one line.

    They are folded between two entries of another kind, which stay where they are.
    """
    lines: list[dict[str, Any]] = []
    open_: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("action") != "chunk":
            open_ = {}
            lines.append({**_line(row), "sentence": sentence(row)})
            continue
        change = _chunk_change(row.get("facts"))
        line = open_.get(change)
        if line is None:
            line = open_[change] = {"change": change, "chunks": set(), "actors": set()}
            lines.append(line)
        line["chunks"].add(row.get("chunk"))
        line["actors"].add(plain(row.get("actor")))
        line["at"] = _moment(row.get("at"))
    return [_told(line) for line in lines[-LINES:]][::-1]


def _told(line: dict[str, Any]) -> dict[str, str]:
    if "change" not in line:
        return line
    chunks, actors = line["chunks"], sorted(line["actors"])
    which = f"{len(chunks):,} chunks" if len(chunks) > 1 else f"chunk {plain(*chunks)}"
    actor = actors[0] if len(actors) == 1 else f"{len(actors):,} workers"
    return {"at": line["at"], "actor": actor, "sentence": f"{which}: {line['change']}"}


def _line(row: Row) -> dict[str, str]:
    return {"at": _moment(row.get("at")), "actor": plain(row.get("actor"))}


def _moment(value: Any) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else ""


def _chunk_change(found: Any) -> str:
    facts = found if isinstance(found, dict) else {}
    if isinstance(error := facts.get("gave up"), dict):
        return f"gave up: {plain(error.get('sentence'))}"
    if "to" in facts:
        return _arrow(facts)
    return "divided" if "the rest" in facts else "changed"


def _arrow(facts: dict[str, Any]) -> str:
    before, after = (plain(facts.get(name)).replace("_", " ") for name in ("from", "to"))
    if before == after:
        return f"still {after}"
    return f"{before} → {after}" if facts.get("from") else f"→ {after}"


def sentence(row: Row) -> str:
    """What an entry that is of no chunk tells, without anything that may name a document."""
    action, found = plain(row.get("action")), row.get("facts")
    # A forged entry may hold anything, and must not hide the others.
    facts = found if isinstance(found, dict) else {}
    head = plain(facts.get("verb")) if action == "verb" else action
    said = [_arrow(facts)] if "to" in facts else []
    names = tuple(facts) if action in _WHOLE else _TOLD.get(action, ())
    said += [f"{name} {plain(facts[name])}" for name in names if facts.get(name)]
    if action == "verb" and facts.get("verb") == "pace":
        return plain(facts.get("what"))
    if facts.get("why") and _may_tell_why(action, facts):
        said.append(plain(facts["why"]))
    return f"{head}: {', '.join(said)}" if said else head


def _may_tell_why(action: str, facts: dict[str, Any]) -> bool:
    """Of a run that begins or goes on, it is the part, which may be told by ids."""
    if action == "run":
        return facts.get("to") != RunState.RUNNING.value
    return action == "verb" and facts.get("verb") in ("pause", "cancel")


def plain(value: Any) -> str:
    """A value in a line: short, and nothing that does not print."""
    if isinstance(value, dict):
        text = " ".join(f"{name}={plain(inner)}" for name, inner in value.items())
    elif isinstance(value, list):
        text = " ".join(map(plain, value))
    elif isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "-"}[value]
    elif isinstance(value, int):
        text = f"{value:,}"
    else:
        text = str(value)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
