"""`python -m tests.model [--traces] [WORD..]`: every variant, the larger bounds too, as a table.

A WORD chooses the variants whose name contains it; `--traces` shows each shortest counterexample.
Ends with 1 when a variant does not come out as expected.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from tests.model import variants
from tests.model.protocol import Protocol
from tests.model.search import Verdict, explore, told
from tests.model.states import Variant
from tests.model.unique import UniqueKeys

GROUPS: tuple[tuple[str, Callable[[Variant], Protocol], bool, dict[str, Variant]], ...] = (
    ("without: ", Protocol, False, variants.WITHOUT),
    ("unique, without: ", UniqueKeys, False, variants.UNIQUE_WITHOUT),
    ("without, harmless: ", Protocol, True, variants.HARMLESS),
    ("unique, harmless: ", UniqueKeys, True, variants.UNIQUE_HARMLESS),
    ("", Protocol, True, variants.HOLDS),
    ("unique: ", UniqueKeys, True, variants.UNIQUE_HOLDS),
    ("unique: ", UniqueKeys, True, variants.UNIQUE_LARGER),
    ("", Protocol, True, variants.LARGER),
)
"""How names begin, the model, whether it should hold, the variants."""


def chosen(words: list[str]) -> Iterator[tuple[str, Protocol, bool]]:
    """The variants whose name contains one of the words, or all."""
    for prefix, model, holds, group in GROUPS:
        for name, variant in group.items():
            if not words or any(word in prefix + name for word in words):
                yield prefix + name, model(variant), holds


def main(arguments: list[str]) -> int:
    """Search and write the table; returns the exit code."""
    words = [word for word in arguments if word != "--traces"]
    unexpected = 0
    _say(f"{'variant':<62} {'states':>10} {'steps':>11} {'seconds':>8}  verdict\n")
    for name, model, holds in chosen(words):
        verdict = explore(model)
        expected = holds == (not verdict.why)
        unexpected += not expected
        mark = "" if expected else "UNEXPECTED: "
        counts = f"{verdict.states:>10,} {verdict.steps:>11,} {verdict.seconds:>8.1f}"
        _say(f"{name:<62} {counts}  {mark}{_verdict(verdict)}\n")
        if verdict.why and (not expected or "--traces" in arguments):
            _say(f"{told(verdict.trace)}\n")
    return int(unexpected > 0)


def _verdict(verdict: Verdict) -> str:
    if not verdict.why:
        return f"holds (depth {verdict.depth})"
    return f"fails after {len(verdict.trace)} steps: {verdict.why}"


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
