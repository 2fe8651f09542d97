"""What an operator asks for, in the ledger of a run that was really planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, DatetimeMS, Int64, ObjectId
from pymongo.database import Database

from mongosplit import plan, selection
from mongosplit.errors import Refused, UsageError
from mongosplit.keyspace import Bracket, Range
from mongosplit.ledger import chunks, plans, runs
from mongosplit.ledger.book import Ledger
from mongosplit.model import Run
from mongosplit.range_text import range_text
from mongosplit.selection import Selection
from mongosplit.settings import read_settings
from producer.connection import Connection
from producer.selecting import Asked, parse_share, resolve

Document = dict[str, Any]
Planned = Callable[..., Run]
PLANNER = "a test (planning)"
OIDS = [ObjectId(n.to_bytes(12)) for n in range(1, 41)]
TEN = "64f0a1b2c3d4e5f601234567"
MIXED: list[object] = [
    *(-(2**53) - 1, -0.5, 0, 2**53 + 1, 2**63 - 1),
    *("", "a..b", "with space", TEN, "ü.."),
    *(ObjectId(TEN), ObjectId("f" * 24)),
    *(datetime(1902, 3, 4), datetime(1969, 12, 31, 23, 59, 59, 999000), DatetimeMS(2**60)),
]


@pytest.fixture
def planned(ledger: Ledger, facts: Document, database: Database[Document]) -> Planned:
    """Plans a run over documents with these ids."""

    def make(ids: Iterable[object], *, chunk_size: int = 4) -> Run:
        rows = [{"_id": value} for value in ids]
        if rows:
            database.users.insert_many(rows)
        run = runs.begin(ledger, name="users", facts=facts, holder=PLANNER)
        plans.write_plan(ledger, run.id, plan.walk(database.users, chunk_size=chunk_size))
        return run

    return make


@pytest.fixture
def ten(ledger: Ledger, planned: Planned) -> str:
    """A run of ten chunks of four ObjectIds, and the tail, chunk 11."""
    return planned(OIDS).id


def span(first: int, last: int, dots: str = "..") -> str:
    """The range from the n-th id to another; 0 leaves the bound out."""
    return dots.join(str(OIDS[n - 1]) if n else "" for n in (first, last))


def test_chunks_are_selected_by_number_and_the_tail_only_so(ledger: Ledger, ten: str) -> None:
    asked = selection.parse("1-3,11")
    assert selection.of_chunks(ledger, ten, asked) == asked
    with pytest.raises(UsageError) as refused:
        selection.of_chunks(ledger, ten, selection.parse("3-12"))
    assert refused.value.message == "chunk 12 does not exist: the last one of users-1 is 11"
    assert refused.value.hint == "write --chunks 1-11"
    with pytest.raises(UsageError, match=r"^users-9 has no chunks$"):
        selection.of_chunks(ledger, "users-9", asked)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (span(5, 13), "2-3"),
        (span(1, 5)[24:], "1"),
        (span(0, 13), "1-3"),
        (span(33, 0), "9-10"),
        (span(5, 40, "..="), "2-10"),
        ("..", "1-10"),
        ("000000000000000000000005..ffffffffffffffffffffffff", "2-10"),
    ],
)
def test_a_range_at_boundaries_selects_whole_chunks_and_never_the_tail(
    ledger: Ledger, ten: str, text: str, expected: str
) -> None:
    assert str(selection.of_range(ledger, ten, text)) == expected


LAST_ID = f"--range {span(0, 40, '..=')}"


@pytest.mark.parametrize(
    ("text", "cut", "hint"),
    [
        (span(6, 19), "chunk 2 and chunk 5", "--chunks 3-4; with the cut ones: --chunks 2-5"),
        (span(5, 14), "chunk 4", "--chunks 2-3; with the cut ones: --chunks 2-4"),
        (span(5, 13, "..="), "chunk 4", "--chunks 2-3; with the cut ones: --chunks 2-4"),
        (span(6, 7), "chunk 2", "none; with the cut ones: --chunks 2"),
        (span(6, 10), "chunk 2 and chunk 3", "none; with the cut ones: --chunks 2-3"),
        (span(1, 5), "chunk 1", "none; with the cut ones: --chunks 1"),
        (
            span(0, 40),
            "chunk 10",
            f"--chunks 1-9; with the cut ones: --chunks 1-10; with the last id: {LAST_ID}",
        ),
    ],
)
def test_a_range_that_cuts_chunks_is_refused_with_both_ways_out(
    ledger: Ledger, ten: str, text: str, cut: str, hint: str
) -> None:
    with pytest.raises(Refused) as refused:
        selection.of_range(ledger, ten, text)
    assert refused.value.message == f"range {text} cuts through {cut} of users-1"
    assert refused.value.hint == f"whole chunks inside: {hint}"


@pytest.mark.parametrize(
    "text", ["000000000000000000000029..", '"a".."b"', '..{"$numberLong": "5"}']
)
def test_a_range_without_a_chunk_is_a_sentence(ledger: Ledger, ten: str, text: str) -> None:
    with pytest.raises(UsageError, match=r"holds no id that a chunk of users-1 was planned with$"):
        selection.of_range(ledger, ten, text)


def chunks_of(low: int, high: int) -> tuple[set[int], set[int]]:
    """Which chunks of `ten` hold all and which only some of these ids, by counting."""
    there = [(n - 1) // 4 + 1 for n in range(low, high)]
    return {n for n in there if there.count(n) == 4}, {n for n in there if there.count(n) < 4}


def test_a_range_selects_just_the_chunks_whose_documents_all_lie_in_it(
    ledger: Ledger, ten: str
) -> None:
    selected = refused = 0
    for low in range(2, 41, 3):
        for high in range(low + 1, 41):
            inside, cut = chunks_of(low, high)
            if not cut:
                found = selection.of_range(ledger, ten, span(low, high))
                assert set(found.numbers()) == inside
                selected += 1
                continue
            with pytest.raises(Refused) as error:
                selection.of_range(ledger, ten, span(low, high))
            named = " and ".join(f"chunk {n}" for n in sorted(cut))
            assert f"cuts through {named} of" in error.value.message
            refused += 1
    assert selected > 5
    assert refused > 99


def test_every_chunk_of_hostile_ids_is_selected_by_the_range_and_the_ids_shown(
    ledger: Ledger, planned: Planned
) -> None:
    run = planned(MIXED, chunk_size=2).id
    known = selection.brackets(ledger, run)
    assert known == (Bracket.NUMBER, Bracket.STRING, Bracket.OBJECT_ID, Bracket.DATE)
    ordinary = chunks.numbers(ledger, run, {"tail": None})
    by_bracket: dict[Bracket, list[tuple[int, Range]]] = {}
    for n in ordinary:
        (part,) = chunks.get(ledger, run, n).ranges
        by_bracket.setdefault(part.bracket, []).append((n, part))
        if part.lo is not None or part.hi is not None:
            shown = range_text(part, known)
            assert list(selection.of_range(ledger, run, shown).numbers()) == [n], shown
    assert len(ordinary) > len(by_bracket) == 4
    for held in by_bracket.values():
        (first, low), (last, high) = held[0], held[-1]
        joined = Range(low.bracket, low.lo, high.hi, upto=high.upto)
        found = selection.of_range(ledger, run, range_text(joined, known))
        assert found.spans == ((first, last),)


def test_a_run_with_several_types_wants_to_know_which_one_is_meant(
    ledger: Ledger, planned: Planned
) -> None:
    run = planned(MIXED, chunk_size=2).id
    with pytest.raises(UsageError, match=r"could be objectId or string here$") as refused:
        selection.of_range(ledger, run, f"{TEN}..")
    assert '{"$oid"' in refused.value.hint
    with pytest.raises(UsageError, match=r"does not lie within one type of _id"):
        selection.of_range(ledger, run, "..")


def test_ids_select_the_chunks_that_hold_them_and_the_tail_for_later_ones(
    ledger: Ledger, ten: str
) -> None:
    lines = [f"{OIDS[0]}\n", "\n", f"{OIDS[3]}\r\n", f"{OIDS[4]}\n", f"{OIDS[4]}"]
    found, count = selection.of_ids(ledger, ten, lines)
    assert (str(found), count) == ("1-2", 3)
    found, count = selection.of_ids(ledger, ten, ["f" * 24, '"of another type"', str(OIDS[39])])
    assert (str(found), count) == ("10-11", 3)


def test_equal_numbers_of_different_types_are_one_id(ledger: Ledger, planned: Planned) -> None:
    run = planned([1, Int64(2), 2**53 + 1], chunk_size=1).id
    lines = ["1", "1.0", '{"$numberDecimal": "1.00"}', "9007199254740993"]
    found, count = selection.of_ids(ledger, run, lines)
    assert (str(found), count) == ("1,3", 2)


def binaries(subtype: int) -> list[Binary]:
    return [Binary(n.to_bytes(16), subtype) for n in range(1, 9)]


def test_a_uuid_is_refused_where_the_binary_ids_are_of_another_subtype(
    ledger: Ledger, planned: Planned
) -> None:
    run = planned(binaries(3)).id
    fifth = str(UUID(int=5))
    # As subtype 4 it lies beyond every id, so that this range would be the whole run.
    with pytest.raises(UsageError, match=r"are no UUIDs of subtype 4$") as refused:
        selection.of_range(ledger, run, f"..{fifth}")
    assert "$binary" in refused.value.hint
    with pytest.raises(UsageError, match=r"are no UUIDs of subtype 4$"):
        selection.of_ids(ledger, run, [fifth])
    shown = range_text(Range(Bracket.BIN_DATA, hi=binaries(3)[4]))
    assert str(selection.of_range(ledger, run, shown)) == "1"


def test_uuids_are_read_in_their_usual_form(ledger: Ledger, planned: Planned) -> None:
    run = planned(binaries(4)).id
    assert str(selection.of_range(ledger, run, f"..{UUID(int=5)}")) == "1"
    assert str(selection.of_ids(ledger, run, [str(UUID(int=5))])[0]) == "2"


def test_a_line_that_is_no_id_is_named_by_its_number_and_not_repeated(
    ledger: Ledger, ten: str
) -> None:
    with pytest.raises(UsageError) as refused:
        selection.of_ids(ledger, ten, [str(OIDS[0]), "", "peter@example.org"], name="ids.txt")
    assert refused.value.message == "line 3 of ids.txt: the text is no _id of type objectId"
    assert "peter" not in refused.value.hint
    with pytest.raises(UsageError, match=r"^ids.txt holds no _id$"):
        selection.of_ids(ledger, ten, ["", "\n"], name="ids.txt")


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("1%", "6"),
        ("10%", "6"),
        ("11%", "1,10"),
        ("30%", "1,5,10"),
        ("100%", "1-10"),
    ],
)
def test_a_canary_is_spread_over_all_chunks_but_the_tail(
    ledger: Ledger, ten: str, share: str, expected: str
) -> None:
    assert str(selection.canary(ledger, ten, parse_share(share))) == expected


def test_nothing_is_selected_of_an_empty_collection_but_the_tail(
    ledger: Ledger, planned: Planned
) -> None:
    run = planned([]).id
    with pytest.raises(UsageError, match=r"^users-1 has no chunk with documents$"):
        selection.canary(ledger, run, Fraction(1))
    with pytest.raises(UsageError, match=r"there is none$"):
        selection.of_range(ledger, run, "..")
    found, _ = selection.of_ids(ledger, run, [f'{{"$oid": "{TEN}"}}'])
    assert found == selection.of_chunks(ledger, run, selection.parse("1"))


@pytest.fixture
def vast(ledger: Ledger) -> str:
    """A run of 100,000 chunks of one number each, and the tail."""
    bounds: list[int | None] = [None, *range(1, 100_000), None]
    parts = (
        plan.PlannedChunk(n, (Range(Bracket.NUMBER, bounds[n - 1], bounds[n]),), 1)
        for n in range(1, 100_001)
    )
    rest = tuple(Range(bracket) for bracket in Bracket if bracket is not Bracket.NUMBER)
    plans.write_plan(ledger, "vast-1", [*parts, plan.PlannedChunk(100_001, rest, 0, tail=True)])
    return "vast-1"


def test_a_hundred_thousand_chunks_are_selected_and_found(ledger: Ledger, vast: str) -> None:
    half = selection.canary(ledger, vast, Fraction(1, 2))
    assert half.count == 50_000
    assert (next(half.numbers()), half.last) == (1, 100_000)
    scattered = Selection.of(range(1, 100_000, 20))
    assert len(scattered.spans) == 5_000
    for asked in (scattered, half, selection.parse("1-20,37,99999-100001")):
        found = chunks.numbers(ledger, vast, {"$and": [asked.query()]})
        assert found == list(asked.numbers())
    assert str(selection.of_range(ledger, vast, "500..90000")) == "501-90000"
    found_ids, count = selection.of_ids(ledger, vast, map(str, range(0, 100_000, 10)))
    assert (found_ids.count, count) == (10_000, 10_000)


def test_flags_are_resolved_against_the_run_and_none_means_everything(
    client: Any, ledger: Ledger, planned: Planned
) -> None:
    run = planned(OIDS)
    at = Connection(read_settings(), client, ledger)
    assert resolve(at, run, Asked()) is None
    asked = {
        "2-3": Asked(chunks=selection.parse("2-3")),
        "4": Asked(range=span(13, 17)),
        "1,10": Asked(lines=(f"{OIDS[0]}\n", f"{OIDS[39]}\n"), file="ids.txt"),
        "1,5,10": Asked(canary=Fraction(3, 10)),
    }
    assert {str(resolve(at, run, wanted)) for wanted in asked.values()} == set(asked)
    with pytest.raises(UsageError, match=r"^chunk 99 does not exist"):
        resolve(at, run, Asked(chunks=selection.parse("99")))
    with pytest.raises(UsageError, match=r"^line 1 of ids.txt: "):
        resolve(at, run, Asked(lines=("x",), file="ids.txt"))
