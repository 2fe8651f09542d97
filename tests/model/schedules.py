"""Schedules for a conformance test: random walks of the model, with what must stand at each rest.

Whoever follows a schedule against a real server does each action in order, one at a time, and at
each `rest` compares sources, targets and ledger rows. No action in a schedule has to wait: what
would wait is not offered.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.model.protocol import Protocol
from tests.model.search import Label
from tests.model.states import STATES, State, Variant

LONGEST = 2000
"""Steps after which a walk is given up; a walk of these bounds rests long before."""

OUTSIDE = ("app", "ask", "foreign")
SHARE_OUTSIDE = 0.3
"""How often those outside get their turn, so that a walk does not begin with all they do."""


class Rest(NamedTuple):
    """What must stand when nothing is left to do."""

    sources: tuple[int, ...]
    """The source value of each id; 0 for no user."""
    parts: tuple[tuple[int, int], ...]
    """The parts of each id, 0 for none; of `UniqueKeys` the key, and 1 + who holds it."""
    states: tuple[str, ...]
    """The state of each chunk, in words."""
    tampered: tuple[int, ...]
    """Ids whose parts are as a foreign writer left them; of use only where somebody verifies."""


class Action(NamedTuple):
    """One step, and the rest that it ends in, if it does."""

    label: Label
    rest: Rest | None


def schedules(
    variant: Variant, count: int, seed: int, *, model: type[Protocol] = Protocol
) -> Iterator[list[Action]]:
    """So many random walks from the initial state to a rest; the same for the same seed.

    A walk may rest several times; it ends at a rest. In the initial state the sources are
    `variant.source`, there are no parts, every chunk is pending and the follower's start position
    is taken. `n` is the number of a process, its own among all kinds (copies come first, then
    syncs, rollback, verify). The labels:

    - `("app", id, value)`: the application writes the source plainly (0: deletes it). What a value
      derives to is in `states.DERIVED`; for `UniqueKeys` it is the key.
    - `("foreign", id, value)`: somebody else replaces the first part by `states.FOREIGN` (0:
      deletes it).
    - `("follower", "mark", id)`: reads the next event and upserts the dirty row with a fresh stamp.
      Without crashes in the variant it saves its token at once; else there follow
      `("follower", "save")`, and `("follower", "crash")`: starts again from the saved token.
    - `("copy", n, "begin", chunk)`: begins, takes the fence, sees `pending`.
      `("copy", n, "commit")`: derives, inserts, records, commits; with `split` these are
      `("copy", n, "write")` and `"commit"`. `("copy", n, "conflict")`: the same, and the server
      refuses it; aborted. `("copy", n, "duplicate")`: a part was there already; aborted.
    - `("sync", n, "take", ids)`: reads the dirty rows of these ids, remembers their stamps.
      `("sync", n, "begin")`: begins, takes the fences of all chunks concerned.
      `("sync", n, "narrow", chunk)`: a fence is busy; goes on with the ids of this chunk alone.
      `("sync", n, "widen", id)`: a key is held by this id; aborts, goes on with it, too.
      `("sync", n, "commit")`, `"write"`, `"conflict"`: as for copy; after a conflict it is idle.
      Of `UniqueKeys` a conflict may also stand in the place of `"begin"`: a fence is busy.
      When no stamp it remembers is still the row's, sync is idle after its commit; else follows
      `("sync", n, "clear", ids)`: deletes by stamp, which finds the rows of exactly these ids.
    - `("ask", "rollback", chunk)`, `("ask", "migrate", chunk)`: the operator's plain updates.
    - `("rollback", n, "begin", chunk)`, `"write"`, `"commit"`, `"conflict"`: as for copy.
    - `("verify", n, "look", chunk)`: compares at a first snapshot; then `"passed"` (the follower's
      saved position has passed it), `"not dirty"`, `"look again"`, until nothing differs or what
      differs is real; `"record"` marks verified; `"starts over"`: the row is not as it was seen.
    - `(kind, n, "crash")`: the process dies; its transaction is aborted, it is idle.
    """
    chance = random.Random(seed)
    for _ in range(count):
        yield _walk(model(variant), chance)


def _walk(model: Protocol, chance: random.Random) -> list[Action]:
    state, actions = model.initial(), []
    for _ in range(LONGEST):
        by_actor: dict[Any, list[tuple[Label, State]]] = {}
        for label, reached in model.steps(state):
            by_actor.setdefault(_actor(label), []).append((label, reached))
        if not by_actor:
            if actions and actions[-1].rest is not None:
                return actions
            break
        actors = [actor for actor in by_actor if actor not in OUTSIDE]
        if not actors or chance.random() < SHARE_OUTSIDE:
            actors = list(by_actor)
        label, state = chance.choice(by_actor[chance.choice(actors)])
        rests = model.is_quiescent(state)
        actions.append(Action(label, _rest(model, state) if rests else None))
        if rests and (not _can_go_on(state) or chance.random() < 0.2):
            return actions
    raise RuntimeError(f"no rest within {LONGEST} steps")


def _actor(label: Label) -> Any:
    return label[0] if label[0] in (*OUTSIDE, "follower") else label[:2]


def _can_go_on(state: State) -> bool:
    return any(state.left)


def _rest(model: Protocol, state: State) -> Rest:
    return Rest(
        state.store[: len(model.ids)],
        tuple(model.parts(state.store, i) for i in model.ids),
        tuple(STATES[row.state] for row in model.rows(state)),
        tuple(i for i in model.ids if state.tampered >> i & 1),
    )
