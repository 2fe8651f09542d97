"""Declarations that contradict themselves, and workers that hold another one than the run."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from ops.seed import seed
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes, refused

USERS = 40
HEAD = """
from typing import Annotated, Any

from mongosplit.definition import From, Migration, Target
from mongosplit.lens import Custom
from mongosplit.schema import Id

"""
LOGIN = '''
class Login(Target, collection="logins"):
    """Who may log in."""

    id: Annotated[Id, From("_id")]
    email: Annotated[str, From("kontakt.email")]

'''
LETTER = """
class Letter(Target, collection="{collection}"):
    id: Annotated[Id, From("_id")]
    name: Annotated[Any, {source}] = None

"""
BOTH = 'migration = Migration("logins", source="users", targets=(Login, Letter))\n'
ALONE = 'migration = Migration("logins", source="users", targets=(Login,))\n'
NEWER = LOGIN + '    name: Annotated[Any, From("kontakt.name")] = None\n\n' + ALONE


def letter(source: str, collection: str = "letters") -> str:
    return LOGIN + LETTER.format(collection=collection, source=source) + BOTH


BAD = {
    "two_targets": (
        letter('From("kontakt.name")', collection="logins"),
        "two targets write the collection logins: Login and Letter",
        "give each target a collection of its own",
    ),
    "mapped_twice": (
        letter('From("kontakt.email")'),
        "the source path kontakt.email is mapped twice in conflict: "
        "both Login.email and Letter.name would write it back",
        "keep one and say writes_back=False on the other",
    ),
    "mapped_within": (
        letter('From("kontakt")'),
        "the source path kontakt and kontakt.email is mapped twice in conflict: "
        "both Login.email and Letter.name would write it back",
        "keep one and say writes_back=False on the other",
    ),
    "no_inverse": (
        letter('From("kontakt.name", Custom(lambda value: value, lambda value: value))'),
        "target Letter.name: its lens has no inverse",
        "give the put half of the lens, or say From(..., writes_back=False)",
    ),
}


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    seed(shop.data["users"], USERS)
    return Typed(shop, monkeypatch, capsys)


def write(folder: Path, module: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(HEAD + text)


@pytest.mark.parametrize("module", BAD)
def test_a_declaration_that_contradicts_itself_is_refused_when_it_is_loaded(
    typed: Typed, module: str
) -> None:
    text, sentence, hint = BAD[module]
    write(typed.shop.folder, module, text)
    with nothing_changes(typed.shop):
        refused(typed("plan", f"{module}:migration", "--yes"), 2, sentence, hint)


@pytest.mark.parametrize(
    ("module", "text", "error"),
    [
        ("not_python", "class Login(Target:", "SyntaxError: invalid syntax (not_python.py, line"),
        ("breaks_down", "settings = {}['HOST']", "KeyError: 'HOST'"),
    ],
)
def test_a_declaration_that_cannot_be_imported_is_named_with_the_reason(
    typed: Typed, module: str, text: str, error: str
) -> None:
    write(typed.shop.folder, module, text)
    with nothing_changes(typed.shop):
        said = typed("plan", f"{module}:migration", "--yes")
    sentence = f'mongosplit: migration "{module}:migration": importing {module} raises {error}'
    assert said.err.startswith(sentence)
    assert "Traceback" not in said.err
    assert said.code == 2


def test_as_a_process_a_bad_declaration_shows_no_traceback(shop: Shop) -> None:
    text, sentence, hint = BAD["mapped_twice"]
    write(shop.folder, "mapped_twice", text)
    with nothing_changes(shop):
        done = shop.mongosplit("check", "mapped_twice:migration")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"mongosplit: {sentence}", f"  {hint}"]


def test_a_declaration_changed_after_the_plan_is_not_started(typed: Typed) -> None:
    shop = typed.shop
    write(shop.folder, "changed", LOGIN + ALONE)
    assert typed("plan", "changed:migration", "--yes").code == 0
    [run] = shop.ledger["runs"].find()
    write(shop.folder, "changed", NEWER)
    with nothing_changes(shop):
        done = shop.mongosplit("start", "changed:migration", "--yes")
    assert done.returncode == 2
    sentence, hint = done.stderr.splitlines()
    assert re.search(r"holds version \w+ of migration changed:migration", sentence)
    assert sentence.endswith(f"run logins-1 was planned with version {run['fingerprint']}")
    assert hint == "  use the code the run was planned with"


def test_a_worker_of_another_version_writes_nothing_and_is_named_until_the_right_one_comes(
    shop: Shop,
) -> None:
    seed(shop.data["users"], USERS)
    right, wrong = shop.folder / "right", shop.folder / "wrong"
    write(right, "versioned", LOGIN + ALONE)
    write(wrong, "versioned", NEWER)
    shop.environment["PYTHONPATH"] = str(right)
    stale = shop.worker("stale", PYTHONPATH=str(wrong), MONGOSPLIT_MAX_ATTEMPTS="1")

    began = time.monotonic()
    done = shop.mongosplit("start", "versioned:migration", "--yes", "--chunk-size", "20")
    assert time.monotonic() - began < 60
    assert done.returncode == 1, done.stderr
    [run] = shop.ledger["runs"].find()
    said = re.search(
        r"mongosplit: 2 chunks of logins-1 failed: (\S+) holds version (\w+) of migration "
        r"versioned:migration, run logins-1 was planned with version (\w+)\n(.*)\n$",
        done.stderr,
    )
    assert said, done.stderr
    worker, theirs, ours, hint = said.groups()
    assert worker.startswith("stale@")
    assert ours == run["fingerprint"] != theirs
    assert hint == "  mongosplit retry versioned:migration"
    assert shop.data["logins"].count_documents({}) == 0

    stale.kill()
    stale.wait()
    shop.worker("fresh")
    again = shop.mongosplit("retry", "versioned:migration", "--yes")
    assert again.returncode == 0, again.stderr
    assert shop.data["logins"].count_documents({}) == USERS
    assert shop.json("status", "logins-1")["state"] == "verified"
