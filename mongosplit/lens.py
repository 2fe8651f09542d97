"""What a lens is: the interface, the expressions lenses share, and the lens of one's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from mongosplit import raw
from mongosplit.errors import DefinitionError
from mongosplit.raw import Value

Expression = Any
"""An aggregation expression, or the `"$path"` of one."""

ABSENT = ["missing", "null", "undefined"]
TRUE, FALSE = raw.encode(True), raw.encode(False)


def type_is(expression: Expression, *names: str) -> Expression:
    """An expression that is true when the value's `$type` is one of the names."""
    if len(names) == 1:
        return {"$eq": [{"$type": expression}, names[0]]}
    return {"$in": [{"$type": expression}, list(names)]}


def equal(part: Expression, value: Any) -> Expression:
    """An expression for equal in value and in type: `$eq` alone equates 1 and 1.0."""
    literal = {"$literal": value}
    return {"$and": [{"$eq": [{"$type": part}, {"$type": literal}]}, {"$eq": [part, literal]}]}


def is_absent(value: Value | None) -> bool:
    """Missing or null."""
    return value is None or value.is_null


class Lens(ABC):
    """A way to read one source path as a target field, and to put the field back."""

    @property
    def invertible(self) -> bool:
        """Whether the part can be put back."""
        return True

    @property
    def reads(self) -> tuple[str, ...]:
        """Source paths read besides the one it stands at."""
        return ()

    @abstractmethod
    def get_expression(self, source: Expression) -> Expression:
        """The target field; may evaluate to missing."""

    @abstractmethod
    def get(self, source: Value | None, user: bytes) -> Value | None:
        """The same in Python."""

    @abstractmethod
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        """The source value after the part; may evaluate to missing, which removes the field."""

    @abstractmethod
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        """The same in Python."""


class _Missing:
    """The word for "the field is not there" in the Python half of a lens of one's own."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(frozen=True)
class Custom(Lens):
    """An explicit pair: expressions and Python functions for what no stock lens covers.

    The expression functions take expressions and return one; the Python functions take decoded
    values, `MISSING` where there is none, and return one. Both halves must agree byte for byte.
    Leave the put half out only where the field does not write back.
    """

    get_with: Callable[[Expression], Expression]
    get_python: Callable[[Any], Any]
    put_with: Callable[[Expression, Expression], Expression] | None = None
    put_python: Callable[[Any, Any], Any] | None = None

    @property
    @override
    def invertible(self) -> bool:
        return self.put_with is not None and self.put_python is not None

    @override
    def get_expression(self, source: Expression) -> Expression:
        return self.get_with(source)

    @override
    def get(self, source: Value | None, user: bytes) -> Value | None:
        return _encode(self.get_python(_decode(source)))

    @override
    def put_expression(self, part: Expression, source: Expression) -> Expression:
        if self.put_with is None:
            raise DefinitionError("this lens has no inverse")
        return self.put_with(part, source)

    @override
    def put(self, part: Value | None, source: Value | None, user: bytes) -> Value | None:
        if self.put_python is None:
            raise DefinitionError("this lens has no inverse")
        return _encode(self.put_python(_decode(part), _decode(source)))


def _decode(value: Value | None) -> Any:
    return MISSING if value is None else value.decode()


def _encode(value: Any) -> Value | None:
    return None if value is MISSING else raw.encode(value)
