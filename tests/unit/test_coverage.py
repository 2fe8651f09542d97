"""The static list says what the declaration says; the walk counts exactly what is in the bytes."""

from __future__ import annotations

import json
import tracemalloc
from typing import Annotated, Any

import bson
import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from mongosplit import raw, reference
from mongosplit.coverage import FieldPath, Survey, declared, mapping_table, shown
from mongosplit.coverage_data import FURTHER, MAX_NAMES, Names, Reader, Tally
from mongosplit.definition import From, IsTrue, Migration, Target
from mongosplit.lens import Custom
from mongosplit.lenses import Constant, Default, Equals, Presence
from mongosplit.raw import Value
from mongosplit.schema import Id
from mongosplit.users import migration
from tests.property.hostile import SCALARS, steady, users

PROBE = raw.encode(ObjectId(b"seen in part"))


class Account(Target, collection="accounts"):
    """Takes one value whole, one as a flag, one through a pair of its own."""

    id: Annotated[Id, From("_id")]
    active: Annotated[bool, From("k.status", Equals("a|b", otherwise="off"))]
    joined: Annotated[Any, From("k.name", Custom(lambda e: e, lambda v: v), writes_back=False)]


class Letter(Target, collection="letters", when=IsTrue("k.wants")):
    """Takes a date only where another value says so."""

    id: Annotated[Id, From("_id")]
    since: Annotated[Any, From("k.sure", Presence(of="at"))]
    tone: Annotated[str, From("k.tone", Default("plain", blank=True))]
    kind: Annotated[str, Constant("letter")]


letters = Migration(name="letters", source="people", targets=(Account, Letter))


def readers(of: Migration) -> list[Reader]:
    return [
        Reader(
            each.target,
            tuple(each.source.split(".")),
            each.whole,
            frozenset(tuple(path.split(".")) for path in each.needs),
        )
        for each in declared(of)
        if each.source is not None
    ]


def tallied(documents: list[bytes], of: Migration = migration) -> Tally:
    tally = Tally(readers(of))
    for document in documents:
        tally.add(document)
    return tally


def counts(tally: Tally) -> dict[str, tuple[int, dict[str, int], int]]:
    """Documents, types and residual of each path."""
    found = tally.occurrences()
    return {shown(each.names): (each.documents, each.types, each.residual) for each in found}


def residual(documents: list[dict[str, Any]], of: Migration) -> dict[str, int]:
    tally = tallied([bson.encode(document) for document in documents], of)
    return {shown(each.names): each.residual for each in tally.occurrences()}


def test_every_field_of_every_target_is_declared_with_its_source() -> None:
    listed = {(each.source, each.target) for each in declared(migration)}
    for target in migration.targets:
        for field in target.fields():
            assert (field.path, f"{target.collection}.{field.name}") in listed


def test_the_static_list_says_lens_condition_and_way_back() -> None:
    rows = {(each.source, each.target): each for each in declared(migration)}
    said = {
        key: (row.lens, row.condition, row.writes_back)
        for key, row in rows.items()
        if key[1].split(".")[1] in ("businessEmail", "type", "isActive", "when", "source")
    }
    vendor, reader = "when isVendor is true", "when kontakt.mailNewsletter is true"
    news = "newsletter_subscribers"
    assert said == {
        ("kontakt.status", "base_users.isActive"): ('equals "aktiv"', "", True),
        ("isVendor", "vendors.when"): ("exists when true", "", True),
        ("kontakt.email", "vendors.businessEmail"): ("copy", vendor, False),
        ("kontakt.mailNewsletter", f"{news}.when"): ("exists when true", "", True),
        ("kontakt.newslettertype", f"{news}.type"): (
            'default "general", also for ""',
            reader,
            True,
        ),
        (None, f"{news}.source"): ('constant "user-account"', reader, False),
    }
    confirmed = rows["updatedAt", f"{news}.confirmedAt"]
    both = "when kontakt.mailNewsletter and kontakt.newsletterConfirmed are true"
    assert (confirmed.lens, confirmed.condition, confirmed.writes_back) == ("copy", both, False)
    assert confirmed.to_json()["condition"] == both
    assert rows["kontakt.newsletterConfirmed", f"{news}.confirmedAt"].lens == "true when present"
    assert [each.lens for each in declared(letters)][2] == "custom"


def test_the_table_has_five_cells_in_every_row_whatever_a_lens_says() -> None:
    lines = mapping_table(letters).splitlines()
    assert len(lines) == 2 + len(declared(letters))
    assert all(line.replace(r"\|", "").count("|") == 6 for line in lines)
    assert r'| `k.status` | `accounts.active` | equals "a\|b" |  | yes |' in lines
    assert '| – | `letters.kind` | constant "letter" | when k.wants is true | no |' in lines


names = st.lists(st.text(alphabet="a.`$*\\\n\udcff\xffn", max_size=4), min_size=1, max_size=3)


