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

NOTHING_PASSES: dict[str, Any] = {"$nor": [{}]}

Made = dict[str, Any]
"""For one target: `collection`, and what was made: `created`, `validator`, `indexes` (names)."""


def missing(data: Data, migration: Migration) -> list[Made]:
    """What `provision` would make for each target; noted before it is made, lest it be forgotten.

    Raises:
        Refused: as `provision`.
    """
    return [_missing(data, target) for target in migration.targets]


def provision(data: Data, migration: Migration) -> list[Made]:
    """Make what each target needs and does not have; what is there already is left as it is.

    Raises:
        Refused: a target has another validator, an index in the way, or is not a plain collection,
            and nothing is made; or documents in one of them have the same unique key.
    """
    made = {found["collection"]: found for found in missing(data, migration)}
    # Those that are there come first: only their documents can stand in an index's way.
    for target in sorted(migration.targets, key=lambda one: bool(made[one.collection]["created"])):
        _make(data, target, made[target.collection])
    return list(made.values())


def take_away(data: Data, made: list[Made]) -> list[str]:
    """Take away what was made, idempotently; sentences for what had to stay.

    A collection that holds documents stays: they are not ours, or they would be gone.
    """
    stayed: list[str] = []
    there = set(data.list_collection_names())
    for found in made:
        name = found["collection"]
        if name not in there:
            continue
        if found["created"]:
            # Nobody may write it between the look and the drop.
            data.command("collMod", name, validator=NOTHING_PASSES)
            if data[name].find_one({}, {"_id": 1}) is None:
                data.drop_collection(name)
                continue
        _take_off(data, name, found)
        if found["created"]:
            stayed.append(f"{name} stays: it holds documents that this run did not write")
    return stayed


def _take_off(data: Data, name: str, found: Made) -> None:
    present = {index["name"] for index in _indexes(data, name)}
    for index in found["indexes"]:
        if index in present:
            data[name].drop_index(index)
    if found["validator"]:
        data.command("collMod", name, validator={})


def obstacles(data: Data, migration: Migration) -> list[str]:
    """Sentences for everything `provision` would refuse, found without writing."""
    found: list[str] = []
    for target in migration.targets:
        try:
            _missing(data, target)
        except Refused as refusal:
            found.append(refusal.message)
    return found


def _missing(data: Data, target: type[Target]) -> Made:
    options = _options(data, target)
    lacking = list(target.indexes) if options is None else _missing_indexes(data, target)
    return {
        "collection": target.collection,
        "created": options is None,
        "validator": options is None or not options.get("validator"),
        "indexes": [index.name for index in lacking],
    }


def _make(data: Data, target: type[Target], lacks: Made) -> None:
    validator = pipelines.validator(target)
    if lacks["created"]:
        data.create_collection(target.collection, validator=validator)
    indexes = [index for index in target.indexes if index.name in lacks["indexes"]]
    if indexes:
        _create_indexes(data, target, indexes)
    if lacks["validator"] and not lacks["created"]:
        data.command("collMod", target.collection, validator=validator)


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
    there = _indexes(data, target.collection)
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


def _indexes(data: Data, name: str) -> list[dict[str, Any]]:
    # The driver's own list_indexes cannot read a date as early as a filter may name.
    answer = data.command("listIndexes", name, codec_options=raw.EXACT)
    found: list[dict[str, Any]] = answer["cursor"]["firstBatch"]
    return found


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
