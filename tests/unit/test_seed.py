"""Owns the promises of the seeded `users` collection: its shape, its shares, its hostile kinds."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock  # for pymongo only: a unit test has no server

import bson
import pytest
from bson import Binary, Decimal128, Int64
from click.testing import CliRunner
from pymongo.errors import BulkWriteError

from mongosplit.errors import Failed, UsageError
from ops.seed import KINDS, PLAIN, main, seed, users, users_with_kinds
from ops.seed_hostile import UNKNOWN

Document = dict[str, Any]

COUNT = 4000
CLEAN = list(users(COUNT))
HOSTILE = list(users_with_kinds(COUNT, hostile=0.25))

DESIGN_4 = """_id username password isFullAccount isAdmin isVendor email lastLogin kontakt{name
    email telefon newslettertype mailNewsletter newsletterConfirmed confirmationToken tokenExpires
    status usrID} adressen{adresstyp strasse hausnummer plz ort telefon email anrede name1 name2}
    vendorProfile{unternehmen beschreibung profilBild bannerBild oeffnungszeiten{montag dienstag
    mittwoch donnerstag freitag samstag sonntag} kategorien tags products businessDetails{founded
    certifications productionMethods farmSize businessType} location{coordinates address
    deliveryRadius deliveryAreas} operationalInfo{seasonal yearRoundOperation peakSeason{start end}}
    slogan website socialMedia{facebook instagram} verifyStatus isPubliclyVisible featured}
    registrationDate registrationStatus trialStartDate trialEndDate isPubliclyVisible
    pendingBooking{packageData createdAt status} createdAt updatedAt __v"""
RARE = {Decimal128, Int64, Binary, bytes}
BAD: dict[str, Callable[[Document], bool]] = {
    "email_missing": lambda u: "email" not in u["kontakt"],
    "email_null": lambda u: u["kontakt"]["email"] is None,
    "email_empty": lambda u: u["kontakt"]["email"] == "",
    "email_number": lambda u: isinstance(u["kontakt"]["email"], (int, float)),
    "kontakt_missing": lambda u: "kontakt" not in u,
    "kontakt_null": lambda u: u["kontakt"] is None,
    "kontakt_string": lambda u: isinstance(u["kontakt"], str),
    "kontakt_array": lambda u: isinstance(u["kontakt"], list),
    "username_duplicate": lambda u: isinstance(u["username"], str),
    "email_duplicate": lambda u: u["kontakt"]["mailNewsletter"] is True,
    "last_login_string": lambda u: isinstance(u["lastLogin"], str),
    "is_admin_string": lambda u: isinstance(u["isAdmin"], str),
    "tags_string": lambda u: u["isVendor"] and isinstance(u["vendorProfile"]["tags"], str),
}
LEGAL: dict[str, Callable[[Document], bool]] = {
    "id_string": lambda u: isinstance(u["_id"], str),
    "id_int": lambda u: isinstance(u["_id"], int),
    "id_uuid": lambda u: u["_id"].as_uuid().version == 4,
    "newslettertype_null": lambda u: u["kontakt"]["newslettertype"] is None,
    "newslettertype_empty": lambda u: u["kontakt"]["newslettertype"] == "",
    "newslettertype_missing": lambda u: "newslettertype" not in u["kontakt"],
    "adressen_missing": lambda u: u["isVendor"] and "adressen" not in u,
    "vendor_profile_missing": lambda u: u["isVendor"] and "vendorProfile" not in u,
    "vendor_profile_null": lambda u: u["isVendor"] and u["vendorProfile"] is None,
    "dates_before_1970": lambda u: u["createdAt"] < datetime(1970, 1, 1),
    "rare_types": lambda u: {type(value) for _, value in leaves(u)} >= RARE,
    "rare_types_in_package": lambda u: {type(v) for _, v in leaves(u["pendingBooking"])} >= RARE,
    "dollar_and_dot_names": lambda u: {"$set", "kontakt.email"} <= u["legacy"].keys(),
}


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every path without list positions, and what is there; packages are one value."""
    if path:
        yield path, value
    if isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    elif isinstance(value, dict) and path != "pendingBooking.packageData":
        for name, below in value.items():
            yield from leaves(below, f"{path}.{name}".lstrip("."))


