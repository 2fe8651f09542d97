"""What a declaration may not say: each contradiction refused with one sentence for its author."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mongosplit.errors import DefinitionError
from mongosplit.lenses import Copy

if TYPE_CHECKING:
    from mongosplit.definition import Field, Migration, Target

MAX_TARGETS = 26


def refuse_contradictions(migration: Migration) -> None:
    """Check the whole declaration.

    Raises:
        DefinitionError: with the first contradiction found.
    """
    _check_targets(migration)
    for target in migration.targets:
        fields = target.fields()
        _check_identity(target, fields)
        _check_paths(target, fields)
        _check_adoption(target, fields)
    _check_inverses(migration)
    _check_conflicts(migration)


def _check_targets(migration: Migration) -> None:
    if not 1 <= len(migration.targets) <= MAX_TARGETS:
        raise DefinitionError(
            f"migration {migration.name} has {len(migration.targets)} targets; "
            f"it needs 1 to {MAX_TARGETS}"
        )
    seen: dict[str, str] = {}
    for target in migration.targets:
        if not target.collection:
            raise DefinitionError(
                f"target {target.__name__} names no collection",
                hint=f'write class {target.__name__}(Target, collection="...")',
            )
        if target.collection == migration.source:
            raise DefinitionError(
                f"target {target.__name__} would write the source collection {migration.source}"
            )
        if other := seen.get(target.collection):
            raise DefinitionError(
                f"two targets write the collection {target.collection}: "
                f"{other} and {target.__name__}",
                hint="give each target a collection of its own",
            )
        seen[target.collection] = target.__name__


def _check_identity(target: type[Target], fields: tuple[Field, ...]) -> None:
    # The derive is a pure function of one user only if each part is found by that user's _id.
    from_id = {f.name for f in fields if f.path == "_id" and isinstance(f.lens, Copy)}
    for name in ("_id", target.owner):
        if name not in from_id:
            raise DefinitionError(
                f"target {target.__name__}: field {name} must come from the source _id",
                hint=f'annotate it as Annotated[Id, From("_id")] under the name '
                f"{'id' if name == '_id' else name}",
            )


def _check_paths(target: type[Target], fields: tuple[Field, ...]) -> None:
    paths = [(f.name, path) for f in fields for path in _reads(f)]
    if target.when is not None:
        paths.append(("when", target.when.path))
    for name, path in paths:
        if not all(_is_name(step) for step in path.split(".")):
            raise DefinitionError(
                f'target {target.__name__}.{name}: "{path}" is not a path an expression can read',
                hint="write names joined by single dots, none of them starting with $",
            )
    for f in fields:
        if "." in f.name or not _is_name(f.name):
            raise DefinitionError(
                f'target {target.__name__}: "{f.name}" is not a name an expression can write',
                hint="write a name without dots that does not start with $",
            )


def _is_name(step: str) -> bool:
    return bool(step) and not step.startswith("$") and "\0" not in step


def _reads(field: Field) -> Iterator[str]:
    if field.path is not None:
        yield field.path
    yield from field.lens.reads


def _check_adoption(target: type[Target], fields: tuple[Field, ...]) -> None:
    field = target.adopt_by
    if field is None:
        return
    if field not in {f.name for f in fields}:
        raise DefinitionError(f"target {target.__name__} adopts by {field}, which is not its field")
    if target.owner == "_id":
        raise DefinitionError(
            f"target {target.__name__} adopts documents, so its owner cannot be _id",
            hint="give owner= a field of its own that holds the source _id",
        )
    if not any(index.unique and index.path == field for index in target.indexes):
        raise DefinitionError(
            f"target {target.__name__} adopts by {field}, which has no unique index",
            hint=f'add Index("{field}", unique=True)',
        )


def _check_inverses(migration: Migration) -> None:
    for target in migration.targets:
        for field in target.fields():
            if field.writes_back and not field.lens.invertible:
                raise DefinitionError(
                    f"target {target.__name__}.{field.name}: its lens has no inverse",
                    hint="give the put half of the lens, or say From(..., writes_back=False)",
                )


def _check_conflicts(migration: Migration) -> None:
    writers: dict[str, str] = {}
    for path, writer in _writers(migration):
        for other_path, other in writers.items():
            if path == other_path or path.startswith(other_path + "."):
                at, inner = other_path, path
            elif other_path.startswith(path + "."):
                at, inner = path, other_path
            else:
                continue
            where = at if at == inner else f"{at} and {inner}"
            raise DefinitionError(
                f"the source path {where} is mapped twice in conflict: "
                f"both {other} and {writer} would write it back",
                hint="keep one and say writes_back=False on the other",
            )
        writers[path] = writer


def _writers(migration: Migration) -> Iterator[tuple[str, str]]:
    for target in migration.targets:
        if target.when is not None and target.when.writes_back:
            yield target.when.path, f"{target.__name__}.when"
        for field in target.fields():
            if field.writes_back and field.path is not None:
                yield field.path, f"{target.__name__}.{field.name}"
