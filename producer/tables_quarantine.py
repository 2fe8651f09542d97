"""Quarantine and kept on stdout: reasons, documents, and one document with all its problems."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from bson import json_util
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from producer import console
from producer.console import counted, data
from producer.pointing import Types, id_text
from producer.tables import next_line, table

LONGEST_LINE = 1000
WIDE_ID = 40
_STATES = {
    "nothing": "nothing: the document has no part there",
    "whole": "whole: this part would be fine",
}
_FOLDED = ("_id", "sentence", "so far")
_WORD = 12


def documents(facts: dict[str, Any], known: Types, whole: int, reason: str | None) -> None:
    """What is in quarantine: the reasons with counts, then the documents; never a value."""
    run, rows = facts["run"], facts["documents"]
    if not facts["reasons"]:
        data.print(f"{run}: nothing is in quarantine")
        return
    reasons = table("reason", "field", "documents#")
    for row in facts["reasons"]:
        reasons.add_row(Text(row["reason"]), Text(row["path"] or "-"), f"{row['count']:,}")
    data.print(reasons)
    _listed(rows, known)
    of_reason = f" for reason {reason}" if reason else ""
    data.print(f"{len(rows):,} of {counted(whole, 'document')} in quarantine of {run}{of_reason}")
    if len(rows) < whole:
        data.print(f"all of them: mongosplit quarantine export {run}")
    if rows:
        next_line(f"mongosplit quarantine show {run} ID")


def _listed(rows: list[dict[str, Any]], known: Types) -> None:
    released = any(row["released"] for row in rows)
    listed = table("_id", "chunk#", "reason", "sentence", *(["released"] if released else []))
    for row in rows:
        cells = [Text(id_text(row["source_id"], known)), Text(str(row["chunk"]))]
        cells += [Text(row["reason"]), Text(row["message"])]
        if released:
            cells.append(Text("yes" if row["released"] else "-"))
        listed.add_row(*cells)
    _print(listed)


def _print(listed: Table) -> None:
    """On a terminal sentences wrap; elsewhere each row is a line, which can be searched."""
    for column in listed.columns:
        column.overflow = "fold"
        column.no_wrap = column.header not in _FOLDED
    ids = listed.columns[0]
    # An _id on one line can be copied.
    ids.no_wrap = all(cell_len(str(cell)) <= WIDE_ID for cell in ids.cells)
    if not data.is_terminal:
        unbounded = data.options.update(max_width=LONGEST_LINE)
        listed.width = data.measure(listed, options=unbounded).maximum
    data.print(listed)


def one(facts: dict[str, Any], shown_id: str) -> None:
    """One document: why it is in quarantine, and what the split makes of it so far."""
    data.print(Text(f"{facts['run']}: {shown_id} is in quarantine", style="bold"))
    _fact("reason", facts["reason"])
    _fact("field", facts["path"] or "-")
    _fact("sentence", facts["message"])
    _fact("target", facts["target"] or "-")
    _fact("chunk", str(facts["chunk"]))
    _fact("attempts", str(facts["attempts"]))
    _fact("when", _moment(facts["at"]))
    _fact("released", _release(facts["released"]))
    if facts["source"] == "deleted":
        _fact("source", "the document is not there any more: it was deleted since")
        return
    listed = table("target", "so far")
    for part in facts["parts"]:
        said = [problem["message"] for problem in part["problems"]] or [_STATES[part["state"]]]
        for position, sentence in enumerate(said):
            listed.add_row(Text("" if position else part["target"]), Text(sentence))
    _print(listed)


def values(facts: dict[str, Any]) -> None:
    """The source document and its parts, as relaxed extended JSON."""
    if "document" not in facts:
        return
    _value("source document", facts["document"])
    for part in facts["parts"]:
        if "document" in part:
            _value(part["target"], part["document"])


def _value(title: str, document: Any) -> None:
    text = json_util.dumps(
        document, json_options=json_util.RELAXED_JSON_OPTIONS, indent=2, ensure_ascii=False
    )
    data.print(Text(f"\n{title}", style="bold"))
    # What would steer the terminal, or is no character, is written as JSON escapes.
    shown = (x if x.isprintable() or x == "\n" else json.dumps(x)[1:-1] for x in text)
    data.print(Text("".join(shown)))


def _fact(name: str, said: str) -> None:
    data.print(Text(f"{name:{_WORD}} {said}"))


def _release(released: dict[str, Any] | None) -> str:
    if not released:
        return "no"
    said = f"by {released['actor']}, {_moment(released['at'])}: {released['because']}"
    return "".join(letter if letter.isprintable() else " " for letter in said)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def kept(run: str, rows: list[dict[str, Any]], whole: int) -> None:
    """Documents that are kept, without their values."""
    if not whole:
        data.print(f"{run}: no document is kept")
        return
    listed = table("_id", "target", "chunk#", "reason", "when (UTC)")
    for row in rows:
        moment = f"{row['at']:%Y-%m-%d %H:%M:%S}"
        listed.add_row(
            Text(id_text(row["document_id"], ())),
            Text(row["collection"]),
            str(row["chunk"]),
            row["reason"],
            moment,
        )
    _print(listed)
    data.print(f"{len(rows):,} of {counted(whole, 'document')} kept by {run}")
    next_line(f"mongosplit kept export {run} FILE")


def released(facts: dict[str, Any], *, undo: bool) -> None:
    """What releasing, or taking it back, came to."""
    changed, same = facts["changed"], facts["documents"] - facts["changed"]
    said = f"{facts['run']}: {counted(changed, 'document')} "
    said += "no longer released" if undo else "released"
    if same:
        said += f", {same:,} already {'not ' if undo else ''}so"
    data.print(said + f"; {facts['released']:,} in all")
    next_line(f"mongosplit status {facts['run']}")


def exported(count: int, run: str, file: str) -> None:
    """How many were written, as talk: stdout may be the file."""
    where = "stdout" if file == "-" else file
    console.say(f"{run}: {counted(count, 'document')} written to {where}")
