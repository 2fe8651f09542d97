"""The pipeline of the compat view: the join, in a form through which filters reach an index.

A filter passes below a stage only where the stage leaves its field alone (measured on 6.0.5: it
never passes `$replaceRoot`, nor a `$set` that computes the field or a parent of it). The old order
of the fields is known to the archived document alone, so the view stands on the archive, and the
paths by which the first target is found, the keys, are served as they stand there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bson import MinKey

from mongosplit import pipelines
from mongosplit.definition import Migration
from mongosplit.lens import Expression
from mongosplit.lenses import Copy
from mongosplit.pipelines import Node, Pipeline, Write

_OWNER = "__mongosplit_owner"
_SPLIT = "__mongosplit_split"
_DEEPEST = 2
"""Names in the path of a key: each parent of it must be a plain document, and is tested."""


def keys(migration: Migration) -> dict[str, str]:
    """The paths that keep their index: each with the field of the first target that holds it."""
    target = migration.targets[0]
    indexed = {index.path for index in target.indexes}
    return {
        f.path: f.name
        for f in migration.fields[target.collection]
        if f.path is not None and f.writes_back and f.name in indexed
        if isinstance(f.lens, Copy) and f.path.count(".") < _DEEPEST
    }


def view_pipeline(migration: Migration, archive: str) -> Pipeline:
    """What the view computes from the documents of the collection `archive`.

    Byte for byte the joined document, where the archive holds for the keys what the first target
    holds. Who is not split (in quarantine, not migrated yet) is served as archived, and so is a
    document in which a parent of a key is no plain document.
    """
    trees = _trees(migration)
    joined = [
        *_lookups(migration, trees),
        {"$set": _joined(migration, trees)},
        *({"$set": {name: _settled(name, tree)}} for name, tree in trees.items()),
        {"$unset": [*_temporary(migration), *(tree.before for tree in trees.values())]},
    ]
    plain = {name: {"$type": "object", "$not": {"$type": "array"}} for name in _parents(migration)}
    if not plain:
        return joined
    others = {"coll": archive, "pipeline": [{"$match": {"$nor": [plain]}}]}
    return [{"$match": plain}, *joined, {"$unionWith": others}]


def branches(pipeline: Pipeline) -> list[Pipeline]:
    """A view's pipeline in parts, none of which has a stage that a transaction does not allow."""
    *stages, last = pipeline
    if "$unionWith" not in last:
        return [pipeline]
    return [stages, last["$unionWith"]["pipeline"]]


def _has(key: str) -> str:
    return f"__mongosplit_has_{key}"


def _temporary(migration: Migration) -> list[str]:
    parts = [name for key in migration.keys for name in (pipelines.part_variable(key), _has(key))]
    return [_OWNER, _SPLIT, *parts]


def _lookups(migration: Migration, trees: dict[str, _Tree]) -> Pipeline:
    # A lookup by null finds every document that has no owner: somebody else's.
    stages: Pipeline = [{"$set": {_OWNER: {"$ifNull": ["$_id", MinKey()]}}}]
    first: dict[str, Any] = {}
    for key, target in migration.keys.items():
        part = pipelines.part_variable(key)
        lookup = {
            "from": target.collection,
            "localField": "_id" if target.owner == "_id" else _OWNER,
            "foreignField": target.owner,
            "as": part,
        }
        stages.append({"$lookup": lookup})
        first |= {part: {"$first": f"${part}"}, _has(key): {"$ne": [f"${part}", []]}}
    always = [key for key, target in migration.keys.items() if target.when is None]
    parts = [f"${pipelines.part_variable(key)}" for key in always or migration.keys]
    first[_SPLIT] = {"$or": [{"$ne": [part, []]} for part in parts]}
    first |= {tree.before: f"${name}" for name, tree in trees.items()}
    return [*stages, {"$set": first}]


@dataclass(frozen=True)
class _Tree:
    """An embedded document all of whose fields are written from one part, and where it is kept."""

    node: Node
    key: str
    before: str


def _trees(migration: Migration) -> dict[str, _Tree]:
    found: dict[str, _Tree] = {}
    held = _parents(migration)
    for name, child in pipelines.writes(migration).children.items():
        if isinstance(child, Node) and name not in held:
            key, *others = _owners(child)
            if key is not None and not others:
                found[name] = _Tree(child, key, f"__mongosplit_before_{len(found)}")
    return found


def _parents(migration: Migration) -> list[str]:
    return sorted({path.partition(".")[0] for path in keys(migration) if "." in path})


def _joined(migration: Migration, trees: dict[str, _Tree]) -> dict[str, Any]:
    """The fields of the `$set`; the keys are none of them, nor are their parents.

    Most of a point read is the server's reading of the pipeline: a path is the least to read. So a
    tree is written field by field, into whatever stands there, and settled afterwards.
    """
    found: dict[str, Any] = {}
    untouched, held = keys(migration), _parents(migration)
    for name, child in pipelines.writes(migration).children.items():
        if name in trees:
            found |= _written(trees[name], name)
        elif name in held and isinstance(child, Node):
            below = {f"{name}.{inner}": each for inner, each in child.children.items()}
            found |= {path: _value(each, f"${path}") for path, each in below.items()}
        else:
            found[name] = _value(child, f"${name}")
    return {path: value for path, value in found.items() if path not in untouched}


def _value(child: Node | Write, source: str) -> Expression:
    if isinstance(child, Node):
        return pipelines.new_value(child, source)
    has = f"${_has(child.key)}"
    if child.field is None:
        assert child.target.when is not None
        holds = child.target.when.expression(source)
        # Who is not split has no parts at all, which says nothing of each.
        ended = {"$and": [f"${_SPLIT}", {"$ne": [holds, has]}]}
        return {"$cond": [ended, has, source]}
    return {"$cond": [has, _put(child, source), source]}


def _put(write: Write, source: str) -> Expression:
    assert write.field is not None
    part = pipelines.part_variable(write.key)
    return write.field.lens.put_expression(f"${part}.{write.field.name}", source)


def _written(tree: _Tree, name: str) -> dict[str, Any]:
    return {
        f"{name}.{inner}": pipelines.new_value(each, f"${name}.{inner}")
        if isinstance(each, Node)
        else _put(each, f"${name}.{inner}")
        for inner, each in tree.node.children.items()
    }


def _settled(name: str, tree: _Tree) -> Expression:
    """What was written, unless there is no part, or no document that it could be written into."""
    kind = {"$type": f"${tree.before}"}
    nothing = {"$and": [{"$ne": [kind, "object"]}, {"$eq": [f"${name}", {"$literal": {}}]}]}
    stays = {"$or": [{"$not": [f"${_has(tree.key)}"]}, {"$eq": [kind, "array"]}, nothing]}
    return {"$cond": [stays, f"${tree.before}", f"${name}"]}


def _owners(node: Node) -> set[str | None]:
    """The row keys of the parts that write below; None among them for the presence of a part."""
    found: set[str | None] = set()
    for child in node.children.values():
        if isinstance(child, Node):
            found |= _owners(child)
        else:
            found.add(child.key if child.field is not None else None)
    return found