def spelled(design: str) -> Iterator[str]:
    """Yield the paths of names nested in braces."""
    parents, path = [""], ""
    for word in re.findall(r"\w+|[{}]", design):
        if word == "{":
            parents.append(f"{path}.")
        elif word == "}":
            parents.pop()
        else:
            yield (path := parents[-1] + word)


def share(of: Callable[[Document], bool]) -> float:
    return sum(map(of, CLEAN)) / COUNT


def test_field_names_are_those_of_the_design_and_all_of_them_occur() -> None:
    unknown = {name for extra in UNKNOWN for name in extra}
    found = {path for user in CLEAN for path, _ in leaves(user)}
    assert {path for path in found if path.split(".")[0] not in unknown} == {*spelled(DESIGN_4)}


def test_the_same_seed_makes_the_same_users_in_every_process() -> None:
    code = "from ops.seed import users; print(*users(300, seed=3, hostile=0.2))"
    environments = ({**os.environ, "PYTHONHASHSEED": salt} for salt in ("1", "2"))
    made = [subprocess.check_output([sys.executable, "-c", code], env=e) for e in environments]
    assert made[0] == made[1]


def test_ids_usernames_and_emails_are_unique_over_every_seed_and_count() -> None:
    loads = users(300), users(299), users(300, seed=8), users(300, seed=-7), CLEAN
    made = [user for load in loads for user in load]
    for name in ("_id", "username"):
        given = [user[name] for user in made if name in user]
        assert len(given) == len(set(given))
    assert len({user["kontakt"]["email"] for user in made}) == len(made)


def test_shares_are_those_of_the_customer() -> None:
    assert share(lambda user: not user["isFullAccount"]) == pytest.approx(0.30, abs=0.03)
    assert share(lambda user: user.get("isVendor", False)) == pytest.approx(0.20, abs=0.03)
    reads = [user["kontakt"].get("mailNewsletter", False) for user in CLEAN]
    assert sum(reads) / COUNT == pytest.approx(0.60, abs=0.03)
    assert 0 < share(lambda user: user.get("isAdmin", False)) < 0.005
    statuses = {user["kontakt"].get("status", "") for user in CLEAN}
    assert statuses == {"aktiv", "inaktiv", "pending", ""}


def test_newsletter_only_users_have_no_login_and_vendors_have_a_profile() -> None:
    for user in CLEAN:
        assert user["isFullAccount"] == ("username" in user) == ("password" in user)
        assert not user.get("isVendor") or "vendorProfile" in user


def test_some_documents_are_old_and_some_hold_unknown_fields() -> None:
    assert 0.01 < share(lambda user: "createdAt" not in user) < 0.1
    assert 0.01 < share(lambda user: any(e.items() <= user.items() for e in UNKNOWN)) < 0.1


def test_names_reach_beyond_ascii_and_beyond_the_basic_plane() -> None:
    letters = set("".join(user["kontakt"].get("name", "") for user in CLEAN))
    assert {"ü", "ß", "\u0308", "\u200d", "🌻", "م", "ד"} <= letters


def test_moments_are_naive_and_use_whole_milliseconds() -> None:
    found = [value for user in CLEAN for _, value in leaves(user) if isinstance(value, datetime)]
    assert all(moment.tzinfo is None and moment.microsecond % 1000 == 0 for moment in found)
    assert len({moment.microsecond for moment in found}) > 900


def test_ids_tell_when_users_registered_in_bursts_and_rarely_at_night() -> None:
    born = [user["_id"].generation_time.replace(tzinfo=None) for user in CLEAN]
    for at, user in zip(born, CLEAN, strict=True):
        assert at == user.get("createdAt", at).replace(microsecond=0)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(born)]
    assert min(gaps) >= 0
    assert statistics.median(gaps) < statistics.mean(gaps) / 4
    assert sum(at.hour < 4 for at in born) < COUNT / 10


