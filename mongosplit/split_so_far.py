"""What the split makes of one source document so far: of each target the part, or all its problems.

A chunk stops at the first problem of a document, since one is enough for quarantine; whoever mends
the document wants all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mongosplit import raw, reference, schema
from mongosplit.derive import read_source
from mongosplit.errors import DocumentError
from mongosplit.mongo import Session, among
from mongosplit.open_run import OpenRun
from mongosplit.raw import MAX_DOCUMENT_BYTES, Value
from mongosplit.schema import ID_TYPES
from mongosplit.slow_path import as_error
from mongosplit.unique import UniqueKeys

NOTHING, WHOLE, PROBLEMS = "nothing", "whole", "problems"


@dataclass(frozen=True, slots=True)
class PartSoFar:
    """A target's part: none (`part` is None), or the part and what is wrong with it."""

    target: str
    part: bytes | None
    problems: tuple[DocumentError, ...] = ()

    @property
    def state(self) -> str:
        """`nothing`: the document has no part there; `whole`: it would be fine; `problems`."""
        if self.part is None:
            return NOTHING
        return PROBLEMS if self.problems else WHOLE


@dataclass(frozen=True, slots=True)
class SplitSoFar:
    """A source document and its parts, one for each target in the order of the declaration."""

    document: bytes
    parts: tuple[PartSoFar, ...]


def of_document(at: OpenRun, source_id: Value, session: Session) -> SplitSoFar | None:
    """What the split makes of the document now, in this snapshot; None when it is not there.

    A unique key that is taken is a problem too, of which each target names the first.
    """
    document = next(read_source(at, among("_id", [source_id]), session), None)  # type: ignore[arg-type]
    if document is None:
        return None
    parts = reference.split(at.migration, document)
    return SplitSoFar(
        document,
        tuple(
            PartSoFar(
                target.collection,
                parts.get(key),
                tuple(_problems(at, session, key, parts[key], source_id)) if key in parts else (),
            )
            for key, target in at.migration.keys.items()
        ),
    )


def _problems(
    at: OpenRun, session: Session, key: str, part: bytes, source_id: Value
) -> Iterator[DocumentError]:
    target = at.migration.keys[key]
    has_range = source_id.type_name in ID_TYPES
    if not has_range:
        sentence = f"_id is of type {source_id.type_name}, which has no ranges"
        yield DocumentError("id-type", "_id", sentence, target=target.collection)
    wrong: dict[str, str] = {}
    for problem in schema.problems(at.schemas[key], Value(3, part)):
        error = as_error(at, target, problem)
        wrong[problem.path[0]] = error.path
        if has_range or error.path != "_id":
            yield error
    if len(part) > MAX_DOCUMENT_BYTES:
        sentence = f"its document in {target.collection} would be larger than 16 MB"
        yield DocumentError("too-large", "", sentence, target=target.collection)
    else:
        yield from _taken(at, session, key, part, source_id, wrong)


def _taken(
    at: OpenRun, session: Session, key: str, part: bytes, source_id: Value, wrong: dict[str, str]
) -> Iterator[DocumentError]:
    # A value of a wrong type cannot be asked for: a regular expression would match others.
    right = raw.build(field for field in raw.elements(part) if field[0] not in wrong)
    try:
        UniqueKeys(at, session, [{key: right}]).take(source_id, {key: right})
    except DocumentError as taken:
        # A field that was left out counts as null, which the part does not hold.
        if taken.path not in wrong.values():
            yield taken
