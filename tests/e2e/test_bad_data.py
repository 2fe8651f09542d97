"""Data, ledgers and declarations that cannot be split as they are: said, and nothing half done."""

from __future__ import annotations

from typing import Any

import pytest
from bson import ObjectId

from mongosplit.users import migration
from ops.seed import seed
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes, refused

USERS = 30
TARGETS = tuple(target.collection for target in migration.targets)


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    seed(shop.data["users"], USERS)
    return Typed(shop, monkeypatch, capsys)


def planned(typed: Typed) -> Shop:
    said = typed("plan", "users", "--yes")
    assert said.code == 0, said.err
    return typed.shop


@pytest.mark.parametrize("line", ["plan --yes", "plan --dry-run", "start --yes"])
def test_a_source_that_is_missing_or_empty_is_named(typed: Typed, line: str) -> None:
    source, hint = typed.shop.data["users"], "check MONGOSPLIT_DATABASE (--database)"
    source.drop()
    with nothing_changes(typed.shop):
        refused(typed(*line.split()), 2, f"there is no collection {source.full_name}", hint)
    typed.shop.data.create_collection("users")
    with nothing_changes(typed.shop):
        said = typed(*line.split())
    refused(said, 2, f"{source.full_name} is empty: there is nothing to split", hint)


def test_coverage_of_a_source_that_is_missing_is_no_empty_table(typed: Typed) -> None:
    refused(
        typed("coverage", MONGOSPLIT_DATABASE="elsewhere"),
        2,
        "elsewhere.users is missing or empty: there is nothing to look at",
        "check MONGOSPLIT_DATABASE (--database)",
    )


def test_a_source_that_is_a_view_is_refused(typed: Typed) -> None:
    data = typed.shop.data
    data["users"].rename("people")
    data.create_collection("users", viewOn="people", pipeline=[])
    refused(
        typed("plan", "--yes"),
        2,
        f"{data.name}.users is a view, not a collection",
        "check MONGOSPLIT_DATABASE (--database)",
    )


@pytest.mark.parametrize("verb", ["plan", "start"])
@pytest.mark.parametrize(
    ("collection", "foreign", "what"),
    [
        ("base_users", {"note": "of another application"}, "documents"),
        ("vendors", {"userId": None}, "documents"),
        ("newsletter_subscribers", {"userId": ObjectId()}, "documents that have a userId"),
    ],
)
def test_a_target_that_holds_foreign_documents_is_refused(
    typed: Typed, verb: str, collection: str, foreign: dict[str, Any], what: str
) -> None:
    typed.shop.data[collection].insert_one(foreign)
    with nothing_changes(typed.shop):
        refused(
            typed(verb, "users", "--yes"),
            3,
            f"target {collection} already holds {what} that no run of this ledger wrote",
            "move them away first, or name the right database (--database): nothing was written",
        )


def test_subscribers_of_the_application_without_a_user_are_no_obstacle(typed: Typed) -> None:
    subscriber = {"email": "leser@example.org", "userId": None}
    typed.shop.data["newsletter_subscribers"].insert_many([subscriber, {"email": "x@example.org"}])
    planned(typed)


def test_a_target_filled_between_plan_and_start_keeps_the_run_planned(typed: Typed) -> None:
    shop = planned(typed)
    shop.data["vendors"].insert_one({})
    with nothing_changes(shop):
        said = typed("start", "--yes")
    assert said.code == 3
    assert "target vendors already holds documents" in said.err
    assert set(shop.data.list_collection_names()) == {"users", "vendors"}


def test_a_target_with_rules_of_its_own_is_refused(typed: Typed) -> None:
    typed.shop.data.create_collection("vendors", validator={"slogan": "Seit 1894"})
    with nothing_changes(typed.shop):
        refused(
            typed("plan", "--yes"),
            3,
            "target vendors has another validator already",
            "mend or move the collection, or name the right database (--database)",
        )


def test_a_second_plan_of_a_source_with_an_unfinished_run_is_refused(typed: Typed) -> None:
    shop = planned(typed)
    source = shop.data["users"].full_name
    for how in ("--yes", "--dry-run"):
        with nothing_changes(shop):
            refused(
                typed("plan", "users", how),
                3,
                f"{source} has an unfinished run already: users-1 is planned",
                "mongosplit status users-1",
            )


@pytest.mark.parametrize(
    ("line", "code", "sentence", "hint"),
    [
        ("verify", 3, "users-1 is planned: nothing is migrated yet", "mongosplit start users"),
        (
            "retry --yes",
            3,
            "users-1 is planned: nothing can be tried again now",
            "mongosplit status users-1",
        ),
        ("status users-2", 2, 'there is no run of "users-2" in this ledger', "there are: users-1"),
    ],
)
def test_a_verb_that_comes_too_early_says_what_comes_first(
    typed: Typed, line: str, code: int, sentence: str, hint: str
) -> None:
    with nothing_changes(planned(typed)):
        refused(typed(*line.split()), code, sentence, hint)


def test_without_a_terminal_and_without_yes_nothing_is_done(typed: Typed) -> None:
    source, nobody = typed.shop.data["users"].full_name, " - nobody is there to answer"
    for verb in ("plan", "start"):
        with nothing_changes(typed.shop):
            question = f"plan {source} in chunks of 1,000?"
            refused(typed(verb), 2, question + nobody, "give --yes")
    with nothing_changes(planned(typed)):
        question = f"start users-1: split {source} into {', '.join(TARGETS)}?"
        refused(typed("start"), 2, question + nobody, "give --yes")


def test_ids_of_a_type_without_ranges_are_warned_of_and_quarantined(typed: Typed) -> None:
    shop = typed.shop
    kontakt = {"email": "ohne@example.org"}
    shop.data["users"].insert_many([{"_id": {"nr": 4}, "kontakt": kontakt}, {"_id": None}])
    warning = "some _id are of type null, object: those documents will go to quarantine"
    assert f"warning  ids      {warning}" in typed("check").out
    assert f"warning: {warning}\n" in typed("plan", "--yes").err

    done = shop.mongosplit("start", "--yes", "--local-workers", "1")
    assert done.returncode == 0, done.stderr
    rows = list(shop.ledger["quarantine"].find({}, {"_id": 0, "source_id": 1, "path": 1}))
    assert sorted(rows, key=str) == [
        {"source_id": None, "path": "_id"},
        {"source_id": {"nr": 4}, "path": "_id"},
    ]
    assert shop.data["base_users"].count_documents({}) == USERS
