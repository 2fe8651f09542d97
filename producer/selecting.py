"""Flags that select a part of a run, and what they come to in the ledger."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import click

from mongosplit import selection
from mongosplit.errors import UsageError
from mongosplit.model import Run
from mongosplit.range_text import split_range
from mongosplit.selection import Selection
from producer.connection import Connection
from producer.options import Command

_SHOWN = 8
_LISTED = 60
_FLAGS = {
    "chunks": ("SPANS", "only these chunks, by number: 1-20,37"),
    "range": ("LO..HI", "only the chunks from this _id to below that one; LO..=HI takes it in"),
    "ids-file": ("FILE", "only the chunks that hold these ids, one on each line; - reads stdin"),
    "canary": ("PERCENT", "only a share of the chunks, evenly spread: 1%"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """The part of a run that flags ask for; at most one field is set. It shows no ids."""

    chunks: Selection | None = None
    range: str | None = field(default=None, repr=False)
    lines: tuple[str, ...] | None = field(default=None, repr=False)
    file: str = ""
    canary: Fraction | None = None

    @property
    def anything(self) -> bool:
        """Whether a part was asked for, and not everything."""
        return any(x is not None for x in (self.chunks, self.range, self.lines, self.canary))

    @property
    def description(self) -> str:
        """What was asked, in words for logs and audit; bounds are shortened, ids only counted."""
        if self.chunks is not None:
            return f"chunks {_listed(self.chunks)}"
        if self.range is not None:
            low, high, upto = split_range(self.range)
            return f"range {_short(low)}..{'=' if upto else ''}{_short(high)}"
        if self.lines is not None:
            count = sum(1 for line in self.lines if line.strip())
            return f"{count:,} {'id' if count == 1 else 'ids'} from a file"
        if self.canary is not None:
            return f"canary {float(self.canary * 100):g} %"
        return "everything"


EVERYTHING = Asked()


def selection_flags(*, canary: bool = False) -> Callable[[Command], Command]:
    """Give a verb `--chunks`, `--range`, `--ids-file`, perhaps `--canary`; passes them as `asked`.

    What needs no ledger is checked before the verb begins.

    Raises:
        UsageError: two of the flags are given, or one of them cannot be read.
    """
    names = [name for name in _FLAGS if canary or name != "canary"]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_selection(**arguments: Any) -> Any:
            given = {name: arguments.pop(_parameter(name)) for name in names}
            return command(asked=_asked(given), **arguments)

        wrapped: Command = with_selection
        for name in reversed(names):
            metavar, text = _FLAGS[name]
            flag = click.option(f"--{name}", _parameter(name), metavar=metavar, help=text)
            wrapped = flag(wrapped)
        return wrapped

    return decorate


def resolve(at: Connection, run: Run, asked: Asked) -> Selection | None:
    """The chunks that are meant; None when nothing was asked, which is everything.

    Raises:
        UsageError: what was asked is not there. Refused: a range cuts through a chunk.
    """
    if asked.chunks is not None:
        return selection.of_chunks(at.ledger, run.id, asked.chunks)
    if asked.range is not None:
        return selection.of_range(at.ledger, run.id, asked.range)
    if asked.lines is not None:
        return selection.of_ids(at.ledger, run.id, asked.lines, name=asked.file)[0]
    if asked.canary is not None:
        return selection.canary(at.ledger, run.id, asked.canary)
    return None


def parse_share(text: str) -> Fraction:
    """The share that `1%` or `0.5%` means; UsageError unless it is above 0 % and at most 100 %."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%", text.strip())
    if found is None:
        raise UsageError(
            "the share of a canary is not a number of percent", hint="write --canary 1%"
        )
    share = Fraction(found[1]) / 100
    if not 0 < share <= 1:
        raise UsageError(
            "the share of a canary is above 0 % and at most 100 %", hint="write --canary 1%"
        )
    return share


def _parameter(name: str) -> str:
    # `range` and `chunks` are words that verbs may use for themselves.
    return f"select_{name.replace('-', '_')}"


def _asked(given: dict[str, str | None]) -> Asked:
    texts = {name: text for name, text in given.items() if text is not None}
    if len(texts) > 1:
        first, second, *_ = texts
        raise UsageError(
            f"--{first} and --{second} cannot be given together", hint="give one of them"
        )
    if "chunks" in texts:
        return Asked(chunks=selection.parse(texts["chunks"]))
    if "range" in texts:
        split_range(texts["range"])
        return Asked(range=texts["range"])
    if "ids-file" in texts:
        return _from_file(texts["ids-file"])
    if "canary" in texts:
        return Asked(canary=parse_share(texts["canary"]))
    return Asked()


def _from_file(path: str) -> Asked:
    name = "stdin" if path == "-" else path
    try:
        # Not splitlines(): an _id of text may hold a line separator of Unicode.
        with click.open_file(path, encoding="utf-8") as file:
            lines = tuple(file)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise UsageError(
            f"{name or 'the file'}: {reason}", hint="give --ids-file FILE, or - for stdin"
        ) from error
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not text in UTF-8", hint="save it as UTF-8") from None
    if not any(line.strip() for line in lines):
        raise UsageError(f"{name} holds no _id", hint="write one _id on each line")
    # A file saved on Windows begins with a mark that is part of no id.
    return Asked(lines=(lines[0].removeprefix("\ufeff"), *lines[1:]), file=name)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _listed(chunks: Selection) -> str:
    text = str(chunks)
    return text if len(text) <= _LISTED else f"{text[:_LISTED]}… ({chunks.count:,} in all)"
