"""Whoever is not ours: the application, a foreign writer, and the operator who asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.model.states import (
    AGAINS,
    FOREIGN,
    FOREIGNS,
    IN_FORCE,
    OPS,
    PENDING,
    ROLLBACKS,
    UNDONE,
    Row,
)

if TYPE_CHECKING:
    from tests.model.protocol import Protocol
    from tests.model.states import State, Step


def steps(model: Protocol, state: State) -> Iterator[Step]:
    """What can come from outside next."""
    yield from _application(model, state)
    yield from _foreign(model, state)
    yield from _operator(model, state)


def _application(model: Protocol, state: State) -> Iterator[Step]:
    if state.left[OPS]:
        for i in model.ids:
            for value in model.variant.values:
                if value != state.store[i] and (after := model.wrote(state, ((i, value),))):
                    written = model.spent(after, OPS)._replace(log=(*state.log, i))
                    yield ("app", i, value), written


def _foreign(model: Protocol, state: State) -> Iterator[Step]:
    if state.left[FOREIGNS]:
        for i in model.ids:
            key = model.first + i
            if state.store[key] and state.store[key] != FOREIGN:
                for value in (0, FOREIGN):
                    if after := model.wrote(state, ((key, value),)):
                        after = after._replace(tampered=state.tampered | 1 << i)
                        yield ("foreign", i, value), model.spent(after, FOREIGNS)


def _operator(model: Protocol, state: State) -> Iterator[Step]:
    for c in model.chunks:
        row: Row = state.store[model.row + c]
        if state.left[ROLLBACKS] and row.state in IN_FORCE and not row.undo:
            yield from _ask(model, state, c, "rollback", row._replace(undo=1), ROLLBACKS)
        if state.left[AGAINS] and row.state == UNDONE:
            again = row._replace(state=PENDING, wanted=1)
            yield from _ask(model, state, c, "migrate", again, AGAINS)


def _ask(
    model: Protocol, state: State, c: int, what: str, row: Row, counter: int
) -> Iterator[Step]:
    if after := model.wrote(state, ((model.row + c, row),)):
        yield ("ask", what, c), model.spent(after, counter)
