"""Provision: make the target collections with their validators and indexes, idempotently.

What was made is returned, so that a rollback of the whole run can take exactly that away again.
"""

from __future__ import annotations

from typing import Any

from pymongo.errors import OperationFailure

from mongosplit import pipelines, raw
from mongosplit.definition import Index, Migration, Target
from mongosplit.errors import Refused
from mongosplit.mongo import DUPLICATE_KEY, Data

Made = dict[str, Any]
"""For one target: `collection`, and what was made: `created`, `validator`, `indexes` (names)."""


def provision(data: Data, migration: Migration) -> list[Made]:
    """Make what each target needs and does not have; what is there already is left as it is.

    Raises:
        Refused: a target has another validator, an index in the way, or is not a plain collection,
            and nothing is made; or documents in one of them have the same unique key.
    """
    for target in migration.targets:
        _look(data, target)
    # Those that are there come first: only their documents can stand in an index's way.
    there = set(data.list_collection_names())
    order = sorted(migration.targets, key=lambda target: target.collection not in there)
    made = {target.collection: _provision(data, target) for target in order}
    return [made[target.collection] for target in migration.targets]


def obstacles(data: Data, migration: Migration) -> list[str]:
    """Sentences for everything `provision` would refuse, found without writing."""
    found: list[str] = []
    for target in migration.targets:
        try:
            _look(data, target)
        except Refused as refusal:
            found.append(refusal.message)
    return found


def _look(data: Data, target: type[Target]) -> None:
    if _options(data, target) is not None:
        _missing_indexes(data, target)


def _provision(data: Data, target: type[Target]) -> Made:
    options = _options(data, target)
    validator = pipelines.validator(target)
    made: Made = {"collection": target.collection, "created": False, "validator": False}
    if options is None:
        data.create_collection(target.collection, validator=validator)
        made |= {"created": True, "validator": True}
    missing = _missing_indexes(data, target)
    if missing:
        _create_indexes(data, target, missing)
    if options is not None and not options.get("validator"):
        data.command("collMod", target.collection, validator=validator)
        made["validator"] = True
    return {**made, "indexes": [index.name for index in missing]}


def _options(data: Data, target: type[Target]) -> dict[str, Any] | None:
    """The options of the target's collection, None when it does not exist.

    Raises:
        Refused: it is a view, has another validator or a collation, or does not hold to validators.
    """
    name = target.collection
    info = next(iter(data.list_collections(filter={"name": name})), None)
    if info is None:
        return None
    if info["type"] != "collection":
        raise Refused(f"target {name} is a {info['type']}, not a collection")
    options: dict[str, Any] = info.get("options", {})
    if options.get("collation"):
        raise Refused(f"target {name} has a default collation; keys must be compared by bytes")
    hold = (options.get("validationLevel", "strict"), options.get("validationAction", "error"))
    if hold != ("strict", "error"):
        raise Refused(
            f"target {name} lets wrong documents in: its validation is {' and '.join(hold)}",
            hint="set validationLevel strict and validationAction error (collMod)",
        )
    there = options.get("validator")
    if there and there != pipelines.validator(target):
        raise Refused(
            f"target {name} has another validator already",
            hint="remove it (collMod with an empty validator), or choose another collection",
        )
    return options


def _missing_indexes(data: Data, target: type[Target]) -> list[Index]:
    """The declared indexes that the collection lacks.

    Raises:
        Refused: an index on the same field, or of the same name, promises something else.
    """
    # The driver's own list_indexes cannot read a date as early as a filter may name.
    answer = data.command("listIndexes", target.collection, codec_options=raw.EXACT)
    there: list[dict[str, Any]] = answer["cursor"]["firstBatch"]
    missing: list[Index] = []
    for index in target.indexes:
        same = [
            found
            for found in there
            if dict(found["key"]) == index.options["key"] or found["name"] == index.name
        ]
        if not same:
            missing.append(index)
        elif not any(_serves(found, index) for found in same):
            raise Refused(
                f"target {target.collection} has an index {same[0]['name']} in the way: "
                f"{'unique ' if index.unique else ''}{index.path} is needed",
                hint="drop it, or declare the index as it is",
            )
    return missing


def _serves(found: dict[str, Any], index: Index) -> bool:
    wanted = index.options
    return (
        dict(found["key"]) == wanted["key"]
        and bool(found.get("unique")) == index.unique
        and _filter(found) == _filter(wanted)
        and not found.get("sparse")
        and not found.get("collation")
    )


def _filter(index: dict[str, Any]) -> raw.Value:
    # As bytes: decoded binary data of no special kind is not equal to what it was made from.
    return raw.encode(index.get("partialFilterExpression"))


def _create_indexes(data: Data, target: type[Target], missing: list[Index]) -> None:
    try:
        data.command(
            "createIndexes", target.collection, indexes=[index.options for index in missing]
        )
    except OperationFailure as error:
        if error.code != DUPLICATE_KEY:
            raise
        raise Refused(
            f"target {target.collection} holds two documents with the same key: "
            f"its unique indexes ({_unique(missing)}) cannot be made",
            hint="mend the doubles in it first",
        ) from error


def _unique(indexes: list[Index]) -> str:
    return ", ".join(index.path for index in indexes if index.unique)
