"""The reference split and join in Python: slow, obvious, and byte for byte what the pipelines do.

It explains a bad document, takes over where a row is too large for the server, and checks the
pipelines independently.
"""

from __future__ import annotations

from mongosplit import raw
from mongosplit.definition import Migration, Target
from mongosplit.pipelines import Node, Write, writes
from mongosplit.raw import Value

Parts = dict[str, bytes]
"""One BSON document for each target the user has a part in, by the target's row key."""


def split(migration: Migration, user: bytes) -> Parts:
    """The parts of one source document."""
    return {
        key: _part(migration, target, user)
        for key, target in migration.keys.items()
        if target.when is None or target.when.holds(raw.lookup(user, target.when.path))
    }


def _part(migration: Migration, target: type[Target], user: bytes) -> bytes:
    fields: list[tuple[str, Value]] = []
    for f in migration.fields[target.collection]:
        source = None if f.path is None else raw.lookup(user, f.path)
        value = f.lens.get(source, user)
        if value is not None:
            fields.append((f.name, value))
    return raw.build(fields)


def join(migration: Migration, archived: bytes, parts: Parts) -> bytes:
    """The source document that the parts stand for; what no part holds is taken from `archived`."""
    joined = _write_fields(writes(migration), Value(3, archived), archived, parts)
    return joined.data


def _write_fields(node: Node, parent: Value | None, user: bytes, parts: Parts) -> Value:
    document = list(raw.elements(parent.data)) if parent is not None and parent.is_object else []
    for name, child in node.children.items():
        source = next((value for key, value in document if key == name), None)
        document = _set(document, name, _new_value(child, source, user, parts))
    return raw.subdocument(document)


def _new_value(
    child: Node | Write, source: Value | None, user: bytes, parts: Parts
) -> Value | None:
    if isinstance(child, Write):
        return _written(child, source, user, parts)
    if source is not None and source.is_array:
        return source
    written = _write_fields(child, source, user, parts)
    if (source is None or not source.is_object) and written == raw.subdocument([]):
        return source
    return written


def _written(write: Write, source: Value | None, user: bytes, parts: Parts) -> Value | None:
    part = parts.get(write.key)
    if write.field is None:
        assert write.target.when is not None
        present = part is not None
        return source if write.target.when.holds(source) == present else raw.encode(present)
    if part is None:
        return source
    return write.field.lens.put(raw.field(part, write.field.name), source, user)


def _set(
    document: list[tuple[str, Value]], name: str, value: Value | None
) -> list[tuple[str, Value]]:
    if value is None:
        return [(key, old) for key, old in document if key != name]
    if any(key == name for key, _ in document):
        return [(key, value if key == name else old) for key, old in document]
    return [*document, (name, value)]
