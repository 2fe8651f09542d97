"""Chunks divide the whole key space, whatever types of `_id` a collection holds."""

from __future__ import annotations

import math
import tracemalloc
from collections import deque
from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.dbref import DBRef
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from mongosplit.errors import Failed, Refused, UsageError
from mongosplit.keyspace import EXACT_IDS, Bracket, Range, bracket_of, sort_key, union_query
from mongosplit.plan import KeyMap, PlannedChunk, walk

DUPLICATE_KEY = 11000


def element(kind: int, payload: bytes) -> RawBSONDocument:
    """A document whose `_id` is a BSON element that pymongo does not write itself."""
    body = bytes([kind]) + b"_id\0" + payload + b"\0"
    return RawBSONDocument((len(body) + 4).to_bytes(4, "little") + body)


def text(data: bytes) -> bytes:
    return (len(data) + 1).to_bytes(4, "little") + data + b"\0"


def symbol(name: str) -> RawBSONDocument:
    return element(0x0E, text(name.encode()))


def db_pointer(namespace: str, oid: ObjectId) -> RawBSONDocument:
    return element(0x0C, text(namespace.encode()) + oid.binary)


def invalid_text(data: bytes) -> RawBSONDocument:
    return element(0x02, text(data + b"\xff"))


def row(value: object) -> RawBSONDocument:
    return RawBSONDocument(bson.encode({"_id": value}))


NUMBERS: list[object] = [
    *(0, -0.0, 1, Int64(1), 2**31, 2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63 - 1),
    *(-(2**63), float(2**63), 0.1, 5e-324, 1.7e308, math.inf, -math.inf, math.nan),
    *map(Decimal128, ["0.1", "1E400", "-1E400", "NaN", "sNaN", "Infinity", "-Infinity", "1E-6176"]),
    *map(Decimal128, ["0.1000000000000000055511151231257827", "9007199254740993", "-0", "1.0"]),
    *map(Decimal128, ["0.1000000000000000055511151231257828", "9223372036854775807.5"]),
]
WORDS = [
    "",
    "a",
    "A",
    "a\0",
    "a\0b",
    "aa",
    "é",
    "ﬀ",
    "\uffff",
    "😀",
    "𐀀",
    "e\u0301",
    "\x7f",
    "z" * 40,
]
numbers = st.one_of(
    st.sampled_from(NUMBERS),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.integers(-9, 9),
    st.floats(),
    st.decimals(allow_nan=False, places=3, min_value=-999, max_value=999).map(Decimal128),
)
texts = st.sampled_from(WORDS) | st.text(max_size=6)
binaries = st.builds(
    Binary,
    st.binary(max_size=20) | st.just(bytes(300)),
    st.sampled_from([0, 1, 2, 3, 4, 5, 128, 255]),
)
object_ids = st.binary(min_size=12, max_size=12).map(ObjectId)
dates = st.one_of(
    st.sampled_from([-(2**63), -62135596800001, -1, 0, 1, 253402300800000, 2**63 - 1]),
    st.integers(-(2**63), 2**63 - 1),
).map(DatetimeMS)
timestamps = st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
leaves = st.one_of(numbers, texts, binaries, object_ids, st.booleans(), dates, timestamps)
points = st.sampled_from([None, MinKey(), MaxKey(), math.nan, -math.nan, Decimal128("NaN")])
references = st.builds(DBRef, st.sampled_from("ab"), leaves, st.sampled_from([None, "d"]))
patterns = st.builds(Regex, st.sampled_from("ab"), st.sampled_from(["", "i", "im", "x"]))
inner = st.recursive(
    leaves | points | patterns | references,
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from("abü"), deeper),
    max_leaves=5,
)
documents = st.dictionaries(st.sampled_from("abü"), inner)
codes = st.builds(Code, texts) | st.builds(Code, texts, documents)
rows = st.one_of(
    st.one_of(leaves, numbers, texts, points, codes, documents, references).map(row),
    texts.map(symbol),
    st.binary(max_size=2).map(invalid_text),
    st.builds(db_pointer, st.sampled_from(["a", "b.c"]), object_ids),
)
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def fill(collection: Collection[Any], documents: list[RawBSONDocument]) -> None:
    """Insert what is not there yet; the server decides which ids are the same."""
    if not documents:
        return
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        codes_seen = {write["code"] for write in error.details["writeErrors"]}
        assert codes_seen == {DUPLICATE_KEY}, codes_seen


