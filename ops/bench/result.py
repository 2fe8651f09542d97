"""What a section of the benchmark found: medians, ratios within a round, goals met or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from ops.bench.stage import Sample, Samples


@dataclass(frozen=True)
class Goal:
    """A ratio of two cells' rates that is to be at least `least`, or at most `most`.

    With `by_cpu` the ratio of what both take in CPU is shown beside it: where the cells fill every
    core it comes to the same on a quiet machine, and other work disturbs it less.
    """

    sentence: str
    cell: str
    to: str
    least: float | None = None
    most: float | None = None
    by_cpu: bool = False

    def is_met(self, ratio: float) -> bool:
        """Whether the ratio lies within the bounds."""
        above = self.least is None or ratio >= self.least
        return above and (self.most is None or ratio <= self.most)


@dataclass(frozen=True)
class Result:
    """The samples of a section; `to` are the cells that the others are compared with."""

    title: str
    samples: Samples
    to: tuple[str, ...]
    goals: tuple[Goal, ...] = ()

    def rates(self, cell: str) -> list[float]:
        """Users a second, by round."""
        return [sample.rate for sample in self.samples[cell]]

    def ratio(self, cell: str, to: str) -> float:
        """The median over the rounds of one cell's rate by another's in the same round."""
        pairs = zip(self.rates(cell), self.rates(to), strict=True)
        return median(mine / theirs for mine, theirs in pairs)

    def cpu(self, cell: str, of: Callable[[Sample], float | None]) -> float | None:
        """The median of CPU microseconds per user; None where it is not known."""
        spent = [(of(sample), sample.users) for sample in self.samples[cell]]
        known = [seconds / users * 1e6 for seconds, users in spent if seconds is not None]
        return median(known) if known else None

    def cpu_ratio(self, cell: str, to: str) -> float | None:
        """The median over the rounds of what another cell takes in CPU per user by this one."""
        pairs = zip(self.samples[to], self.samples[cell], strict=True)
        costs = [(theirs.cost, mine.cost) for theirs, mine in pairs]
        known = [theirs / mine for theirs, mine in costs if theirs and mine]
        return median(known) if known else None

    def foreign(self) -> list[float]:
        """Cores that other work kept busy, for each measurement where it is known."""
        return [s.foreign for row in self.samples.values() for s in row if s.foreign is not None]

    def to_document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "title": self.title,
            "cells": [self._cell(name) for name in self.samples],
            "goals": [self._goal(goal) for goal in self.goals],
        }

    def _cell(self, name: str) -> dict[str, Any]:
        rates = self.rates(name)
        return {
            "name": name,
            "users_per_second": {"median": median(rates), "min": min(rates), "max": max(rates)},
            "ratios": {to: self.ratio(name, to) for to in self.to},
            "cpu_us_per_user": {
                "mongod": self.cpu(name, lambda sample: sample.mongod),
                "clients": self.cpu(name, lambda sample: sample.clients),
            },
            "samples": [vars(sample) for sample in self.samples[name]],
        }

    def _goal(self, goal: Goal) -> dict[str, Any]:
        ratio = self.ratio(goal.cell, goal.to)
        cpu = self.cpu_ratio(goal.cell, goal.to)
        return {**vars(goal), "ratio": ratio, "cpu_ratio": cpu, "met": goal.is_met(ratio)}


class Told(Protocol):
    """What a section found that is no table of cells: sentences."""

    @property
    def title(self) -> str:
        """What was measured."""

    def sentences(self) -> list[str]:
        """What was found, a line each."""

    def foreign(self) -> list[float]:
        """Cores that other work kept busy, where it is known."""

    def to_document(self) -> dict[str, Any]:
        """Everything, for JSON."""
