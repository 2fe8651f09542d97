"""The compat view: made, dropped, known to its run, and compared with the source.

A view is ours when a run noted it, by name and by the digest of its pipeline, before it was made;
whatever else stands under the name is somebody else's and is left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import CollectionInvalid, OperationFailure

from mongosplit import raw
from mongosplit.definition import Migration
from mongosplit.errors import Refused
from mongosplit.ledger import chunks
from mongosplit.ledger.book import NAMESPACE_EXISTS, Ledger
from mongosplit.ledger.mismatches import Mismatch
from mongosplit.model import RunState
from mongosplit.mongo import Session, raw_documents
from mongosplit.open_run import OpenRun
from mongosplit.pipelines import SIMPLE, Pipeline
from mongosplit.raw import Value
from mongosplit.view_pipeline import branches, view_pipeline

_MIGRATED = {**chunks.IS_APPLIED, "tail": None}


@dataclass(frozen=True)
class Standing:
    """What stands under a name: its kind, whether it is ours, and as this code would make it.

    `pipeline` is that of a view on our source.
    """

    name: str
    kind: str
    ours: bool
    current: bool
    pipeline: Pipeline = field(default_factory=list, repr=False, compare=False)


def default_name(migration: Migration) -> str:
    """What the view is called when nobody says otherwise."""
    return f"{migration.source}_compat"


def look(at: OpenRun, name: str) -> Standing | None:
    """What stands under the name, None for nothing."""
    info = next(iter(at.data.list_collections(filter={"name": name})), None)
    if info is None:
        return None
    options = info.get("options", {})
    if info["type"] != "view" or options.get("viewOn") != at.migration.source:
        return Standing(name, info["type"], ours=False, current=False)
    pipeline: Pipeline = options["pipeline"]
    digest = _digest(pipeline)
    noted = at.ledger["runs"].find_one({"source": at.run.source, "views": _note(name, digest)})
    current = digest == _digest(_pipeline(at)) and not options.get("collation")
    return Standing(name, "view", ours=noted is not None, current=current, pipeline=pipeline)


def ours(at: OpenRun, name: str) -> Standing | None:
    """Our view of that name, None when nothing stands there.

    Raises:
        Refused: what stands under the name is not ours.
    """
    there = look(at, name)
    if there is not None and not there.ours:
        raise _taken(at, there.name, there.kind)
    return there


def refuse(at: OpenRun, name: str) -> None:
    """Refuse what `create` would refuse; nothing is written.

    Raises:
        Refused: nothing of the run is migrated, or something else stands under the name.
    """
    over = at.run.finished or at.run.state is RunState.ROLLING_BACK
    if over or not chunks.numbers(at.ledger, at.run.id, _MIGRATED, limit=1):
        raise Refused(
            f"{at.run.id} is {at.run.state_words}: a view would find nothing to join",
            hint=f"mongosplit status {at.run.id}",
        )
    ours(at, name)


def create(at: OpenRun, name: str) -> bool:
    """Make the view beside the source; whether anything was made. Ours, if older, is renewed.

    Raises:
        Refused: nothing of the run is migrated, or something else stands under the name.
    """
    refuse(at, name)
    there = look(at, name)
    pipeline = _pipeline(at)
    # Noted first: what is made is never forgotten, and a note alone does no harm.
    at.ledger["runs"].update_one(
        {"_id": at.run.id}, {"$addToSet": {"views": _note(name, _digest(pipeline))}}
    )
    if there is not None:
        if not there.current:
            at.data.command("collMod", name, viewOn=at.migration.source, pipeline=pipeline)
        return not there.current
    try:
        at.data.create_collection(name, viewOn=at.migration.source, pipeline=pipeline)
    except (CollectionInvalid, OperationFailure) as error:
        if isinstance(error, OperationFailure) and error.code != NAMESPACE_EXISTS:
            raise
        raise _taken(at, name, "collection") from error
    return True


def drop(at: OpenRun, name: str) -> bool:
    """Drop the view; whether there was one.

    Raises:
        Refused: what stands under the name is not ours.
    """
    there = ours(at, name)
    if there is not None:
        at.data.drop_collection(name)
    of_source = {"source": at.run.source}
    at.ledger["runs"].update_many(of_source, {"$pull": {"views": {"name": name}}})
    return there is not None


def standing(at: OpenRun) -> list[Standing]:
    """The views of this run that stand."""
    found = (look(at, name) for name in _noted(at.ledger, at.run.id))
    return [one for one in found if one is not None and one.ours]


def take_away(at: OpenRun) -> list[str]:
    """Drop the views of this run, idempotently; their names."""
    names = [one.name for one in standing(at)]
    for name in names:
        at.data.drop_collection(name)
    return names


def differing(
    at: OpenRun, view: Standing, which: dict[str, Any], session: Session
) -> Iterator[Mismatch]:
    """The documents that the view does not serve as the source holds them, of those in `which`.

    What the view computes is computed here: in a transaction no view can be read that has a union.
    """
    found = raw_documents(at.source.find_raw_batches(which, session=session, collation=SIMPLE))
    originals = {_id_of(document): document for document in found}
    for stages in branches(view.pipeline):
        asked = [{"$match": which}, *stages]
        served = at.source.aggregate_raw_batches(asked, session=session, collation=SIMPLE)
        for document in raw_documents(served):
            source_id = _id_of(document)
            if originals.pop(source_id, None) != document:
                yield Mismatch(source_id, view.name, "", "compat")
    for source_id in originals:
        yield Mismatch(source_id, view.name, "", "compat")


def _pipeline(at: OpenRun) -> Pipeline:
    return view_pipeline(at.migration, at.migration.source)


def _digest(pipeline: Pipeline) -> str:
    return hashlib.sha256(raw.encode(pipeline).data).hexdigest()


def _note(name: str, digest: str) -> dict[str, str]:
    return {"name": name, "digest": digest}


def _noted(ledger: Ledger, run: str) -> list[str]:
    row = ledger["runs"].find_one({"_id": run}, {"views": 1}) or {}
    return sorted({note["name"] for note in row.get("views", [])})


def _id_of(document: bytes) -> Value:
    found = raw.field(document, "_id")
    assert found is not None
    return found


def _taken(at: OpenRun, name: str, kind: str) -> Refused:
    return Refused(
        f"{at.data.name}.{name} is a {kind} that no run of {at.run.source} has made",
        hint="choose another name: --name",
    )