@steady
@given(one=names, other=names)
def test_different_paths_never_look_the_same(one: list[str], other: list[str]) -> None:
    same = shown(tuple(one)) == shown(tuple(other))
    assert same == (one == other)
    assert shown(tuple(one)).isprintable()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("kontakt", "email"), "kontakt.email"),
        (("legacy", "kontakt.email"), "legacy.`kontakt.email`"),
        (("$set", "a$"), "`$set`.a$"),
        (("", "straße 🌻", "a`b"), "``.straße 🌻.`a``b`"),
        (("*", FURTHER), "`*`.*"),
        (("\\x1b",), r"`\\x1b`"),
        (("\x1b[2J", "\udcff"), r"`\x1b[2J`.`\udcff`"),
    ],
)
def test_names_that_could_be_mistaken_are_quoted(path: Names, text: str) -> None:
    assert shown(path) == text


def test_values_count_once_for_a_document_and_containers_by_what_they_hold() -> None:
    documents = [
        {"a": {"b": 1}, "list": [1, 2, "x", None], "deep": [[1, [2]], {"c": 3}], "none": None},
        {"a": {}, "list": [], "deep": [[{"c": "s"}, []], {}], "none": [None, None]},
        {"a": [{"b": 1}, {"b": 2.0}, {}], "list": 7},
        {},
    ]
    in_list = [f"array of {kind}" for kind in ("int", "string", "null")]
    in_deep = ["nested array of int", "nested array of empty array", "array of empty object"]
    found = counts(tallied([bson.encode(document) for document in documents]))
    assert {path: (documents, types) for path, (documents, types, _) in found.items()} == {
        "a": (2, {"empty object": 1, "array of empty object": 1}),
        "a.b": (2, {"int": 2, "double": 1}),
        "list": (3, dict.fromkeys([*in_list, "empty array", "int"], 1)),
        "deep": (2, dict.fromkeys(in_deep, 1)),
        "deep.c": (2, {"int": 1, "string": 1}),
        "none": (2, {"null": 1, "array of null": 1}),
    }


def test_every_bson_type_is_stepped_over_and_named() -> None:
    assert {value.type_name for value in SCALARS} == set(raw.KINDS.values()) - {"object", "array"}
    for value in SCALARS:
        document = raw.build([("x", value), ("y", raw.array([value, value])), ("z", PROBE)])
        assert counts(tallied([document])) == {
            "x": (1, {value.type_name: 1}, 1),
            "y": (1, {f"array of {value.type_name}": 1}, 1),
            "z": (1, {"objectId": 1}, 1),
        }


def test_names_with_dots_and_dollars_are_not_the_paths_they_look_like() -> None:
    user = {"kontakt.email": "a", "kontakt": {"email": "b"}, "isVendor": True, "a": {"isVendor": 1}}
    user |= {"adressen": {"plz": 1}, "adressen.plz": 2, "$isVendor": True}
    assert residual([user], migration) == {
        "kontakt.email": 0,
        "`kontakt.email`": 1,
        "isVendor": 0,
        "a.isVendor": 1,
    } | {"adressen.plz": 0, "`adressen.plz`": 1, "`$isVendor`": 1}


def test_a_path_no_target_of_the_document_takes_is_residual_there() -> None:
    vendor = {"isVendor": True, "adressen": [{"plz": "1"}, {"plz": "2"}]}
    others = [{"isVendor": flag, "adressen": [{"plz": "1"}]} for flag in (False, 1, "true", None)]
    wrapped = {"isVendor": [True], "adressen": []}
    assert residual([vendor, *others, wrapped], migration) == {
        "isVendor": 0,
        "adressen.plz": 4,
        "adressen": 1,
    }


def test_a_condition_inside_an_array_does_not_hold() -> None:
    inside = {"kontakt": {"mailNewsletter": True, "name": "a"}}
    listed = {"kontakt": [{"mailNewsletter": True, "name": "a"}]}
    assert residual([inside, listed], migration) == {"kontakt.mailNewsletter": 0, "kontakt.name": 1}


def test_a_flag_takes_nothing_of_what_is_below_it() -> None:
    odd = {"k": {"status": {"deep": 1}, "name": {"first": 1}, "wants": {"no": 1}}}
    assert residual([odd], letters) == {"k.status.deep": 1, "k.name.first": 0, "k.wants.no": 1}


def test_what_a_presence_reads_is_taken_only_where_it_says_so() -> None:
    people = [
        {"at": 1, "k": {"wants": wants, "sure": sure}}
        for wants, sure in ((True, True), (True, False), (False, True), (True, 1))
    ]
    assert residual(people, letters) == {"at": 3, "k.sure": 1, "k.wants": 0}


def test_what_an_array_hides_inside_an_array_is_taken_only_by_a_copy_of_both() -> None:
    tone = {"wants": True, "tone": "warm", "name": [[{"a": 1}]]}
    # The condition holds for the first alone.
    assert residual([{"k": tone}, {"k": [tone]}, {"k": [[tone]]}], letters) == {
        "k.tone": 2,
        "k.wants": 1,
        "k.name.a": 1,
    }


