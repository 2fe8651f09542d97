"""A command line typed in this process, where a process of its own is not the point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from producer.cli import run
from producer.connection import given
from tests.e2e.conftest import Shop
from worker.app import app


@dataclass(frozen=True)
class Said:
    """What a command line printed and its exit code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Typed:
    """Carries out command lines as if each were typed in the shop's folder."""

    shop: Shop
    monkeypatch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, **changes: str) -> Said:
        environment = {**self.shop.environment, **changes}
        own = {name: value for name, value in environment.items() if name.startswith("MONGOSPLIT_")}
        broker, results = app.conf.broker_url, app.conf.result_backend
        with self.monkeypatch.context() as patch:
            patch.chdir(self.shop.folder)
            patch.setattr(sys, "path", list(sys.path))  # the command adds the folder to it
            for name, value in own.items():
                patch.setenv(name, value)
            try:
                code = run(given, arguments)
            finally:
                app.conf.broker_url, app.conf.result_backend = broker, results
        return Said(code, *self.captured.readouterr())


def refused(said: Said, code: int, sentence: str, hint: str) -> None:
    """The command said one sentence and what to type next, and nothing else."""
    assert said.err.splitlines() == [f"mongosplit: {sentence}", f"  {hint}"]
    assert said.out == ""
    assert said.code == code


def content(shop: Shop) -> dict[str, dict[str, Any]]:
    """Every collection of the shop and of its ledger, with a hash of its documents."""
    databases = (shop.data, shop.ledger.database)
    return {found.name: found.command("dbHash")["collections"] for found in databases}


@contextmanager
def nothing_changes(shop: Shop) -> Iterator[None]:
    """Neither the data nor the ledger is another one afterwards."""
    before = content(shop)
    yield
    assert content(shop) == before
