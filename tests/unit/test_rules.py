"""Each contradiction in a declaration is refused, in a sentence that names the culprits."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from mongosplit.definition import From, Index, IsTrue, Migration, Target
from mongosplit.errors import DefinitionError
from mongosplit.lens import Custom
from mongosplit.lenses import Constant, Default, Presence
from mongosplit.pipelines import join_set
from mongosplit.schema import Id


class People(Target, collection="people"):
    id: Annotated[Id, From("_id")]
    name: Annotated[str | None, From("person.name")] = None


class Shops(Target, collection="shops", owner="userId", when=IsTrue("isVendor")):
    id: Annotated[Id, From("_id")]
    userId: Annotated[Id, From("_id")]  # noqa: N815


def migrate(*targets: type[Target], source: str = "all") -> Migration:
    return Migration(name="mine", source=source, targets=targets)


def refusal(*targets: type[Target], source: str = "all") -> str:
    with pytest.raises(DefinitionError) as caught:
        migrate(*targets, source=source)
    return caught.value.message


def test_a_sound_declaration_is_taken() -> None:
    sound = migrate(People, Shops)
    assert sound.keys == {"a": People, "b": Shops}
    assert [each.name for each in sound.fields["people"]] == ["_id", "name"]


def test_a_migration_needs_a_target() -> None:
    assert "0 targets" in refusal()


def test_two_targets_for_one_collection_are_refused_by_name() -> None:
    class Others(Target, collection="people"):
        id: Annotated[Id, From("_id")]

    message = refusal(People, Others)
    assert all(name in message for name in ("people", "People", "Others"))


def test_a_target_without_a_collection_is_refused() -> None:
    class Nowhere(Target):
        id: Annotated[Id, From("_id")]

    assert "Nowhere" in refusal(Nowhere)


def test_a_target_that_would_write_the_source_is_refused() -> None:
    message = refusal(People, source="people")
    assert "People" in message
    assert "source" in message


def test_a_target_without_an_id_from_the_source_id_is_refused() -> None:
    class NoId(Target, collection="x"):
        name: Annotated[str, From("name")]

    class OtherId(Target, collection="x"):
        id: Annotated[Id, From("number")]

    class ChangedId(Target, collection="x"):
        id: Annotated[Id, From("_id", Default("none"))]

    for target in (NoId, OtherId, ChangedId):
        message = refusal(target)
        assert target.__name__ in message
        assert "_id" in message


def test_an_owner_that_is_not_the_source_id_is_refused() -> None:
    class Strays(Target, collection="strays", owner="userId"):
        id: Annotated[Id, From("_id")]
        userId: Annotated[Id, From("kontakt.usrID")]  # noqa: N815

    class Orphans(Target, collection="orphans", owner="userId"):
        id: Annotated[Id, From("_id")]

    for target in (Strays, Orphans):
        message = refusal(target)
        assert target.__name__ in message
        assert "userId" in message


def test_adopting_needs_a_field_of_ones_own_an_owner_and_a_unique_index() -> None:
    class Ownerless(Target, collection="x", adopt_by="email", indexes=(Index("email", True),)):
        id: Annotated[Id, From("_id")]
        email: Annotated[str, From("email")]

    class Unindexed(
        Target, collection="x", owner="of", adopt_by="email", indexes=(Index("email"),)
    ):
        id: Annotated[Id, From("_id")]
        of: Annotated[Id, From("_id")]
        email: Annotated[str, From("email")]

    class Fieldless(
        Target, collection="x", owner="of", adopt_by="mail", indexes=(Index("mail", True),)
    ):
        id: Annotated[Id, From("_id")]
        of: Annotated[Id, From("_id")]

    assert "Ownerless" in refusal(Ownerless)
    assert "Unindexed adopts by email, which has no unique index" in refusal(Unindexed)
    assert "Fieldless adopts by mail" in refusal(Fieldless)


@pytest.mark.parametrize("path", ["", ".", "a..b", ".a", "a.", "$a", "a.$b", "$$ROOT", "a\0"])
def test_a_path_an_expression_cannot_read_is_refused(path: str) -> None:
    class Maps(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        name: Annotated[str | None, From(path)] = None

    class Reads(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        name: Annotated[str | None, From("ok", Presence(of=path))] = None

    class When(Target, collection="x", when=IsTrue(path)):
        id: Annotated[Id, From("_id")]

    for target, name in ((Maps, "name"), (Reads, "name"), (When, "when")):
        message = refusal(target)
        assert f"{target.__name__}.{name}" in message
        assert f'"{path}"' in message


@pytest.mark.parametrize("name", ["a.b", "$a", ""])
def test_a_field_name_an_expression_cannot_write_is_refused(name: str) -> None:
    class Names(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        odd: Annotated[str | None, Field(alias=name), From("a")] = None

    if name:
        assert f'"{name}"' in refusal(Names)
    else:
        assert migrate(Names).fields["x"][1].name == "odd"


def test_a_field_that_does_not_say_where_it_comes_from_is_refused() -> None:
    class Silent(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        name: str

    assert "Silent.name" in refusal(Silent)


def _conflict(one: str, other: str, *, back: bool = True) -> Migration:
    class First(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        one: Annotated[Any, From(one)]

    class Second(Target, collection="y"):
        id: Annotated[Id, From("_id")]
        other: Annotated[Any, From(other, writes_back=back)]

    return migrate(First, Second)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "a"), ("a.b", "a.b"), ("a", "a.b"), ("a.b.c", "a"), ("a.b", "a.b.c.d")],
)
def test_a_source_path_written_back_twice_is_refused_by_both_names(one: str, other: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        _conflict(one, other)
    assert all(name in caught.value.message for name in (one, other, "First.one", "Second.other"))
    assert "writes_back=False" in caught.value.hint
    assert _conflict(one, other, back=False)


@pytest.mark.parametrize(("one", "other"), [("a", "ab"), ("a.b", "a.bc"), ("a.b", "a.c")])
def test_paths_that_only_begin_alike_are_no_conflict(one: str, other: str) -> None:
    assert _conflict(one, other)


def test_a_condition_and_a_field_that_would_write_one_path_are_refused() -> None:
    class Flags(Target, collection="flags"):
        id: Annotated[Id, From("_id")]
        flag: Annotated[bool, From("isVendor")]

    message = refusal(Flags, Shops)
    assert all(name in message for name in ("isVendor", "Flags.flag", "Shops.when"))


def test_two_targets_may_stand_under_one_condition_if_one_writes_it_back() -> None:
    class More(Target, collection="more", when=IsTrue("isVendor")):
        id: Annotated[Id, From("_id")]

    class Quiet(Target, collection="more", when=IsTrue("isVendor", writes_back=False)):
        id: Annotated[Id, From("_id")]

    assert "More.when" in refusal(Shops, More)
    assert list(join_set(migrate(Shops, Quiet))) == ["isVendor"]


def test_a_lens_without_an_inverse_is_refused_unless_the_field_does_not_write_back() -> None:
    one_way = Custom(get_with=lambda source: source, get_python=lambda value: value)

    class OneWay(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        name: Annotated[str | None, From("name", one_way)] = None

    class Allowed(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        name: Annotated[str | None, From("name", one_way, writes_back=False)] = None

    assert "OneWay.name" in refusal(OneWay)
    assert migrate(Allowed)


def test_a_path_inside_the_id_is_never_written_back() -> None:
    class Inside(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        inner: Annotated[Any, From("_id.n")]

    assert join_set(migrate(Inside)) == {}


def test_a_default_that_holds_something_is_refused() -> None:
    for value in ([1], {"a": 1}):
        with pytest.raises(DefinitionError, match="empty"):
            Default(value)


def test_constants_come_from_nowhere_and_go_nowhere() -> None:
    class Marked(Target, collection="x"):
        id: Annotated[Id, From("_id")]
        mark: Annotated[str, Constant("x")]

    assert migrate(Marked).fields["x"][1].path is None
    assert join_set(migrate(Marked)) == {}
