"""A survey of a real collection: exact, in constant memory, and honest about a sample."""

from __future__ import annotations

import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.database import Database

from mongosplit import raw
from mongosplit.coverage import BATCH, Survey, shown, survey
from mongosplit.errors import UsageError
from mongosplit.users import migration
from ops.seed import seed
from tests.property.hostile import SCALARS

Names = tuple[str, ...]
KINDS = {bool: "bool", Int64: "long", int: "int", float: "double", str: "string", bytes: "binData"}
KINDS |= {Binary: "binData", Decimal128: "decimal", ObjectId: "objectId", datetime: "date"}

# DESIGN §4, spelled out here once more: what each target takes, and what it only looks at.
BASE = "_id username password lastLogin createdAt updatedAt isAdmin kontakt.email"
VENDOR = "adressen kontakt.telefon registrationStatus registrationDate trialStartDate trialEndDate"
VENDOR += " isPubliclyVisible pendingBooking"
PROFILE = "unternehmen beschreibung slogan kategorien profilBild bannerBild oeffnungszeiten website"
PROFILE += (
    " socialMedia tags products businessDetails location operationalInfo verifyStatus featured"
)
NEWS = "name newslettertype confirmationToken tokenExpires newsletterConfirmed"
LOOKED_AT = "isVendor kontakt.mailNewsletter kontakt.status"


@pytest.fixture
def users(database: Database[dict[str, Any]]) -> Collection[dict[str, Any]]:
    return database.users


def leaves(value: Any, names: Names = (), depth: int = 0) -> Iterator[tuple[Names, str]]:
    """Every value a decoded document ends in: its path and type."""
    where = ("", "array of ", "nested array of ")[min(depth, 2)]
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*names, name))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner, names, depth + 1)
    elif isinstance(value, dict | list):
        yield names, f"{where}empty {'object' if isinstance(value, dict) else 'array'}"
    else:
        yield names, where + ("null" if value is None else KINDS[type(value)])


def takes(document: dict[str, Any]) -> set[Names]:
    """The source paths that the targets of this user take."""
    taken = [*BASE.split(), *LOOKED_AT.split()]
    kontakt = document.get("kontakt")
    if document.get("isVendor") is True:
        taken += [*VENDOR.split(), *(f"vendorProfile.{name}" for name in PROFILE.split())]
    if isinstance(kontakt, dict) and kontakt.get("mailNewsletter") is True:
        taken += [f"kontakt.{name}" for name in NEWS.split()]
    return {tuple(path.split(".")) for path in taken}


def test_every_path_is_reported_with_the_counts_a_decoded_recount_finds(
    users: Collection[dict[str, Any]],
) -> None:
    seed(users, 700, hostile=0.6)
    documents: Counter[Names] = Counter()
    residual: Counter[Names] = Counter()
    types: dict[Names, Counter[str]] = defaultdict(Counter)
    for document in users.find():
        taken, found = takes(document), set(leaves(document))
        for names, kind in found:
            types[names][kind] += 1
        for names in {names for names, _ in found}:
            documents[names] += 1
            above = (names[:depth] for depth in range(1, len(names) + 1))
            residual[names] += taken.isdisjoint(above)

    result = survey(users, migration)

    assert (result.complete, result.documents, result.of) == (True, 700, 700)
    assert [path.path for path in result.paths] == [shown(names) for names in sorted(documents)]
    assert {path.path: (path.documents, path.types, path.residual) for path in result.paths} == {
        shown(names): (documents[names], types[names], residual[names]) for names in documents
    }


def test_addresses_of_users_who_are_no_vendors_are_named_with_their_count(
    users: Collection[dict[str, Any]],
) -> None:
    seed(users, 500)
    plz = next(path for path in survey(users, migration).paths if path.path == "adressen.plz")
    has_it = {"adressen.plz": {"$exists": True}}
    assert plz.documents == users.count_documents(has_it) > 0
    assert plz.residual == users.count_documents({**has_it, "isVendor": {"$ne": True}}) > 0
    assert plz.taken == users.count_documents({**has_it, "isVendor": True}) > 0
    assert plz.mapped_to == ("vendors.addresses",)


def test_types_are_what_the_server_calls_them(users: Collection[dict[str, Any]]) -> None:
    made = [raw.build([("_id", raw.encode(n)), ("x", v)]) for n, v in enumerate(SCALARS)]
    users.insert_many([RawBSONDocument(each) for each in made])
    asked = users.aggregate([{"$group": {"_id": {"$type": "$x"}, "n": {"$sum": 1}}}])
    found = {path.path: path for path in survey(users, migration).paths}
    assert found["x"].types == {row["_id"]: row["n"] for row in asked}
    assert found["x"].documents == len(SCALARS)


def test_a_sample_says_so_and_extrapolates_nothing(users: Collection[dict[str, Any]]) -> None:
    seed(users, 600)
    result = survey(users, migration, sample=90)
    assert (result.complete, result.documents, result.of) == (False, 90, 600)
    assert result.basis == "a random sample of 90 of about 600 documents"
    assert {path.path: path.documents for path in result.paths}["_id"] == 90
    assert max(path.documents for path in result.paths) == 90


def test_a_sample_larger_than_the_collection_still_does_not_call_itself_complete(
    users: Collection[dict[str, Any]],
) -> None:
    seed(users, 20)
    result = survey(users, migration, sample=1000)
    assert (result.complete, result.documents, result.of) == (False, 20, 20)


def test_an_empty_collection_has_no_paths(users: Collection[dict[str, Any]]) -> None:
    assert survey(users, migration) == Survey(True, 0, 0, ())
    assert survey(users, migration, sample=5) == Survey(False, 0, 0, ())


@pytest.mark.parametrize("sample", [0, -1])
def test_a_sample_of_nothing_is_refused(users: Collection[dict[str, Any]], sample: int) -> None:
    with pytest.raises(UsageError, match="says nothing"):
        survey(users, migration, sample=sample)


def test_progress_is_told_after_each_batch_and_at_the_end(
    users: Collection[dict[str, Any]],
) -> None:
    count = 2 * BATCH + 7
    users.insert_many({"_id": n} for n in range(count))
    told: list[tuple[int, int]] = []
    survey(users, migration, on_progress=lambda *done: told.append(done))
    assert told == [(BATCH, count), (2 * BATCH, count), (count, count)]


def test_memory_does_not_grow_with_the_number_of_documents(
    users: Collection[dict[str, Any]],
) -> None:
    ballast = "x" * 4000
    peaks: list[int] = []
    for total in (3 * BATCH, 9 * BATCH):
        done = users.estimated_document_count()
        users.insert_many({"_id": n, "kontakt": {"name": ballast}} for n in range(done, total))
        tracemalloc.start()
        survey(users, migration)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