def refill(database: Database[Any], documents: list[RawBSONDocument]) -> Collection[Any]:
    collection = database.get_collection("source", codec_options=EXACT_IDS)
    collection.delete_many({})
    fill(collection, documents)
    return collection


def found(collection: Collection[Any], query: dict[str, Any]) -> list[bytes]:
    # Whole documents: a read covered by the index would give every NaN the same bits.
    return [document.raw for document in collection.find(query, sort=[("_id", 1)])]


def decoded(raw: bytes) -> object:
    return RawBSONDocument(raw, EXACT_IDS)["_id"]


def placeable(raws: list[bytes]) -> list[bytes]:
    """All but dbPointers, which decode to the same as the documents they resemble."""
    return [raw for raw in raws if raw[4] != 0x0C]


def sizes_by_bracket(chunks: list[PlannedChunk]) -> Iterable[tuple[Bracket, list[int], int]]:
    """For each bracket the sizes of its chunks but the last, and that of the last."""
    for bracket, group in groupby(chunks[:-1], lambda chunk: chunk.ranges[0].bracket):
        *full, last = (chunk.docs for chunk in group)
        yield bracket, full, last


def key_map(chunks: list[PlannedChunk]) -> KeyMap:
    return KeyMap((chunk.n, chunk.ranges) for chunk in chunks)


