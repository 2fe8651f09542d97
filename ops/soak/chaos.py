"""Chaos: what is done to a run, and when, drawn from a seed before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ops.seed_hostile import Draw
from ops.soak.players import CHILD, MAIN, WHOLE


class Kind(StrEnum):
    """What can be done."""

    KILL = "kill"
    FREEZE = "freeze"
    AGAIN = "again"
    ROLLBACK = "rollback"
    RETRY = "retry"
    WIPE = "wipe"
    STEP_DOWN = "step-down"
    KILL_PRIMARY = "kill-primary"


WEIGHTS = {
    Kind.KILL: 30,
    Kind.FREEZE: 12,
    Kind.AGAIN: 18,
    Kind.ROLLBACK: 28,
    Kind.RETRY: 24,
    Kind.WIPE: 4,
    Kind.STEP_DOWN: 6,
    Kind.KILL_PRIMARY: 5,
}
"""How often each is done, in relation to the others."""
OF_A_SET = (Kind.STEP_DOWN, Kind.KILL_PRIMARY)
PLAYERS = (
    *("application", "serve", "follow", "migrate1", "migrate2", "sync1", "sync2", "rollback1"),
)
MEAN_SECONDS = 1.1
"""Between one action and the next, on average."""


@dataclass(frozen=True)
class Action:
    """One thing to do: `at` seconds after the beginning, to whom, for how long, to which chunks.

    `first` and `width` are shares of all chunks; `how` is the part of a player that is killed.
    """

    at: float
    kind: Kind
    player: str
    how: str
    seconds: float
    first: float
    width: float

    @property
    def sentence(self) -> str:
        """What is meant, for the log."""
        if self.kind is Kind.KILL:
            return f"kill -9 {self.player} ({self.how}), back in {self.seconds:.1f} s"
        if self.kind is Kind.FREEZE:
            return f"SIGSTOP {self.player} for {self.seconds:.1f} s"
        if self.kind is Kind.KILL_PRIMARY:
            return f"kill -9 the primary, back in {self.seconds:.1f} s"
        return self.kind.value


def draw_actions(seed: int, seconds: float, nodes: int) -> list[Action]:
    """The actions of one run in the order of their times; the same seed gives the same."""
    draw = Draw(f"chaos {seed} {nodes}")
    kinds = [kind for kind in WEIGHTS if nodes >= 3 or kind not in OF_A_SET]
    weights = [WEIGHTS[kind] for kind in kinds]
    found: list[Action] = []
    at = 0.5
    while (at := at + draw.uniform(0.2, 2 * MEAN_SECONDS - 0.2)) < seconds:
        kind = draw.choices(kinds, weights)[0]
        player = draw.pick(PLAYERS)
        how = draw.pick((WHOLE, WHOLE, MAIN, CHILD)) if player[-1].isdigit() else WHOLE
        length = draw.uniform(1, 6) if kind is not Kind.KILL else draw.uniform(1, 4)
        found.append(Action(at, kind, player, how, length, draw.random(), draw.uniform(0.02, 0.4)))
    return found
