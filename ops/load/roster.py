"""The users one thread of the application owns, each in the state it was last told of."""

from __future__ import annotations

from collections.abc import Collection

from mongosplit import raw
from ops.load.journal import State
from ops.seed_hostile import Draw


class Roster:
    """The states of users; picking one at random takes the same time however many there are.

    `unsettled` are those whose last write may or may not have happened.
    """

    def __init__(self) -> None:
        self.states: dict[raw.Value, State] = {}
        self.unsettled: set[raw.Value] = set()
        self.spoiled: set[raw.Value] = set()
        self.deleted: list[raw.Value] = []
        self._living: list[raw.Value] = []
        self._places: dict[raw.Value, int] = {}

    def __len__(self) -> int:
        return len(self._living)

    def put(self, key: raw.Value, state: State) -> None:
        """The user is in this state now, and that is certain."""
        self.states[key] = state
        self.unsettled.discard(key)
        if state is not None and key not in self._places:
            self._places[key] = len(self._living)
            self._living.append(key)
            if key in self.deleted:
                self.deleted.remove(key)
        elif state is None and key in self._places:
            self._take_out(key)
            self.deleted.append(key)
        is_bad = state is not None and raw.lookup(state, "kontakt.email") is None
        (self.spoiled.add if is_bad else self.spoiled.discard)(key)

    def pick(self, draw: Draw, *, hot: int = 0) -> raw.Value:
        """One of the living; nine times of ten one of the `hot` first, if there are such.

        Raises:
            IndexError: nobody lives.
        """
        if hot and draw.chance(0.9):
            return draw.pick(self._living[:hot])
        return draw.pick(self._living)

    def without(self, keys: Collection[raw.Value]) -> None:
        """Forget users, who are then never written."""
        for key in keys:
            if key in self._places:
                self._take_out(key)
                del self.states[key]
                self.spoiled.discard(key)

    def _take_out(self, key: raw.Value) -> None:
        """The last one takes the place of this one."""
        place, last = self._places.pop(key), self._living.pop()
        if last != key:
            self._living[place] = last
            self._places[last] = place