@given(held=st.lists(rows, min_size=1, max_size=40), size=st.integers(1, 7))
@examples
def test_every_document_is_in_exactly_one_chunk_of_the_asked_size(
    database: Database[Any], held: list[RawBSONDocument], size: int
) -> None:
    source = refill(database, held)
    chunks = list(walk(source, chunk_size=size))
    members = [found(source, union_query(chunk.ranges)) for chunk in chunks]

    assert [raw for chunk in members for raw in chunk] == found(source, {})
    assert [len(chunk) for chunk in members] == [chunk.docs for chunk in chunks]
    assert [chunk.n for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [chunk.tail for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    for bracket, full, last in sizes_by_bracket(chunks):
        # Text that cannot be a bound, and dbPointers, may make a chunk larger.
        if bracket not in (Bracket.STRING, Bracket.DB_POINTER):
            assert set(full) <= {size}
            assert 0 < last <= size


@given(held=st.lists(rows, max_size=20), later=st.lists(rows, max_size=30), size=st.integers(1, 7))
@examples
def test_an_id_inserted_after_planning_is_in_exactly_one_chunk(
    database: Database[Any], held: list[RawBSONDocument], later: list[RawBSONDocument], size: int
) -> None:
    source = refill(database, held)
    chunks = list(walk(source, chunk_size=size))
    fill(source, later)
    members = [found(source, union_query(chunk.ranges)) for chunk in chunks]

    assert sorted(raw for chunk in members for raw in chunk) == sorted(found(source, {}))


@given(held=st.lists(rows, max_size=20), later=st.lists(rows, max_size=30), size=st.integers(1, 7))
@examples
def test_python_places_an_id_where_the_server_finds_it(
    database: Database[Any], held: list[RawBSONDocument], later: list[RawBSONDocument], size: int
) -> None:
    source = refill(database, held)
    chunks = list(walk(source, chunk_size=size))
    chunk_of = key_map(chunks).chunk_of
    fill(source, later)
    everything = placeable(found(source, {}))

    for chunk in chunks:
        for part in chunk.ranges:
            members = placeable(found(source, part.query()))
            assert [raw for raw in everything if part.contains(decoded(raw))] == members
            assert all(chunk_of(decoded(raw)) == chunk.n for raw in members)
            assert all(bracket_of(decoded(raw)) is part.bracket for raw in members)


@given(held=st.lists(rows, max_size=60))
@examples
def test_sort_key_orders_ids_as_the_index_does(
    database: Database[Any], held: list[RawBSONDocument]
) -> None:
    raws = placeable(found(refill(database, held), {}))
    keys = [sort_key(decoded(raw)) for raw in raws]

    assert all(one < next_one for one, next_one in pairwise(keys))


@given(held=st.lists(rows, min_size=1, max_size=20))
@examples
def test_a_range_survives_the_ledger(database: Database[Any], held: list[RawBSONDocument]) -> None:
    source = refill(database, held)
    ledger = CodecOptions[Any](datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    for chunk in walk(source, chunk_size=2):
        for part in chunk.ranges:
            stored = bson.encode(part.to_document())
            restored = Range.from_document(bson.decode(stored, ledger))
            assert bson.encode(restored.query()) == bson.encode(part.query())
            assert (restored.start, restored.end) == (part.start, part.end)


def one_of_each() -> list[RawBSONDocument]:
    """Two ids of every bracket that holds more than one value."""
    values: list[object] = [
        *(None, MinKey(), MaxKey(), math.nan, 1, 2.5, "a", "b", {"a": 1}, {"a": 2}, b"a", b"b"),
        *(ObjectId(b"a" * 12), ObjectId(b"b" * 12), False, True, DatetimeMS(-1), DatetimeMS(1)),
        *(Timestamp(1, 1), Timestamp(1, 2), Code("a"), Code("b"), Code("a", {}), Code("b", {})),
    ]
    pointers = [db_pointer(name, ObjectId(b"a" * 12)) for name in "ab"]
    return [*map(row, values), *pointers]


def test_ranges_over_the_owner_field_leave_out_documents_without_it(
    database: Database[Any],
) -> None:
    source = refill(database, one_of_each())
    target = database.get_collection("target", codec_options=EXACT_IDS)
    copy: list[dict[str, Any]] = [
        {"$project": {"_id": {"$toString": {"$rand": {}}}, "userId": "$_id"}},
        {"$out": "target"},
    ]
    source.aggregate(copy)
    target.insert_one({"_id": "not ours"})

    chunks = list(walk(source, chunk_size=1))
    by_owner = [target.count_documents(union_query(chunk.ranges, "userId")) for chunk in chunks]

    assert by_owner == [chunk.docs for chunk in chunks]
    assert {part.bracket for chunk in chunks[:-1] for part in chunk.ranges} == set(Bracket)


def test_every_range_is_an_index_scan_within_its_bounds(database: Database[Any]) -> None:
    source = refill(database, one_of_each())
    for chunk in walk(source, chunk_size=1):
        for part in chunk.ranges:
            command = {"find": source.name, "filter": part.query(), "sort": {"_id": 1}}
            explained = database.command({"explain": command, "verbosity": "executionStats"})
            stats = explained["executionStats"]
            assert stats["totalKeysExamined"] <= stats["nReturned"] + 1
            assert "COLLSCAN" not in str(stats)


def test_a_range_of_no_documents_matches_none(database: Database[Any]) -> None:
    source = refill(database, one_of_each())
    assert source.count_documents(union_query([])) == 0


def test_an_empty_collection_is_all_tail(database: Database[Any]) -> None:
    only = list(walk(database["nothing"], chunk_size=1000))
    assert only == [PlannedChunk(1, tuple(map(Range, Bracket)), 0, tail=True)]


def test_text_that_cannot_be_sent_back_is_never_a_bound(database: Database[Any]) -> None:
    source = refill(database, [*map(row, "abcd"), invalid_text(b"b"), invalid_text(b"e")])

    chunks = list(walk(source, chunk_size=2))

    assert [chunk.docs for chunk in chunks] == [3, 3, 0]
    assert [chunk.ranges[0].hi for chunk in chunks[:2]] == ["c", None]


def test_chunks_come_one_by_one_and_tell_how_far_they_are(database: Database[Any]) -> None:
    source = refill(database, [row(n) for n in range(10)])
    planned: list[int] = []
    chunks = walk(source, chunk_size=4, on_progress=planned.append)

    assert next(chunks).docs == 4
    assert planned == [4]
    assert [chunk.docs for chunk in chunks] == [4, 2, 0]
    assert planned == [4, 8, 10]


def test_planning_in_a_snapshot_session_does_not_see_later_inserts(
    client: MongoClient[Any], database: Database[Any]
) -> None:
    source = refill(database, [row(n) for n in range(10)])
    with client.start_session(snapshot=True) as session:
        chunks = walk(source, chunk_size=8, session=session)
        next(chunks)
        source.insert_many([row(8.5), row(100)])
        last = next(chunks)

    assert (last.docs, last.ranges[0].hi) == (2, 9)


def test_planning_30_000_ids_keeps_constant_memory(database: Database[Any]) -> None:
    # By hand on 2 cores: 0.9 µs an id in chunks of 1,000 (300,000 ids), 27 µs in chunks of 20.
    source = refill(database, [row(n) for n in range(30_000)])
    deque(walk(source, chunk_size=5_000), maxlen=0)

    tracemalloc.start()
    try:
        deque(walk(source, chunk_size=20), maxlen=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 150_000


@pytest.mark.parametrize("size", [0, -1, 100_001])
def test_a_chunk_size_out_of_bounds_is_refused_before_anything_is_read(
    database: Database[Any], size: int
) -> None:
    with pytest.raises(UsageError, match=f"chunk size {size:,} is not between 1 and 100,000"):
        walk(database["source"], chunk_size=size)


def test_ids_of_text_under_a_collation_are_refused(database: Database[Any]) -> None:
    source = database.create_collection("source", collation={"locale": "en", "strength": 2})
    source.insert_many([{}, {}])
    assert [chunk.docs for chunk in walk(source, chunk_size=1)] == [1, 1, 0]

    source.insert_one({"_id": "anna"})
    with pytest.raises(Refused, match="a collation that ranges cannot follow"):
        walk(source, chunk_size=1)


EVERYTHING = tuple(map(Range, Bracket))
NUMBERS_AT = Bracket.NUMBER
OTHERS = tuple(part for part in EVERYTHING if part.bracket is not NUMBERS_AT)


@pytest.mark.parametrize(
    "numbers_divided",
    [
        [Range(NUMBERS_AT, hi=1), Range(NUMBERS_AT, lo=2)],
        [Range(NUMBERS_AT, hi=2), Range(NUMBERS_AT, lo=1)],
        [Range(NUMBERS_AT, hi=1), Range(NUMBERS_AT, lo=1, above=True)],
        [Range(NUMBERS_AT, hi=1, upto=True), Range(NUMBERS_AT, lo=1)],
        [],
    ],
)
def test_chunks_with_a_gap_or_an_overlap_make_no_key_map(numbers_divided: list[Range]) -> None:
    with pytest.raises(Failed, match="overlap or leave a gap"):
        KeyMap([(1, OTHERS), *((n, [part]) for n, part in enumerate(numbers_divided, 2))])


def test_a_key_map_takes_chunks_in_any_order() -> None:
    first, second = [Range(NUMBERS_AT, hi=Decimal128("5.0"))], [Range(NUMBERS_AT, lo=5, hi=9)]
    third = [*OTHERS, Range(NUMBERS_AT, lo=9)]
    chunk_of = KeyMap([(3, third), (2, second), (1, first)]).chunk_of
    assert [chunk_of(value) for value in (4.9, 5, 8, 9.0, "x", math.nan)] == [1, 2, 2, 3, 3, 3]
