"""JSON Lines: an object on each line, on stdout or into a new file that only its owner may read."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from bson import json_util

from mongosplit.document_text import canonical
from mongosplit.errors import Failed, Refused, UsageError
from mongosplit.raw import Value
from producer.connection import Connection
from producer.pointing import is_run

STDOUT = "-"


def line(fields: dict[str, Any]) -> str:
    """The object on one line, in ASCII: stored values in canonical extended JSON, all in order."""
    return "{" + ", ".join(f"{json.dumps(name)}: {_text(x)}" for name, x in fields.items()) + "}"


def _text(value: Any) -> str:
    if isinstance(value, Value):
        return canonical(value)
    text: str = json_util.dumps(value, json_options=json_util.RELAXED_JSON_OPTIONS)
    return text


def run_and_file(at: Connection, words: tuple[str, ...]) -> tuple[str, str]:
    """The run or migration, and the file (`-`: stdout), that `[RUN] [FILE]` name.

    A word by itself is the run where the ledger knows one called so, or where it is no path.

    Raises:
        UsageError: there are more words than two.
    """
    if len(words) > 2:
        raise UsageError("too many arguments: at most a run and a file", hint="give RUN FILE")
    if len(words) == 2:
        return words[0], words[1]
    name = at.settings.migration
    if not words:
        return name, STDOUT
    word = words[0]
    # A declaration of one's own is named package.module:attribute.
    is_path = word == STDOUT or (":" not in word and ("." in word or os.sep in word))
    return (name, word) if is_path and not is_run(at, word) else (word, STDOUT)


def write(file: str, found: Iterable[dict[str, Any]]) -> int:
    """Write a line for each; returns how many.

    A file that does not come to its end is taken away again.

    Raises:
        Refused: the file exists. UsageError: it cannot be made. Failed: it cannot be written.
    """
    count = 0
    try:
        with _opened(file) as stream:
            for fields in found:
                stream.write(line(fields) + "\n")
                count += 1
    except BrokenPipeError:
        raise  # the reader of stdout has had enough, which is no failure
    except OSError as error:
        reason = (error.strerror or "it cannot be written").lower()
        raise Failed(
            f"{file}: {reason}", hint="nothing was kept of it: give another FILE"
        ) from error
    return count


@contextlib.contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    if file == STDOUT:
        yield sys.stdout
        return
    path = Path(file)
    try:
        stream = open(path, "x", encoding="ascii", opener=_private)  # noqa: SIM115
    except FileExistsError:
        hint = "give the name of a file that is not there yet"
        raise Refused(f"{file} exists already: it is not overwritten", hint=hint) from None
    except OSError as error:
        reason = (error.strerror or "it cannot be made").lower()
        raise UsageError(f"{file}: {reason}", hint="give FILE, or nothing for stdout") from error
    try:
        with stream:
            yield stream
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
