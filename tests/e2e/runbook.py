"""The runbook as its reader has it: every command line of a document, and a terminal to type it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ops.compose import APP
from tests.conditions import until
from tests.e2e.conftest import VERB_SECONDS, Shop

_FENCED = re.compile(r"^```\n(.*?)^```$", re.M | re.S)
# A verb by itself is spoken of; with what it works on, it is to be typed.
_INLINE = re.compile(r"`((?:mongosplit|celery) [^`\s]+ [^`]+)`")
_REMARK = re.compile(r"\s{2,}# .*")


def lines_of(document: str) -> set[str]:
    """Every line of a document that is to be typed, without its remark."""
    text = (APP / document).read_text()
    fenced = [line for block in _FENCED.findall(text) for line in block.splitlines()]
    typed = [_REMARK.sub("", line).strip() for line in fenced] + _INLINE.findall(text)
    found = {line.replace("\n", " ") for line in typed}
    return {line for line in found if line.startswith(("mongosplit ", "celery "))}


class Terminal:
    """A shell in the shop's folder, at which somebody sits who says yes."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**shop.environment, "PATH": here}
        self.typed: set[str] = set()

    def __call__(self, line: str, *, code: int = 0, given: dict[str, str] | None = None) -> str:
        """Type a line to its end and return what it says; `given` stands for its placeholders."""
        self.typed.add(line)
        process, screen = self._begin(line, given or {})
        try:
            os.write(screen, b"y\ny\n")
            out, _ = process.communicate(timeout=VERB_SECONDS)
        finally:
            os.close(screen)
        said = out.decode()
        assert process.returncode == code, f"{line} ended with {process.returncode}: {said}"
        assert "Traceback" not in said, said
        return said

    @contextmanager
    def stays(self, line: str, word: str, *, stop: int = signal.SIGINT) -> Iterator[None]:
        """Type a line that lives on; it says a word, and ends with 0 when told to stop."""
        self.typed.add(line)
        log = self._shop.folder / f"stays-{len(self.typed)}.log"
        process, screen = self._begin(line, {}, log)
        try:
            until(lambda: word in log.read_text(), what=f"{line} does not say {word}")
            yield
            process.send_signal(stop)
            assert process.wait(VERB_SECONDS) == 0, log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(screen)

    def _begin(
        self, line: str, given: dict[str, str], log: Path | None = None
    ) -> tuple[subprocess.Popen[bytes], int]:
        for placeholder, value in given.items():
            assert placeholder in line
            line = line.replace(placeholder, value)
        screen, keys = pty.openpty()
        try:
            with (log or Path(os.devnull)).open("ab") as out:
                process = subprocess.Popen(
                    ["bash", "-c", f"exec {line}"],
                    env=self._environment,
                    cwd=self._shop.folder,
                    stdin=keys,
                    stdout=out if log else subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        finally:
            os.close(keys)
        return process, screen
