"""The split pipeline and the join pipeline, compiled from a declaration; and its fingerprint.

Aggregation behaviour relied upon here was measured on MongoDB 6.0.5; the property tests hold each
of it against the Python reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bson import MinKey

from mongosplit import raw
from mongosplit.definition import Field, Migration, Target
from mongosplit.lens import Expression

Pipeline = list[dict[str, Any]]

SIMPLE = {"locale": "simple"}
"""Comparisons by bytes, whatever the collection's own collation."""

_OWNER = "__mongosplit_owner"


def split_row(migration: Migration) -> dict[str, Any]:
    """The expression for one row `{a: part, b: part?, …}` of one source document."""
    row: dict[str, Any] = {}
    for key, target in migration.keys.items():
        # Every field is computed, so the order in the part is declaration order.
        part = {
            f.name: f.lens.get_expression(None if f.path is None else f"${f.path}")
            for f in migration.fields[target.collection]
        }
        if target.when is not None:
            row[key] = {"$cond": [target.when.expression(f"${target.when.path}"), part, "$$REMOVE"]}
        else:
            row[key] = part
    return row


def split_pipeline(migration: Migration, match: dict[str, Any]) -> Pipeline:
    """Turns the source documents that `match` finds into rows, in `_id` order."""
    return split_stages(split_row(migration), match)


def split_stages(row: dict[str, Any], match: dict[str, Any]) -> Pipeline:
    """The split pipeline for a row that is compiled already."""
    return [{"$match": match}, {"$sort": {"_id": 1}}, {"$replaceRoot": {"newRoot": row}}]


@dataclass
class Write:
    """One source path written back: from which part, or, without a field, the part's presence."""

    key: str
    field: Field | None
    target: type[Target]


@dataclass
class Node:
    """The source paths written back below one path, as a tree in declaration order."""

    children: dict[str, Node | Write] = field(default_factory=dict)

    def place(self, path: str, write: Write) -> None:
        """Put a write at a path; the declaration's rules keep paths apart."""
        head, _, rest = path.partition(".")
        if not rest:
            self.children[head] = write
            return
        below = self.children.setdefault(head, Node())
        if isinstance(below, Node):
            below.place(rest, write)


def writes(migration: Migration) -> Node:
    """Every source path the join writes, as a tree."""
    root = Node()
    for key, target in migration.keys.items():
        if target.when is not None and target.when.writes_back:
            root.place(target.when.path, Write(key, None, target))
        for f in migration.fields[target.collection]:
            if f.writes_back and f.path is not None:
                root.place(f.path, Write(key, f, target))
    return root


def part_variable(key: str) -> str:
    """The temporary field a joined part stands in."""
    return f"__mongosplit_{key}"


def join_pipeline(migration: Migration) -> Pipeline:
    """Overlays the parts on the archived source document; what no part holds stays as it is.

    Runs on the archived collection, in the database of the targets. `$set` and not `$replaceRoot`,
    so that a filter on an unmapped field can be pushed down before the lookups.
    """
    # A lookup by null finds every document that has no owner: somebody else's.
    stages: Pipeline = [{"$set": {_OWNER: {"$ifNull": ["$_id", MinKey()]}}}]
    for key, target in migration.keys.items():
        name = part_variable(key)
        stages.append(
            {
                "$lookup": {
                    "from": target.collection,
                    "localField": "_id" if target.owner == "_id" else _OWNER,
                    "foreignField": target.owner,
                    "as": name,
                }
            }
        )
        stages.append({"$set": {name: {"$first": f"${name}"}}})
    stages.append({"$set": join_set(migration)})
    stages.append({"$unset": [_OWNER, *(part_variable(key) for key in migration.keys)]})
    return stages


def join_set(migration: Migration) -> dict[str, Any]:
    """The `$set` of the join, given each part in its temporary field."""
    return {
        name: new_value(child, f"${name}") for name, child in writes(migration).children.items()
    }


def new_value(child: Node | Write, source: str, depth: int = 0) -> Expression:
    """What the join writes at `source`; `depth` are the trees it stands in."""
    if isinstance(child, Node):
        return _rebuilt(child, source, depth)
    part = f"${part_variable(child.key)}"
    present = {"$eq": [{"$type": part}, "object"]}
    if child.field is None:
        assert child.target.when is not None
        holds = child.target.when.expression(source)
        return {"$cond": [{"$eq": [holds, present]}, source, present]}
    put = child.field.lens.put_expression(f"{part}.{child.field.name}", source)
    return {"$cond": [present, put, source]}


def _rebuilt(node: Node, source: str, depth: int) -> Expression:
    """The embedded document at `source` with the node's fields written into it.

    A parent that is not there is made only when a field needs it (a plain `$set` of a nested path
    would leave an empty parent behind), and a parent that is an array is left alone: its fields
    cannot be told apart.
    """
    names = {name: f"new_{depth}_{index}" for index, name in enumerate(node.children)}
    values = {
        names[name]: new_value(child, f"{source}.{name}", depth + 1)
        for name, child in node.children.items()
    }
    nothing = {"$and": [{"$eq": [{"$type": f"$${var}"}, "missing"]} for var in values]}
    kind = {"$type": source}
    written = {
        "$switch": {
            "branches": [
                {"case": {"$eq": [kind, "object"]}, "then": _set_fields(source, names)},
                {"case": {"$or": [{"$eq": [kind, "array"]}, nothing]}, "then": source},
            ],
            "default": _set_fields({"$literal": {}}, names),
        }
    }
    return {"$let": {"vars": values, "in": written}}


def _set_fields(document: Expression, names: dict[str, str]) -> Expression:
    for name, variable in names.items():
        document = {"$setField": {"field": name, "input": document, "value": f"$${variable}"}}
    return document


def index_documents(target: type[Target]) -> list[dict[str, Any]]:
    """The `createIndexes` documents of a target, in declaration order."""
    return [index.options for index in target.indexes]


def validator(target: type[Target]) -> dict[str, Any]:
    """The collection validator of a target.

    In a shared target it speaks of parts only, which stand under the `_id` of their owner. The
    application's own documents are left alone, before and after one of them is adopted: an update
    of theirs must not fail because of us.
    """
    rule: dict[str, Any] = {"$jsonSchema": target.schema_of_documents()}
    if target.adopt_by is None:
        return rule
    own = {"$expr": {"$ne": ["$_id", f"${target.owner}"]}}
    return {"$or": [{target.owner: None}, own, rule]}


def fingerprint(migration: Migration) -> str:
    """Which version of the declaration this is: 16 hex digits over everything compiled from it."""
    facts: list[Any] = [migration.name, migration.source, list(_target_facts(migration))]
    facts += [split_row(migration), join_pipeline(migration)]
    # BSON tells int, long and double apart, as the documents made from these facts do.
    return hashlib.sha256(raw.encode(facts).data).hexdigest()[:16]


def _target_facts(migration: Migration) -> Iterator[list[Any]]:
    for target in migration.targets:
        yield [
            target.collection,
            target.owner,
            target.adopt_by,
            validator(target),
            index_documents(target),
        ]
