"""Lenses: how one target field is got from the source and put back, on the server and in Python.

Each lens is given twice, as an aggregation expression and as Python over BSON values; a property
test holds the two together byte for byte. Laws (Foster et al., "Combinators for bidirectional tree
transformations", 2007): `put(get(source), source) == source`, and `get(put(part, source)) == part`
wherever the lens can represent the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from mongosplit import raw
from mongosplit.errors import DefinitionError
from mongosplit.lens import ABSENT, FALSE, TRUE, Expression, Lens, equal, is_absent, type_is
from mongosplit.raw import Value


@dataclass(frozen=True)
class Copy(Lens):
    """The value as it is; missing stays missing, null stays null."""

    @override
    def get_expression(self, source: Expression) -> Expression:
        return source

    @override
    def get(self, source: Value | None, user: bytes) -> Value | None:
        return source

    @override
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        return part

    @override
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        return part


# Compared by identity, as are constants: 1 and True are equal to Python, and typing would give
# two fields annotated with them the one it met first.
@dataclass(frozen=True, eq=False)
class Default(Lens):
    """The value, or `value` where it is missing or null (with `blank`, also where it is "")."""

    value: str | bool | int | list[Any] | dict[str, Any]
    blank: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.value, list | dict) and self.value:
            raise DefinitionError(
                "a default that is a list or a document must be empty",
                hint="give the explicit pair of a Custom lens instead",
            )

    def _applies_expression(self, source: Expression) -> Expression:
        absent = type_is(source, *ABSENT)
        return {"$or": [absent, {"$eq": [source, ""]}]} if self.blank else absent

    def _applies(self, source: Value | None) -> bool:
        return is_absent(source) or (self.blank and raw.is_string(source, ""))

    @override
    def get_expression(self, source: Expression) -> Expression:
        if not self.blank:
            return {"$ifNull": [source, {"$literal": self.value}]}
        return {"$cond": [self._applies_expression(source), {"$literal": self.value}, source]}

    @override
    def get(self, source: Value | None, user: bytes) -> Value | None:
        return raw.encode(self.value) if self._applies(source) else source

    @override
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        unchanged = {"$and": [self._applies_expression(source), equal(part, self.value)]}
        return {"$cond": [unchanged, source, part]}

    @override
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        unchanged = self._applies(source) and part == raw.encode(self.value)
        return source if unchanged else part


@dataclass(frozen=True)
class NotNull(Lens):
    """The value where it is not null; a null becomes missing."""

    @override
    def get_expression(self, source: Expression) -> Expression:
        return {"$ifNull": [source, "$$REMOVE"]}

    @override
    def get(self, source: Value | None, user: bytes) -> Value | None:
        return None if is_absent(source) else source

    @override
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        unchanged = {"$and": [type_is(source, *ABSENT), type_is(part, "missing")]}
        return {"$cond": [unchanged, source, part]}

    @override
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        return source if is_absent(source) and part is None else part


@dataclass(frozen=True)
class Equals(Lens):
    """True when the source is this text, else false; put back as the text or as `otherwise`."""

    text: str
    otherwise: str

    @override
    def get_expression(self, source: Expression) -> Expression:
        return {"$eq": [source, {"$literal": self.text}]}

    @override
    def get(self, source: Value | None, user: bytes) -> Value | None:
        return TRUE if raw.is_string(source, self.text) else FALSE

    @override
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        changed = {"$and": [type_is(part, "bool"), {"$ne": [part, self.get_expression(source)]}]}
        word = {"$cond": [part, {"$literal": self.text}, {"$literal": self.otherwise}]}
        return {"$cond": [changed, word, source]}

    @override
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        if part in (TRUE, FALSE) and part != self.get(source, user):
            return raw.encode(self.text if part == TRUE else self.otherwise)
        return source


@dataclass(frozen=True)
class Presence(Lens):
    """The value at `of` when the source is true, else missing; put back as true or false."""

    of: str

    @property
    @override
    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    @override
    def get_expression(self, source: Expression) -> Expression:
        return {"$cond": [{"$eq": [source, True]}, f"${self.of}", "$$REMOVE"]}

    @override
    def get(self, source: Value | None, user: bytes) -> Value | None:
        return raw.lookup(user, self.of) if source == TRUE else None

    @override
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        wanted = {"$ne": [{"$type": part}, "missing"]}
        present = {"$ne": [{"$type": self.get_expression(source)}, "missing"]}
        return {"$cond": [{"$eq": [wanted, present]}, source, wanted]}

    @override
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        wanted = part is not None
        if wanted == (self.get(source, user) is not None):
            return source
        return raw.encode(wanted)


@dataclass(frozen=True, eq=False)
class Constant(Lens):
    """Always this value; it comes from no source path and goes back to none."""

    value: Any

    @override
    def get_expression(self, source: Expression) -> Expression:
        return {"$literal": self.value}

    @override
    def get(self, source: Value | None, user: bytes) -> Value | None:
        return raw.encode(self.value)

    @override
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        return source

    @override
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        return source
