"""The whole line through real processes: plan, start, workers, verify, status."""

from __future__ import annotations

from typing import Any

from ops.seed import seed, users_with_kinds
from ops.seed_hostile import KINDS
from tests.e2e.conftest import Shop

USERS = 1500
BAD = {kind.name for kind in KINDS if kind.bad}


def planted(count: int, hostile: float) -> int:
    return sum(kind in BAD for _, kind in users_with_kinds(count, hostile=hostile))


def split_by_hand(user: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """DESIGN's mapping once more, as plainly as it can be written, for a handful of fields."""
    kontakt = user["kontakt"]
    parts = {
        "base_users": {
            "email": kontakt["email"],
            "isAdmin": user.get("isAdmin") or False,
            "isActive": kontakt.get("status") == "aktiv",
        }
    }
    if user.get("isVendor") is True:
        profile = user.get("vendorProfile") or {}
        parts["vendors"] = {
            "userId": user["_id"],
            "businessEmail": kontakt["email"],
            "addresses": user.get("adressen") or [],
            "kategorien": profile.get("kategorien") or [],
            "verifyStatus": profile.get("verifyStatus") or "unverified",
        }
    if kontakt.get("mailNewsletter") is True:
        parts["newsletter_subscribers"] = {
            "userId": user["_id"],
            "email": kontakt["email"],
            "type": kontakt.get("newslettertype") or "general",
            "isSubscribed": True,
            "source": "user-account",
            "preferences": {"frequency": "monthly", "categories": []},
        }
    return parts


def test_a_run_with_hostile_users_ends_verified_with_every_document_accounted_for(
    shop: Shop,
) -> None:
    seed(shop.data["users"], USERS, hostile=0.02)
    bad = planted(USERS, 0.02)
    plan = shop.mongosplit("plan", "users", "--yes", "--chunk-size", "100")
    assert plan.returncode == 0, plan.stderr
    done = shop.mongosplit("start", "users", "--yes", "--local-workers", "2", "--wave-size", "4")
    assert done.returncode == 0, done.stderr

    status = shop.json("status", "users")
    assert status["run"] == "users-1"
    assert status["state"] == "verified"
    assert status["documents"]["source"] == USERS
    assert status["documents"]["migrated"] == USERS - bad
    assert status["documents"]["quarantined"] == bad
    assert set(status["chunks"]) >= {"pending", "migrated", "verified", "failed", "rolled_back"}
    assert {"pace", "rate", "eta_seconds"} <= set(status)
    assert shop.data["base_users"].count_documents({}) == USERS - bad
    assert shop.ledger["quarantine"].count_documents({}) == bad
    for row in shop.ledger["quarantine"].find():
        assert row["reason"]
        assert row["message"]
        assert "path" in row

    verified = shop.json("verify", "users")
    assert verified["checked"] == USERS
    assert verified["mismatches"] == []


def test_what_stands_in_the_targets_is_what_the_mapping_says(shop: Shop) -> None:
    seed(shop.data["users"], 400)
    done = shop.mongosplit("start", "users", "--yes", "--local-workers", "1")
    assert done.returncode == 0, done.stderr
    there = {
        name: {row["_id"]: row for row in shop.data[name].find()}
        for name in ("base_users", "vendors", "newsletter_subscribers")
    }
    for user in shop.data["users"].find():
        for target, wanted in split_by_hand(user).items():
            found = there[target].pop(user["_id"])
            assert {name: found.get(name) for name in wanted} == wanted
    assert not any(there.values()), "a document nobody expected"


def test_starting_a_verified_run_again_does_nothing(shop: Shop) -> None:
    seed(shop.data["users"], 300)
    first = shop.mongosplit("start", "users", "--yes", "--local-workers", "1")
    assert first.returncode == 0, first.stderr
    before = list(shop.ledger["chunks"].find())
    again = shop.mongosplit("start", "users", "--yes")
    assert again.returncode == 0, again.stderr
    assert list(shop.ledger["chunks"].find()) == before


def test_each_wave_is_closed_by_its_chord_s_callback(shop: Shop) -> None:
    seed(shop.data["users"], 600)
    done = shop.mongosplit(
        *("start", "users", "--yes", "--local-workers", "2"),
        *("--chunk-size", "50", "--wave-size", "3"),
    )
    assert done.returncode == 0, done.stderr
    closed_by = [wave["closed_by"] for wave in shop.ledger["waves"].find()]
    assert len(closed_by) == 4
    assert closed_by.count("callback") >= 3, closed_by


def test_a_damaged_byte_is_found_listed_and_ends_with_exit_code_4(shop: Shop) -> None:
    seed(shop.data["users"], 300)
    done = shop.mongosplit("start", "users", "--yes", "--local-workers", "1")
    assert done.returncode == 0, done.stderr
    victim = shop.data["base_users"].find_one({"isAdmin": False})
    assert victim is not None
    shop.data.command("collMod", "base_users", validationLevel="off")
    shop.data["base_users"].update_one({"_id": victim["_id"]}, {"$set": {"isAdmin": 0}})

    found = shop.mongosplit("verify", "users", "-o", "json")
    assert found.returncode == 4
    [mismatch] = shop.json("verify", "users")["mismatches"]
    assert mismatch["target"] == "base_users"
    assert mismatch["field"] == "isAdmin"
    assert mismatch["kind"] == "different"
    assert mismatch["id"] == {"$oid": str(victim["_id"])}
    assert shop.json("status", "users")["state"] == "migrated"

    shop.data["base_users"].update_one({"_id": victim["_id"]}, {"$set": {"isAdmin": False}})
    assert shop.mongosplit("verify", "users").returncode == 0
    assert shop.json("status", "users")["state"] == "verified"


def test_users_who_came_after_the_plan_are_planned_again_by_start(shop: Shop) -> None:
    seed(shop.data["users"], 300)
    assert shop.mongosplit("plan", "users", "--yes").returncode == 0
    seed(shop.data["users"], 200, seed=8)
    done = shop.mongosplit("start", "users", "--yes", "--local-workers", "1")
    assert done.returncode == 0, done.stderr
    assert shop.json("status", "users")["documents"]["migrated"] == 500
