"""The documents say what is true of the code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from mongosplit.ledger.book import INDEXES
from mongosplit.model import CHUNK_ARROWS, RUN_ARROWS, ChunkState, RunState
from mongosplit.settings import Settings
from ops import docs
from ops.entry import mongosplit

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", docs.PAGES)
def test_a_derived_page_is_what_the_code_says_now(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == docs.PAGES[name](), "type: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_verb_is_in_the_readme_and_every_verb_of_the_readme_exists() -> None:
    table = set(re.findall(r"^\| `([a-z ]+)` \|", README, re.MULTILINE))
    assert table == set(verbs(mongosplit))


def verbs(group: click.Group, before: str = "") -> list[str]:
    found: list[str] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += verbs(command, f"{before}{name} ")
        else:
            found.append(before + name)
    return found


def test_every_setting_has_a_description_and_every_variable_named_in_docs_exists() -> None:
    for name, info in Settings.model_fields.items():
        assert info.description, name
    known = {f"MONGOSPLIT_{name.upper()}" for name in Settings.model_fields}
    options = (option for command in mongosplit.commands.values() for option in command.params)
    known |= {option.envvar for option in options if isinstance(option.envvar, str)}
    for page in PAGES:
        assert set(re.findall(r"MONGOSPLIT_[A-Z_]+", page.read_text())) <= known, page


def test_the_glossary_and_the_architecture_name_every_state_and_every_collection() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    for state in (*RunState, *ChunkState):
        assert f"`{state.value}`" in glossary
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    for collection in INDEXES:
        assert f"| `{collection}` |" in architecture


def test_every_arrow_between_states_has_its_reason() -> None:
    assert all(reason for reason in (*RUN_ARROWS.values(), *CHUNK_ARROWS.values()))
    assert set(RunState) == {state for arrow in RUN_ARROWS for state in arrow}
    assert set(ChunkState) == {state for arrow in CHUNK_ARROWS for state in arrow}


def test_every_make_target_named_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in [*re.findall(r"\bmake ([a-z]+)`", README), "demo", "test"]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
