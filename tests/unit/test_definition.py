"""A target says what it is in its class line, and a migration is found by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import bson
import pytest
from pydantic import Field

from mongosplit import raw
from mongosplit.definition import From, Index, Target, load
from mongosplit.errors import DefinitionError, UsageError
from mongosplit.lenses import Constant, Default
from mongosplit.schema import Id
from mongosplit.users import migration as users


def test_an_unknown_class_argument_is_refused_by_name() -> None:
    with pytest.raises(DefinitionError, match="Odd has no class argument colection"):

        class Odd(Target, colection="x"):
            id: Annotated[Id, From("_id")]


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
def test_a_field_called_like_a_class_argument_is_refused_and_its_alias_taken() -> None:
    with pytest.raises(DefinitionError, match="a field called owner"):

        class Shadowed(Target, collection="x"):
            id: Annotated[Id, From("_id")]
            owner: Annotated[str | None, From("owner")] = None

    class Aliased(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        owner_: Annotated[str | None, Field(alias="owner"), From("owner")] = None

    assert [each.name for each in Aliased.fields()] == ["_id", "owner"]
    assert list(Aliased.schema_of_documents()["properties"]) == ["_id", "owner"]


def test_an_index_cannot_be_restricted_to_a_type_without_a_least_value() -> None:
    with pytest.raises(DefinitionError, match="regex"):
        Index("name", only=("string", "regex"))


def test_the_shipped_migration_is_found_by_its_bare_name() -> None:
    assert load("users") is users
    assert load("mongosplit.users:migration") is users


@pytest.mark.parametrize("name", ["nope", "", ":migration", ".users:migration"])
def test_an_unknown_name_is_a_usage_error_that_lists_the_shipped_ones(name: str) -> None:
    with pytest.raises(UsageError, match="shipped: users"):
        load(name)


@pytest.mark.parametrize("name", ["no_such_module:x", "mongosplit.no_such:x"])
def test_a_missing_module_is_a_usage_error_that_names_it(name: str) -> None:
    with pytest.raises(UsageError, match="no_such"):
        load(name)


@pytest.mark.parametrize("attribute", ["nothing", "Vendor", ""])
def test_a_module_without_that_migration_is_a_usage_error_that_names_both(attribute: str) -> None:
    with pytest.raises(UsageError, match=f'mongosplit.users has no Migration called "{attribute}"'):
        load(f"mongosplit.users:{attribute}")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write a module into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


def test_a_migration_is_found_in_the_working_directory(
    written: Callable[[str, str], None],
) -> None:
    written("mine_here", "from mongosplit.users import migration as again\n")
    assert load("mine_here:again") is users


@pytest.mark.parametrize("text", ["1 +\n", "raise KeyError('oh')\n", "from mongosplit import no\n"])
def test_a_module_that_does_not_import_is_a_definition_error(
    written: Callable[[str, str], None], text: str
) -> None:
    written("mine_broken", text)
    with pytest.raises(DefinitionError, match="mine_broken"):
        load("mine_broken:migration")


def test_a_contradiction_is_told_as_it_is(written: Callable[[str, str], None]) -> None:
    written(
        "mine_empty",
        "from mongosplit.definition import Migration\nm = Migration('m', 's', ())\n",
    )
    with pytest.raises(DefinitionError, match=r"^migration m has 0 targets"):
        load("mine_empty:m")


def test_two_fields_keep_values_apart_that_python_calls_equal() -> None:
    class Alike(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        one: Annotated[Any, Constant(1)]
        yes: Annotated[Any, Constant(True)]
        zero: Annotated[Any, From("a", Default(0))]
        no: Annotated[Any, From("a", Default(False))]

    user = bson.encode({"_id": 1})
    found = [each.lens.get(None, user) for each in Alike.fields()[1:]]
    assert found == [raw.encode(value) for value in (1, True, 0, False)]
