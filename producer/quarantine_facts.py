"""Facts of documents in quarantine: one with all its problems, and all of them as lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mongosplit import raw, split_so_far
from mongosplit.document_text import readable
from mongosplit.ledger import quarantine
from mongosplit.ledger.quarantine import Row, Which
from mongosplit.model import Run
from mongosplit.mongo import Session, among, exact, raw_documents, transact
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE
from mongosplit.raw import Value
from mongosplit.split_so_far import PartSoFar, SplitSoFar
from producer.connection import Connection

AT_ONCE = 100
"""Documents of the source asked for in one query; they arrive one after the other."""
_NAMES = ("chunk", "reason", "path", "message", "target", "attempts", "at", "released")


def one(opened: OpenRun, which: Which, *, values: bool) -> dict[str, Any] | None:
    """A document's facts and what the split makes of it now, in one snapshot.

    None when it has left quarantine meanwhile. Only with `values` any value of the document.
    """

    def look(session: Session) -> tuple[Row | None, SplitSoFar | None]:
        found = list(quarantine.rows(opened.ledger, opened.run.id, which, session=session))
        if not found:
            return None, None
        return found[0], split_so_far.of_document(opened, found[0].source_id, session)

    with opened.client.start_session() as session:
        row, so_far = transact(session, look)
    if row is None:
        return None
    facts = {"run": opened.run.id, "source_id": readable(row.source_id), **_known(row)}
    return facts | _source(so_far, values=values)


def _source(so_far: SplitSoFar | None, *, values: bool) -> dict[str, Any]:
    if so_far is None:
        return {"source": "deleted", "parts": []}
    facts: dict[str, Any] = {
        "source": "there",
        "parts": [_part(part, values=values) for part in so_far.parts],
    }
    if values:
        facts["document"] = readable(Value(3, so_far.document))
    return facts


def _part(part: PartSoFar, *, values: bool) -> dict[str, Any]:
    problems = [
        {"reason": found.reason, "path": found.path, "message": str(found)}
        for found in part.problems
    ]
    facts: dict[str, Any] = {"target": part.target, "state": part.state, "problems": problems}
    if values and part.part is not None:
        facts["document"] = readable(Value(3, part.part))
    return facts


def _known(row: Row) -> dict[str, Any]:
    return {name: row.facts.get(name) for name in _NAMES}


def lines(at: Connection, run: Run, which: Which, *, values: bool) -> Iterator[dict[str, Any]]:
    """An object for each document in quarantine, in constant memory.

    With `values` also `document`, where the source still has it.
    """
    found = quarantine.rows(at.ledger, run.id, which)
    while some := list(islice(found, AT_ONCE)):
        if values:
            yield from _with_documents(at, run, some)
        else:
            yield from (_line(run, row) for row in some)


def _line(run: Run, row: Row) -> dict[str, Any]:
    return {"source_id": row.source_id, "run": run.id, **_known(row)}


def _with_documents(at: Connection, run: Run, some: list[Row]) -> Iterator[dict[str, Any]]:
    left = {row.source_id: row for row in some}
    data, _, collection = run.source.partition(".")
    source = exact(at.client[data])[collection]
    batches = source.find_raw_batches(among("_id", list(left)), collation=SIMPLE)
    for document in raw_documents(batches):
        source_id = raw.field(document, "_id")
        if source_id is not None and (row := left.pop(source_id, None)):
            yield {**_line(run, row), "document": Value(3, document)}
    yield from (_line(run, row) for row in left.values())
