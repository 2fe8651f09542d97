"""A selection is the numbers it says, and the flags that ask for one never mean more."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import bson
import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mongosplit.errors import UsageError
from mongosplit.selection import Selection, parse
from producer.selecting import Asked, parse_share, selection_flags

NUMBERS = st.sets(st.integers(1, 300), min_size=1)
calm = settings(max_examples=200, database=None, deadline=None)


@calm
@given(NUMBERS)
def test_a_selection_is_exactly_its_numbers_in_every_form(numbers: set[int]) -> None:
    held = Selection.of(numbers)
    assert list(held.numbers()) == sorted(numbers)
    assert held.count == len(numbers)
    assert held.last == max(numbers)
    assert {n for n in range(302) if held.contains(n)} == numbers
    assert parse(str(held)) == held
    stored = bson.decode(bson.encode({"held": held.to_document()}))["held"]
    assert Selection.from_document(stored) == held


@calm
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20)), min_size=1))
def test_spans_in_any_order_become_the_shortest_text(asked: list[tuple[int, int]]) -> None:
    typed = ", ".join(f"{first}-{first + more}" for first, more in asked)
    numbers = {n for first, more in asked for n in range(first, first + more + 1)}
    held = parse(typed)
    assert set(held.numbers()) == numbers
    assert str(held) == str(Selection.of(numbers))
    assert len(held.spans) == sum(n - 1 not in numbers for n in numbers)


def test_the_shortest_form_merges_what_overlaps_or_touches() -> None:
    assert str(parse("37, 1-20")) == "1-20,37"
    assert str(parse("5,1-3,4,2-3,5")) == "1-5"
    assert parse("1-20,37").spans == ((1, 20), (37, 37))


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("", "chunks are not given as numbers and spans of numbers", "write --chunks 1-20,37"),
        ("a", "chunks are not given as numbers and spans of numbers", "write --chunks 1-20,37"),
        ("1,", "chunks are not given as numbers and spans of numbers", "write --chunks 1-20,37"),
        ("1..3", "chunks are not given as numbers and spans of numbers", "write --chunks 1-20,37"),
        ("-3", "chunks are not given as numbers and spans of numbers", "write --chunks 1-20,37"),
        ("٣", "chunks are not given as numbers and spans of numbers", "write --chunks 1-20,37"),
        ("20-1", "chunks 20-1 run backwards", "write 1-20"),
        ("0", "there is no chunk 0: the first one is 1", "write --chunks 1-20,37"),
        ("0-5", "there is no chunk 0: the first one is 1", "write --chunks 1-20,37"),
        ("9" * 5000, "no chunk has a number of more than 9 digits", "write --chunks 1-20,37"),
    ],
    ids=range(10),
)
def test_bad_syntax_is_a_sentence_and_the_right_form(text: str, sentence: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert (refused.value.message, refused.value.hint) == (sentence, hint)


@pytest.mark.parametrize(
    "spans", [(), ((2, 1),), ((0, 1),), ((1, 2), (3, 4)), ((5, 6), (1, 2)), ((1, 5), (3, 8))]
)
def test_nothing_and_spans_out_of_order_are_no_selection(
    spans: tuple[tuple[int, int], ...],
) -> None:
    with pytest.raises(ValueError, match=r"^the spans of a selection are in order"):
        Selection(spans)


def test_the_ledger_may_hold_halves_of_divided_chunks_behind_the_spans() -> None:
    assert str(Selection.from_document([[2, 3], [34, 34], [36, 36], [35, 35]])) == "2-3,34-36"
    with pytest.raises(ValueError, match=r"^the spans of a selection are in order"):
        Selection.from_document([])


def test_the_query_is_one_clause_for_a_span_and_no_long_list_of_clauses() -> None:
    assert parse("3-9").query() == {"n": {"$gte": 3, "$lte": 9}}
    assert parse("3-9,12").query("chunk") == {
        "$or": [{"chunk": {"$gte": 3, "$lte": 9}}, {"chunk": {"$gte": 12, "$lte": 12}}]
    }
    many = Selection.of(range(1, 100_000, 2))
    assert many.query() == {"n": {"$in": list(range(1, 100_000, 2))}}
    assert len(bson.encode(many.query())) < 2**20


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", Fraction(1, 100)), ("0.5%", Fraction(1, 200)), ("7 %", Fraction(7, 100)), ("100%", 1)],
)
def test_a_share_is_exact(text: str, share: Fraction) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "1", "%", "0%", "0.0%", "100.1%", "-1%", "1e1%", "nan%"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^the share of a canary is ") as refused:
        parse_share(text)
    assert refused.value.hint == "write --canary 1%"


def asked_by(*arguments: str, given: bytes | None = None) -> Asked:
    """What a verb with all the flags is passed; raises what it would not take."""
    seen: list[Asked] = []

    @click.command()
    @selection_flags(canary=True)
    def verb(asked: Asked) -> None:
        seen.append(asked)

    result = CliRunner().invoke(verb, arguments, input=given)
    if result.exception:
        raise result.exception
    return seen[0]


def test_without_a_flag_everything_is_meant() -> None:
    assert not asked_by().anything
    assert asked_by().description == "everything"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chunks", "37,1-20"], "chunks 1-20,37"),
        (
            ["--range", "64f0a1b2c3d4e5f601234567..=64f1a1b2c3d4e5f601234567"],
            "64f0a1b2…..=64f1a1b2…",
        ),
        (["--range", "..9"], "..9"),
        (["--canary", "1%"], "canary 1 %"),
        (["--canary", "0.50%"], "canary 0.5 %"),
        (["--ids-file", "-"], "2 ids from a file"),
    ],
)
def test_what_was_asked_is_said_in_words(arguments: list[str], words: str) -> None:
    asked = asked_by(*arguments, given=b"1\n\n2\n")
    assert asked.anything
    assert asked.description.removeprefix("range ") == words


def test_a_long_list_of_chunks_is_said_shortly() -> None:
    asked = Asked(chunks=Selection.of(range(1, 100_000, 2)))
    assert asked.description.endswith("… (50,000 in all)")
    assert len(asked.description) < 100


@pytest.mark.parametrize("flag", ["--chunks", "--range", "--ids-file", "--canary"])
def test_an_empty_flag_never_means_everything(flag: str) -> None:
    with pytest.raises(UsageError) as refused:
        asked_by(flag, "")
    assert refused.value.hint


def test_two_ways_of_asking_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"^--range and --canary cannot be given together$"):
        asked_by("--canary", "1%", "--range", "1..2")


def test_a_verb_without_canary_does_not_know_the_flag() -> None:
    @click.command()
    @selection_flags()
    def verb(asked: Asked) -> None:
        raise AssertionError

    result = CliRunner().invoke(verb, ["--canary", "1%"])
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert "--ids-file" in CliRunner().invoke(verb, ["--help"]).output


def test_a_file_of_ids_is_read_as_it_is_but_for_its_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeffä b\r\n c\u2028d \n".encode())
    asked = asked_by("--ids-file", str(file))
    assert asked.lines == ("ä b\n", " c\u2028d \n")
    assert asked.file == str(file)
    assert "ä b" not in repr(asked)


def test_a_file_of_ids_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    with pytest.raises(UsageError, match=r"ids\.txt: no such file or directory$"):
        asked_by("--ids-file", str(file))
    with pytest.raises(UsageError, match=r": is a directory$"):
        asked_by("--ids-file", str(tmp_path))
    file.write_bytes(b"\xff\xfe1")
    with pytest.raises(UsageError, match=r"ids\.txt is not text in UTF-8$"):
        asked_by("--ids-file", str(file))
    file.write_bytes(b"\n \n")
    with pytest.raises(UsageError, match=r"ids\.txt holds no _id$"):
        asked_by("--ids-file", str(file))