def test_every_document_encodes_and_decodes_to_itself_in_about_a_kilobyte() -> None:
    encoded = [bson.encode(user) for user, _ in HOSTILE]
    assert [bson.decode(user) for user in encoded] == [user for user, _ in HOSTILE]
    assert 800 < statistics.mean(map(len, encoded)) < 1200


def test_hostile_share_is_exact_and_even_over_the_kinds() -> None:
    assert {kind.name for kind in KINDS if kind.bad} == {*BAD}
    planted = Counter(name for _, name in HOSTILE)
    assert planted.pop(PLAIN) == COUNT * 0.75
    assert {*planted} == {*BAD, *LEGAL}
    assert max(planted.values()) - min(planted.values()) <= 1


def test_every_kind_looks_as_its_name_says() -> None:
    looks = BAD | LEGAL | {PLAIN: bool}
    for user, name in HOSTILE:
        assert looks[name](user), name
        assert "newslettertype" not in name or user["kontakt"]["mailNewsletter"] is True


@pytest.mark.parametrize("hostile", [0.05, 1.0])
def test_a_duplicate_repeats_an_earlier_good_user_but_no_user_twice_over(hostile: float) -> None:
    known: dict[str, int] = {}
    repeated = {"username": set[int](), "email": set[int]()}
    for number, (user, name) in enumerate(users_with_kinds(COUNT, hostile=hostile)):
        if name == "username_duplicate":
            repeated["username"].add(known[user["username"]])
        elif name == "email_duplicate":
            repeated["email"].add(known[user["kontakt"]["email"]])
        elif name not in BAD:
            reads = user["kontakt"].get("mailNewsletter", False)
            known |= {user.get("username", ""): number, user["kontakt"]["email"] * reads: number}
    assert all(repeated.values())
    assert not repeated["username"] & repeated["email"]


def test_documents_left_plain_are_the_same_at_every_share() -> None:
    for clean, (user, name) in zip(CLEAN, HOSTILE, strict=True):
        assert name != PLAIN or user == clean


@pytest.mark.parametrize(("count", "hostile"), [(-1, 0.0), (5, -0.1), (5, 1.1), (5, float("nan"))])
def test_a_count_or_share_out_of_range_is_refused_at_once(count: int, hostile: float) -> None:
    with pytest.raises(UsageError, match="hostile share"):
        users(count, hostile=hostile)


def test_seeding_inserts_in_batches_and_counts_by_kind() -> None:
    shelf, steps = MagicMock(), list[int]()
    planted = seed(shelf, 250, hostile=0.4, batch=100, progress=steps.append)
    calls = shelf.insert_many.mock_calls
    assert [len(call.args[0]) for call in calls] == [100, 100, 50]
    assert all(call.kwargs == {"ordered": False} for call in calls)
    assert steps == [100, 200, 250]
    assert +Counter(planted) == Counter(name for _, name in users_with_kinds(250, hostile=0.4))
    assert set(planted) == {PLAIN, *BAD, *LEGAL}


def test_a_refused_document_fails_the_seeding_without_telling_what_it_held() -> None:
    shelf = MagicMock(full_name="shop.users")
    shelf.insert_many.side_effect = BulkWriteError({"writeErrors": [{"errmsg": "secret"}] * 3})
    with pytest.raises(Failed, match=r"^shop\.users refused 3 users$") as failed:
        seed(shelf, 10)
    assert (failed.value.__cause__, failed.value.__suppress_context__) == (None, True)


def test_the_command_refuses_a_collection_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    client = MagicMock()  # whatever is asked for is found
    monkeypatch.setattr("ops.seed.MongoClient", client)
    result = CliRunner().invoke(main, ["--mongo-url", "mongodb://nowhere"])
    assert result.exit_code == 2
    assert result.stderr.endswith("is not empty; --append adds to it\n")
    assert "insert_many" not in str(client.mock_calls)


def test_the_command_says_in_a_sentence_that_no_server_answers() -> None:
    url = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50"
    result = CliRunner().invoke(main, ["--mongo-url", url])
    assert result.exit_code == 1
    assert result.stderr == "Error: no answer from --mongo-url: ServerSelectionTimeoutError\n"