@pytest.mark.parametrize("hidden", [1, "s"])
def test_a_path_inside_and_outside_a_nested_array_counts_once(hidden: object) -> None:
    found = counts(tallied([bson.encode({"k": [[{"name": hidden}], {"name": 2}]})], letters))
    types = {"int": 1} if hidden == 1 else {"int": 1, "string": 1}
    assert found == {"k.name": (1, types, 0)}


def test_a_long_array_leaves_nothing_behind() -> None:
    document = bson.encode({"a": list(range(20_000)), "b": [{"c": n} for n in range(5_000)]})
    tracemalloc.start()
    tally = tallied([document])
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert counts(tally)["a"] == (1, {"array of int": 1}, 1)
    assert kept < 100_000


@steady
@given(user=users())
def test_residual_means_that_no_part_knows_the_value(user: bytes) -> None:
    parts = reference.split(migration, user)
    for found in tallied([user]).occurrences():
        changed = reference.split(migration, replaced(user, found.names))
        if found.residual:
            assert changed == parts, shown(found.names)
        elif any(reader.whole for reader in found.readers):
            assert PROBE.data in b"".join(changed.values()), shown(found.names)
        else:
            assert found.readers


def replaced(document: bytes, path: Names) -> bytes:
    """The document with the probe in place of every value the path ends in."""
    return raw.build(
        (name, _replaced(value, path[1:]) if name == path[0] else value)
        for name, value in raw.elements(document)
    )


def _replaced(value: Value, rest: Names) -> Value:
    if value.is_array:
        # An empty one stays an array: an expression that looks for a field in it finds [].
        items = [_replaced(item, rest) for _, item in raw.elements(value.data)]
        return raw.array(items or ([] if rest else [PROBE]))
    if value.is_object and len(value.data) > 5:
        return Value(value.kind, replaced(value.data, rest)) if rest else value
    return value if rest else PROBE


def test_names_without_end_are_counted_together_and_crowd_out_no_other() -> None:
    tally, early = Tally(readers(migration)), 0
    tracemalloc.start()
    for n in range(3000):
        tally.add(bson.encode({"stock": {f"{n}-{i}": {"n": i} for i in range(5)}}))
        if n == 1000:
            early = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - early
    tracemalloc.stop()
    tally.add(bson.encode({"isVendor": True, "late": 1, "adressen": [{"plz": 1}]}))
    found = counts(tally)
    known = MAX_NAMES // 5
    assert found.pop("stock.*") == (3000 - known, {"object": 3000 - known}, 3000 - known)
    assert found["late"] == (1, {"int": 1}, 1)
    assert found["adressen.plz"] == (1, {"int": 1}, 0)
    assert len(found) == MAX_NAMES + 3
    assert grown < 50_000


def test_paths_without_end_at_all_places_have_a_limit_that_mapped_ones_ignore() -> None:
    tally = Tally(readers(migration), max_paths=100)
    for n in range(300):
        tally.add(bson.encode({f"a{n % 150}": {f"b{n}": {"c": n}}}))
    vendor = {"isVendor": True, "adressen": [{"plz": 1}], "a0": {"b0": {"c": "s"}}, "b": [True, {}]}
    tally.add(bson.encode(vendor))
    found = counts(tally)
    assert len(found) <= 100
    assert found["a0.b0.c"] == (2, {"int": 1, "string": 1}, 2)
    assert found.pop("adressen.*") == (1, {"int": 1}, 0)
    assert found["*"][1].keys() == {"object", "array"}
    assert sum(documents for path, (documents, _, _) in found.items() if path[0] in "a*") == 302


def test_counts_stay_exact_when_conditions_hold_in_ever_new_combinations() -> None:
    paths = [(f"c{bit}",) for bit in range(8)]
    tally = Tally([Reader(f"t.{path[0]}", ("x",), True, frozenset([path])) for path in paths])
    for n in range(256):
        tally.add(bson.encode({"x": n, **{f"c{bit}": bool(n >> bit & 1) for bit in range(8)}}))
    assert counts(tally)["x"] == (256, {"int": 256}, 1)
    assert counts(tally)["c3"] == (256, {"bool": 256}, 256)


def test_a_survey_says_what_its_numbers_rest_on() -> None:
    path = FieldPath("a", 3, {"int": 3}, ("t.a",), 1)
    full, sampled = Survey(True, 50_000, 50_000, (path,)), Survey(False, 1_000, 50_000, ())
    assert full.basis == "all 50,000 documents"
    assert sampled.basis == "a random sample of 1,000 of about 50,000 documents"
    assert (path.taken, full.residual) == (2, (path,))
    row = {"path": "a", "documents": 3, "types": {"int": 3}, "mapped_to": ["t.a"], "residual": 1}
    counted = {"complete": True, "documents": 50_000, "of": 50_000, "paths": [row]}
    assert json.loads(json.dumps(full.to_json())) == counted
