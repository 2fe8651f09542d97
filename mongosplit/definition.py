"""A migration is a declaration: its targets, and where each of their fields comes from."""

from __future__ import annotations

import importlib
import string
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mongosplit import raw, schema
from mongosplit.errors import DefinitionError, MongosplitError, UsageError
from mongosplit.lens import TRUE, Expression, Lens
from mongosplit.lenses import Constant, Copy
from mongosplit.raw import Value
from mongosplit.rules import refuse_contradictions
from mongosplit.schema import bson_name, stored_name

SHIPPED = {"users": "mongosplit.users:migration"}


@dataclass(frozen=True)
class From:
    """Where a target field comes from: a source path and the lens it is read through.

    One field for each source path writes back (takes part in the join); further fields that read
    the same path say `writes_back=False`.
    """

    path: str
    lens: Lens = field(default_factory=Copy)
    writes_back: bool = True


@dataclass(frozen=True)
class IsTrue:
    """The target has a document when this source path is true; put back as true or false.

    Where several targets stand under the same path, all but one say `writes_back=False`.
    """

    path: str
    writes_back: bool = True

    def expression(self, source: Expression) -> Expression:
        """Whether the part exists."""
        return {"$eq": [source, True]}

    def holds(self, source: Value | None) -> bool:
        """The same in Python."""
        return source == TRUE


@dataclass(frozen=True)
class Index:
    """An index of a target; `only` restricts it to values of these BSON types.

    The numeric types stand for one another, as they do in a query.

    Raises:
        DefinitionError: `only` names a type that an index is not restricted to.
    """

    path: str
    unique: bool = False
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.only) - set(raw.LEAST):
            raise DefinitionError(
                f"the index on {self.path} cannot be restricted to type {min(unknown)}",
                hint=f"use {', '.join(raw.LEAST)}",
            )

    @property
    def name(self) -> str:
        """The index's name, as the server would choose it."""
        return f"{self.path}_1"

    @property
    def options(self) -> dict[str, Any]:
        """The index document of `createIndexes`."""
        index: dict[str, Any] = {"key": {self.path: 1}, "name": self.name}
        if self.unique:
            index["unique"] = True
        if self.only:
            # The planner never uses an index whose filter says $type. It does use one that says
            # "at least the least value of the type", for values of one type at a time.
            least = dict.fromkeys(raw.LEAST[name] for name in self.only)
            types = [{self.path: {"$gte": value}} for value in least]
            index["partialFilterExpression"] = types[0] if len(types) == 1 else {"$or": types}
        return index


@dataclass(frozen=True)
class Field:
    """One target field, ready to compile."""

    name: str
    path: str | None
    lens: Lens
    writes_back: bool


class Part(BaseModel):
    """A nested document of a target; unknown fields are allowed and kept."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow")


class Target(BaseModel):
    """One collection written: a pydantic model whose fields say where each value comes from.

    Class arguments: `collection`; `owner`, the field that holds the source `_id`; `when`, the
    condition for a document to exist (none: always); `indexes`; `adopt_by`, for a collection the
    application shares, the field by which one of its documents without an owner is adopted.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        populate_by_name=True,
        alias_generator=bson_name,
    )

    collection: ClassVar[str] = ""
    owner: ClassVar[str] = "_id"
    when: ClassVar[IsTrue | None] = None
    indexes: ClassVar[tuple[Index, ...]] = ()
    adopt_by: ClassVar[str | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Keep the class arguments."""
        known = {"collection", "owner", "when", "indexes", "adopt_by"}
        if unknown := set(options) - known:
            raise DefinitionError(
                f"target {cls.__name__} has no class argument {min(unknown)}",
                hint=f"use {', '.join(sorted(known))}",
            )
        if shadowed := known & set(cls.model_fields):
            name = min(shadowed)
            raise DefinitionError(
                f"target {cls.__name__} has a field called {name}, which is a class argument",
                hint=f'call it {name}_ and annotate it with pydantic\'s Field(alias="{name}") too',
            )
        for name, value in options.items():
            setattr(cls, name, value)

    @classmethod
    def fields(cls) -> tuple[Field, ...]:
        """The fields in declaration order.

        Raises:
            DefinitionError: a field says neither `From` nor `Constant`.
        """
        return tuple(_field(cls, name) for name in cls.model_fields)

    @classmethod
    def schema_of_documents(cls) -> schema.Schema:
        """The `$jsonSchema` of the collection's documents."""
        return schema.of_model(cls)


def _field(target: type[Target], name: str) -> Field:
    info = target.model_fields[name]
    stored = stored_name(name, info)
    for mark in info.metadata:
        if isinstance(mark, From):
            back = mark.writes_back and mark.path.split(".")[0] != "_id"
            return Field(stored, mark.path, mark.lens, back)
        if isinstance(mark, Constant):
            return Field(stored, None, mark, False)
    raise DefinitionError(
        f"{target.__name__}.{name} does not say where its value comes from",
        hint='annotate it with From("source.path") or Constant(value)',
    )


@dataclass(frozen=True)
class Migration:
    """The declaration of a split: one source collection into targets. What, not when.

    Raises:
        DefinitionError: the declaration contradicts itself (see `mongosplit.rules`).
    """

    name: str
    source: str
    targets: tuple[type[Target], ...]

    def __post_init__(self) -> None:
        refuse_contradictions(self)

    @cached_property
    def keys(self) -> dict[str, type[Target]]:
        """Targets by the one-letter key their part has in a row of the split pipeline."""
        return dict(zip(string.ascii_lowercase, self.targets, strict=False))

    @cached_property
    def fields(self) -> dict[str, tuple[Field, ...]]:
        """The fields of each target, by its collection."""
        return {target.collection: target.fields() for target in self.targets}


def load(name: str) -> Migration:
    """The migration called `name`: a shipped one, or `package.module:attribute`.

    Raises:
        UsageError: there is no such migration.
        DefinitionError: its module cannot be imported, or contradicts itself.
    """
    spec = SHIPPED.get(name, name)
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or module_name.startswith("."):
        raise UsageError(
            f'unknown migration "{name}"; shipped: {", ".join(SHIPPED)}',
            hint="name your own as package.module:attribute",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise UsageError(
            f'migration "{name}": there is no module {error.name}',
            hint="run from the folder that holds it, or install it",
        ) from error
    except MongosplitError:
        raise
    except Exception as error:
        raise DefinitionError(
            f'migration "{name}": importing {module_name} raises {type(error).__name__}: {error}',
            hint=f"python -c 'import {module_name}' shows where",
        ) from error
    if not isinstance(found, Migration):
        raise UsageError(
            f'migration "{name}": {module_name} has no Migration called "{attribute}"',
            hint="name it as package.module:attribute",
        )
    return found
