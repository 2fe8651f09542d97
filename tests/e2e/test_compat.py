"""The verbs on the compat view, as an operator types them."""

from __future__ import annotations

import json

import pytest

from mongosplit.ledger.claims import Attempt
from mongosplit.migrate import migrate_chunk
from mongosplit.open_run import open_run
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes, refused
from tests.integration.conftest import user

VIEW = "users_compat"


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """A run of six users, one of them in quarantine, with nothing migrated."""
    documents = [user(n) for n in range(1, 6)] + [user(6, {"kontakt.email": None})]
    shop.data["users"].insert_many(documents)
    shop.data["users"].create_index("username")
    typed = Typed(shop, monkeypatch, capsys)
    done = typed("start", "--detach", "--yes", "--chunk-size", "5")
    assert done.code == 0, done.err
    return typed


def migrate(shop: Shop) -> None:
    at = open_run(shop.data.client, shop.ledger, "users-1", holder="a test")
    for row in shop.ledger["chunks"].find({}, {"n": 1}):
        migrate_chunk(at, row["n"], Attempt("w1@here"))


def test_it_is_made_explained_and_dropped(typed: Typed) -> None:
    shop = typed.shop
    nothing = "users-1 is running: a view would find nothing to join"
    with nothing_changes(shop):
        refused(typed("compat", "create", "--yes"), 3, nothing, "mongosplit status users-1")
    migrate(shop)
    missing = f"there is no view {shop.data.name}.{VIEW}"
    hint = "make it: mongosplit compat create users-1"
    refused(typed("compat", "explain"), 3, missing, hint)

    said = typed("compat", "create", "users", "--yes")
    assert (said.code, said.out) == (0, f"view {shop.data.name}.{VIEW} made\n"), said.err
    assert list(shop.data[VIEW].find().sort("_id")) == list(shop.data["users"].find().sort("_id"))
    with nothing_changes(shop):
        again = typed("compat", "create", "-o", "json")
    assert json.loads(again.out) == {"run": "users-1", "view": VIEW, "changed": False}

    with nothing_changes(shop):
        told = json.loads(typed("compat", "explain", "-o", "json").out)
    reads = {read["field"]: read for read in told["reads"]}
    assert list(reads) == ["_id", "username", "kontakt.email"]
    assert "username_1" in reads["username"]["indexes"]
    assert not reads["username"]["scans"]
    assert reads["kontakt.email"]["scans"], "the shop has no index on it"
    lines = typed("compat", "explain", "users-1", "username=käthe1").out.splitlines()
    assert lines[1].startswith("username")
    assert "käthe1" not in "".join(lines)

    said = typed("compat", "drop", "--yes")
    assert (said.code, said.out) == (0, f"view {shop.data.name}.{VIEW} dropped\n"), said.err
    assert typed("compat", "drop").out == f"view {shop.data.name}.{VIEW} is not there\n"
    verbs = {row["facts"]["verb"] for row in shop.ledger["audit"].find({"action": "verb"})}
    assert {"compat create", "compat drop"} <= verbs


@pytest.mark.parametrize("name", ["", "a$b", "system.views", ".x", "x."])
def test_what_is_no_name_for_a_view_is_said_so(typed: Typed, name: str) -> None:
    said = typed("compat", "create", "--yes", "--name", name)
    refused(said, 2, "that is no name for a view", "give --name users_compat")


@pytest.mark.parametrize("word", ["=x", "$where=1"])
def test_a_field_to_read_by_is_named(typed: Typed, word: str) -> None:
    migrate(typed.shop)
    assert typed("compat", "create", "--yes").code == 0
    said = typed("compat", "explain", word)
    refused(said, 2, "what is read by is FIELD=VALUE", "give for example username=anna")


def test_a_collection_of_that_name_stands_in_the_way_and_stays(typed: Typed) -> None:
    migrate(typed.shop)
    typed.shop.data["mine"].insert_one({"mine": True})
    name = f"{typed.shop.data.name}.mine"
    sentence = f"{name} is a collection that no run of {typed.shop.data.name}.users has made"
    for verb in ("create", "drop"):
        with nothing_changes(typed.shop):
            said = typed("compat", verb, "--name", "mine", "--yes")
        refused(said, 3, sentence, "choose another name: --name")


def test_a_rollback_of_the_whole_run_drops_the_view(typed: Typed) -> None:
    migrate(typed.shop)
    assert typed("compat", "create", "--yes").code == 0
    said = typed("rollback", "--yes", "--local-workers", "1")
    assert said.code == 0, said.err
    assert set(typed.shop.data.list_collection_names()) - {"system.views"} == {"users"}
