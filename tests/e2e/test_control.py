"""Control: a part first, pause, resume, cancel, rollback, drill, the breaker, and bad input."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId

from tests.conditions import until
from tests.e2e.conftest import EVERY_QUEUE, Shop
from tests.e2e.typed import Said, Typed, nothing_changes, refused
from tests.integration.conftest import ABSENT, oid, user, users

TARGETS = ("base_users", "vendors", "newsletter_subscribers")
LETTERS = "newsletter_subscribers"
EMAIL = "kontakt.email"
START = ("start", "users", "--yes", "--chunk-size", "10")
STATUS = "mongosplit status users-1"
NO_REDIS = "redis://127.0.0.1:9/0"
SOURCES = ("mongosplit", "worker", "producer", "ops")

Document = dict[str, Any]


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(shop, monkeypatch, capsys)


def good(said: Said) -> Said:
    assert said.code == 0, said.err
    assert "Traceback" not in said.err
    return said


def value(said: Said) -> Any:
    return json.loads(good(said).out)


def status(typed: Typed) -> Any:
    return value(typed("status", "users", "-o", "json"))


def state(shop: Shop, run: str = "users-1") -> str:
    row = shop.ledger["runs"].find_one({"_id": run}) or {}
    return str(row.get("state"))


def state_of_chunk(shop: Shop, n: int) -> str:
    row = shop.ledger["chunks"].find_one({"run": "users-1", "n": n}) or {}
    return str(row.get("state"))


def migrated(shop: Shop) -> int:
    return sum(shop.states().get(name, 0) for name in ("migrated", "verified")) - 1  # the tail


def in_targets(shop: Shop) -> set[ObjectId]:
    """The users of whom something stands in the targets: of each there are all three parts."""
    found = [{row["_id"] for row in shop.data[name].find({}, {"_id": 1})} for name in TARGETS]
    assert found[0] == found[1] == found[2]
    return found[0]


def of_chunks(*numbers: int, size: int = 10) -> set[ObjectId]:
    """The users that lie in these chunks: both are numbered from 1, in the order of their ids."""
    return {oid(n * size - back) for n in numbers for back in range(size)}


def begun(typed: Typed, *numbers: int, documents: list[Document] | None = None) -> Shop:
    """A run that is left to whoever drives it, with these of its four chunks migrated here."""
    shop = typed.shop
    shop.data["users"].insert_many(users(40) if documents is None else documents)
    good(typed(*START, "--detach"))
    shop.migrate_here(*numbers)
    return shop


def as_it_is(shop: Shop) -> Document:
    """Every byte of the data, with the options and the indexes of every collection."""
    hashes = shop.data.command("dbHash")["collections"]
    # A server never forgets that it was told its own defaults.
    defaults = {"validationLevel": "strict", "validationAction": "error"}
    options = {row["name"]: defaults | row["options"] for row in shop.data.list_collections()}
    indexes = {name: shop.data[name].index_information() for name in options}
    return {"hashes": hashes, "options": options, "indexes": indexes}


# A part first


def test_chunks_by_number_are_applied_and_named_and_the_run_rests_until_resume(
    typed: Typed,
) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(50))
    shop.worker(queues=EVERY_QUEUE)
    good(typed(*START, "--chunks", "1-2,4"))
    found = status(typed)
    assert (found["state"], found["resting"], found["selected"]) == ("paused", True, "1-2,4")
    assert [span["chunks"] for span in found["applied"]] == ["1-2", "4"]
    assert in_targets(shop) == of_chunks(1, 2, 4)
    said = typed("start", "users", "--yes")
    refused(said, 3, "users-1 is paused: a part of it is applied", "mongosplit resume users-1")
    good(typed("resume", "users", "--yes"))
    found = status(typed)
    assert (found["state"], found["resting"]) == ("verified", False)
    assert [span["chunks"] for span in found["applied"]] == ["1-5"]
    assert in_targets(shop) == of_chunks(1, 2, 3, 4, 5)
    assert value(typed("verify", "users", "-o", "json"))["mismatches"] == []


def test_a_range_copied_from_status_selects_the_same_chunks_again(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(50))
    shop.worker(queues=EVERY_QUEUE)
    good(typed(*START, "--chunks", "2-3"))
    [span] = status(typed)["applied"]
    good(typed("rollback", "users", "--yes"))
    good(typed(*START, "--range", span["ids"]))
    found = status(typed)
    assert (found["run"], found["state"], found["resting"]) == ("users-2", "paused", True)
    assert found["applied"] == [span]
    assert in_targets(shop) == of_chunks(2, 3)


def test_a_file_of_ids_and_a_canary_select_whole_chunks(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(100))
    shop.worker(queues=EVERY_QUEUE)
    (shop.folder / "ids").write_text(f"{oid(17)}\n\n{oid(60)}\n{oid(18)}\n")
    good(typed(*START, "--ids-file", "ids"))
    assert [span["chunks"] for span in status(typed)["applied"]] == ["2", "6"]
    assert in_targets(shop) == of_chunks(2, 6)
    # One more part of a run that rests is no resume: it comes to rest again.
    good(typed("start", "users", "--yes", "--canary", "20%"))
    found = status(typed)
    assert (found["state"], found["resting"]) == ("paused", True)
    assert [span["chunks"] for span in found["applied"]] == ["1-2", "6", "10"]
    assert in_targets(shop) == of_chunks(1, 2, 6, 10)


def test_a_drill_goes_there_and_back_and_there_and_says_how_fast(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(100))
    shop.worker(queues=EVERY_QUEUE)
    good(typed("plan", "users", "--yes", "--chunk-size", "10"))
    said = good(typed("drill", "users", "--yes", "--canary", "20%"))
    assert re.search(
        r"^forward +[\d,]+ documents/s.*\nrollback +[\d,]+ documents/s", said.out, re.M
    )
    found = status(typed)
    assert (found["state"], found["resting"]) == ("paused", True)
    assert [span["chunks"] for span in found["applied"]] == ["1", "10"]
    assert found["drill"]["docs"] == 20
    assert min(found["drill"]["forward_rate"], found["drill"]["rollback_rate"]) > 0
    assert found["rollback_seconds"] >= 1
    assert in_targets(shop) == of_chunks(1, 10)
    told = shop.json("history", "users-1", "--limit", "1000")["entries"]
    verbs = [row["facts"]["verb"] for row in told if row["action"] == "verb"]
    assert verbs == ["plan", "start", "drill"]
    [there, back, again] = [
        row
        for row in shop.outcomes()
        if row["chunk"] == 10
        and row["facts"]["to"] != "verified"
        and row["facts"]["from"] != row["facts"]["to"]
    ]
    assert [row["facts"]["to"] for row in (there, back, again)] == [
        "migrated",
        "rolled_back",
        "migrated",
    ]
    shop.assert_every_outcome_is_told()


# Pause, resume, cancel


def test_a_pause_lets_begun_chunks_end_and_begins_none_until_resume(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(240))
    shop.worker("w1")
    shop.worker("w2")
    with shop.slowed("insert", milliseconds=300):
        driver = shop.begin(*START)
        until(lambda: migrated(shop) >= 2)
        pause = shop.begin("pause", "users", "--yes", "--why", "lunch", log="pause")
        until(lambda: state(shop) != "running")
        assert status(typed)["state"] == "pausing"
        assert pause.wait(timeout=120) == 0, shop.log("pause")
        assert state(shop) == "paused"
        ended = len(shop.outcomes())
        with pytest.raises(AssertionError, match="nothing came"):
            until(lambda: len(shop.outcomes()) > ended, seconds=2, what="nothing came")
    asked = {
        row["facts"]["to"]: row["at"]
        for row in shop.ledger["audit"].find({"run": "users-1", "action": "run"})
    }
    assert asked["pausing"] < asked["paused"]
    for row in shop.outcomes():
        took = timedelta(milliseconds=row["facts"].get("milliseconds", 0))
        assert row["at"] - took < asked["pausing"] + timedelta(seconds=1)
        assert row["at"] <= asked["paused"]
    found = status(typed)
    assert (found["resting"], found["asked"]["why"]) == (False, "lunch")
    assert 0 < found["chunks"]["pending"] < 24
    assert driver.poll() is None
    assert shop.mongosplit("resume", "users", "--yes").returncode == 0
    assert driver.wait(timeout=120) == 0, shop.log("command")
    assert status(typed)["state"] == "verified"
    assert in_targets(shop) == of_chunks(*range(1, 25))
    shop.assert_every_outcome_is_told()
    good(typed("history", "--check"))


def test_cancel_says_what_is_applied_and_ends_the_process_of_start(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(240))
    shop.worker("w1")
    with shop.slowed("insert", milliseconds=100):
        driver = shop.begin(*START)
        until(lambda: migrated(shop) >= 2)
        said = good(typed("cancel", "users", "--yes", "--why", "wrong day"))
    count = migrated(shop)
    assert state(shop) == "cancelled"
    assert 2 <= count < 24
    spans = ",".join(span["chunks"] for span in status(typed)["applied"])
    assert f"users-1: cancelled, {count} chunks applied ({spans})" in said.out
    assert driver.wait(timeout=120) == 1
    assert "mongosplit: users-1 is cancelled: wrong day" in shop.log("command")
    assert "Traceback" not in shop.log("command")
    assert len(in_targets(shop)) == 10 * count
    good(typed("rollback", "users", "--yes"))
    assert state(shop) == "rolled_back"
    assert shop.data.list_collection_names() == ["users"]


def test_a_run_is_stopped_through_the_ledger_and_never_by_killing_tasks() -> None:
    root = Path(__file__).parents[2]
    forbidden = re.compile(r"\brevoke|terminate=|\.control\b(?!\.rate_limit)")
    found = [
        f"{path}:{number}"
        for name in SOURCES
        for path in (root / name).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if forbidden.search(line)
    ]
    assert found == []


def test_of_pause_and_cancel_at_once_both_end_with_a_sentence_in_one_state(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(240))
    shop.worker("w1")
    with shop.slowed("insert", milliseconds=150):
        driver = shop.begin(*START)
        until(lambda: migrated(shop) >= 1)
        pause = shop.begin("pause", "users", "--yes", log="pause")
        cancel = shop.begin("cancel", "users", "--yes", log="cancel")
        assert cancel.wait(timeout=120) == 0, shop.log("cancel")
        assert pause.wait(timeout=120) in (0, 3), shop.log("pause")
        assert driver.wait(timeout=120) == 1
    assert state(shop) == "cancelled"
    for name in ("pause", "cancel", "command"):
        assert "Traceback" not in shop.log(name)
    assert "users-1: cancelled" in shop.log("cancel")
    assert re.search(r"users-1( is|:) (cancelled|cancelling|paused|over)", shop.log("pause"))
    shop.assert_every_outcome_is_told()


# Rollback


def test_a_chunk_is_rolled_back_and_retried_while_the_driver_migrates_others(
    typed: Typed,
) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(300))
    shop.worker("w1")
    shop.worker("w2", queues="rollback")
    with shop.slowed("insert", milliseconds=60):
        driver = shop.begin(*START)
        until(lambda: state_of_chunk(shop, 3) in ("migrated", "verified"))
        said = good(typed("rollback", "users", "--yes", "--chunks", "2"))
        assert "which does it" in said.err
        assert state_of_chunk(shop, 2) == "rolled_back"
        assert not in_targets_of(shop, 2)
        assert shop.states()["pending"] > 0
        good(typed("retry", "users", "--yes", "--chunks", "2"))
        assert driver.poll() is None
    assert driver.wait(timeout=120) == 0, shop.log("command")
    assert status(typed)["state"] == "verified"
    assert in_targets(shop) == of_chunks(*range(1, 31))
    told = [(row["facts"]["to"], row["actor"]) for row in shop.outcomes() if row["chunk"] == 2]
    [undone] = [actor for to, actor in told if to == "rolled_back"][:1]
    assert undone.startswith("w2@")
    shop.assert_every_outcome_is_told()
    good(typed("history", "--check"))


def test_a_retry_is_done_by_the_driver_that_only_waits_for_verification(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(40))
    shop.worker("w1", queues="migrate,rollback")
    driver = shop.begin(*START)
    until(lambda: state(shop) == "migrated")
    good(typed("rollback", "users", "--yes", "--chunks", "2"))
    assert in_targets(shop) == of_chunks(1, 3, 4)
    assert (
        "asked for: run users-1 is being driven"
        in good(typed("retry", "users", "--yes", "--chunks", "2")).err
    )
    until(lambda: state_of_chunk(shop, 2) == "migrated")
    assert in_targets(shop) == of_chunks(1, 2, 3, 4)
    shop.worker("w2", queues="verify")
    assert driver.wait(timeout=120) == 0, shop.log("command")
    assert state(shop) == "verified"
    shop.assert_every_outcome_is_told()


def in_targets_of(shop: Shop, n: int) -> list[Document]:
    mine = {"_id": {"$in": [*of_chunks(n)]}}
    return [row for name in TARGETS for row in shop.data[name].find(mine)]


def subscriber(_id: Any, n: int) -> Document:
    """A document of the application with the email of user `n`."""
    shape = {"type": "kunde", "isSubscribed": False, "preferences": {}, "source": "messe"}
    return {"_id": _id, "email": f"k{n}@example.org", **shape, "note": ["x", 1.0]}


@pytest.mark.parametrize("somebody_listens", [False, True], ids=["by the verb", "by a worker"])
def test_a_run_rolled_back_leaves_every_byte_index_validator_and_option_as_before(
    typed: Typed, somebody_listens: bool
) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(40))
    shop.data[LETTERS].create_index("note", name="own", sparse=True)
    shop.data[LETTERS].insert_many([subscriber("a", 3), subscriber(oid(7), 7), subscriber(0, 99)])
    before = as_it_is(shop)
    shop.worker(queues=EVERY_QUEUE if somebody_listens else "migrate,verify")
    good(typed(*START))
    found = status(typed)
    assert (found["state"], found["documents"]["adopted"]) == ("verified", 2)
    good(typed("rollback", "users", "--yes"))
    assert state(shop) == "rolled_back"
    assert as_it_is(shop) == before
    actors = {row["actor"] for row in shop.outcomes() if row["facts"]["to"] == "rolled_back"}
    assert any(actor.startswith("w1@") for actor in actors) or not somebody_listens
    good(typed("history", "--check"))
    verbs = shop.ledger["audit"].find({"action": "verb"}).sort("_id", 1)
    told = [(row["facts"]["verb"], bool(row["actor"])) for row in verbs]
    assert told == [("plan", True), ("start", True), ("rollback", True)]


def test_a_rollback_needs_neither_a_worker_nor_redis(typed: Typed) -> None:
    shop = begun(typed, 1, 2, 4)
    done = shop.mongosplit("rollback", "users", "--yes", MONGOSPLIT_REDIS_URL=NO_REDIS)
    assert done.returncode == 0, done.stderr
    assert state(shop) == "rolled_back"
    assert shop.data.list_collection_names() == ["users"]


def test_a_rollback_ends_where_nobody_listens_who_would_compare(typed: Typed) -> None:
    shop = begun(typed, 1, 2)
    shop.worker("w1", queues="rollback")
    until(lambda: "ready" in shop.log("w1"))
    rollback = shop.begin("rollback", "users", "--yes", "--chunks", "1")
    assert rollback.wait(timeout=120) == 0, shop.log("command")
    assert in_targets(shop) == of_chunks(2)
    [undone] = [row for row in shop.outcomes() if row["facts"]["from"] != "rolled_back"][-1:]
    assert undone["actor"].startswith("w1@")


def test_what_was_changed_since_is_kept_counted_and_listed(typed: Typed) -> None:
    shop = begun(typed, 1, 2)
    shop.data["vendors"].update_one({"_id": oid(15)}, {"$set": {"slogan": "neu"}})
    changed = shop.data["vendors"].find_one({"_id": oid(15)})
    before = in_targets(shop)
    with nothing_changes(shop):
        refused(
            typed("rollback", "users", "--yes", "--on-change", "fail"),
            3,
            "chunk 2 of users-1: 1 document was changed in vendors since it was migrated",
            "--on-change keep saves them before they go",
        )
    assert in_targets(shop) == before
    found = value(typed("rollback", "users", "--yes", "--chunks", "2", "-o", "json"))
    assert found["rollback"]["kept"] == found["kept"] == 1
    [listed] = found["rollback"]["kept_documents"]
    assert (listed["collection"], listed["chunk"]) == ("vendors", 2)
    [kept] = shop.ledger["kept"].find({"run": "users-1", "reason": "changed"})
    assert kept["document"] == changed
    assert in_targets(shop) == of_chunks(1)


def test_an_adopted_subscriber_gets_its_pre_image_back_or_keeps_what_the_application_changed(
    typed: Typed,
) -> None:
    theirs = [subscriber("a", 3), {**subscriber("b", 4), "userId": None}, subscriber("c", 5)]
    typed.shop.data[LETTERS].insert_many(theirs)
    shop = begun(typed, 1)
    assert status(typed)["documents"]["adopted"] == 3
    shop.data[LETTERS].update_one({"_id": "c"}, {"$set": {"name": "neu"}})
    changed = shop.data[LETTERS].find_one({"_id": "c"}) or {}
    assert changed["userId"] == oid(5)
    found = value(typed("rollback", "users", "--yes", "--chunks", "1", "-o", "json"))
    assert found["kept"] == 1
    there = {row["_id"]: row for row in shop.data[LETTERS].find()}
    assert [bson.encode(there[name]) for name in ("a", "b")] == [*map(bson.encode, theirs[:2])]
    assert there["c"] == {**theirs[2], "name": "neu"}
    assert there.keys() == {"a", "b", "c"}
    [kept] = shop.ledger["kept"].find({"run": "users-1"})
    assert (kept["reason"], kept["document"]) == ("changed", changed)


def test_a_whole_rollback_asked_twice_at_once_ends_for_both(typed: Typed) -> None:
    shop = begun(typed, 1, 2, 3)
    both = {name: shop.begin("rollback", "users", "--yes", log=name) for name in ("one", "two")}
    codes = {name: process.wait(timeout=120) for name, process in both.items()}
    # One that comes when the other has done it already is told so.
    late = re.compile(r"^mongosplit: (run )?users-1 is rolled back", re.MULTILINE)
    for name, code in codes.items():
        assert code == (3 if late.search(shop.log(name)) else 0), shop.log(name)
    assert 0 in codes.values()
    assert state(shop) == "rolled_back"
    assert "Traceback" not in shop.log("one") + shop.log("two")
    assert shop.data.list_collection_names() == ["users"]


# The breaker


def test_a_run_in_which_everything_is_bad_stops_by_itself_before_it_has_seen_it_all(
    typed: Typed,
) -> None:
    shop = typed.shop
    bad = [user(n, {EMAIL: ABSENT}) for n in range(1, 3001)]
    shop.data["users"].insert_many(bad)
    shop.worker()
    said = typed("start", "users", "--yes", "--chunk-size", "100")
    assert said.code == 1
    found_sentence = re.search(r"mongosplit: users-1 is paused: (.*)\n", said.err)
    assert found_sentence is not None
    sentence = found_sentence[1]
    told = r"[\d,]+ of [\d,]+ documents are in quarantine: 100.0% ≥ 5.0%"
    assert re.fullmatch(told, sentence)
    found = status(typed)
    assert (found["state"], found["resting"]) == ("paused", False)
    assert found["asked"]["actor"] == "breaker"
    assert found["asked"]["why"] == sentence
    assert 1000 <= found["documents"]["quarantined"] < 2500
    shop.assert_every_outcome_is_told()


def test_two_percent_of_bad_documents_stop_nothing(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(
        [user(n, {EMAIL: ABSENT} if n % 50 == 0 else None) for n in range(1, 2001)]
    )
    shop.worker()
    good(typed("start", "users", "--yes", "--chunk-size", "100"))
    found = status(typed)
    assert (found["state"], found["documents"]["quarantined"]) == ("verified", 40)


# Bad input

CUT = f"{oid(5)}..{oid(25)}"

OF_A_RUNNING_RUN: dict[str, tuple[str, int, str, str]] = {
    "a pending chunk": (
        *("rollback users --yes --chunks 3", 3),
        "chunk 3 of users-1 is not applied (pending): there is nothing to roll back",
        STATUS,
    ),
    "pending chunks beside applied ones": (
        *("rollback users --yes --chunks 2-4", 3),
        "chunks 3-4 of users-1 are not applied (pending): there is nothing to roll back",
        "only what is applied: --chunks 2",
    ),
    **{
        f"a range that cuts, to {verb}": (
            *(f"{verb} users --yes --range {CUT}", 3),
            f"range {CUT} cuts through chunk 1 and chunk 3 of users-1",
            "whole chunks inside: --chunks 2; with the cut ones: --chunks 1-3",
        )
        for verb in ("rollback", "start", "retry")
    },
    "nothing to retry": (
        *("retry users --yes", 3),
        "no chunk of users-1 has failed",
        STATUS,
    ),
    "nothing to retry in a part": (
        *("retry users --yes --chunks 1", 3),
        "nothing in chunks 1 of users-1 failed, was rolled back or is in quarantine",
        STATUS,
    ),
    "resume": (*("resume users --yes", 3), "users-1 is running, not paused", STATUS),
    "drill": (
        *("drill users --yes", 3),
        "users-1 is running: a drill is for a run that has not begun",
        STATUS,
    ),
    **{
        f"chunk 99 to {verb}": (
            *(f"{verb} users --yes --chunks 99", 2),
            "chunk 99 does not exist: the last one of users-1 is 5",
            "write --chunks 1-5",
        )
        for verb in ("rollback", "start", "retry")
    },
    **{
        f"an unknown run to {verb}": (
            *(f"{verb} users-9 --yes", 2),
            'there is no run of "users-9" in this ledger',
            "there are: users-1",
        )
        for verb in ("pause", "resume", "cancel", "rollback", "retry")
    },
    "an unknown run to drill": (
        *("drill users-9 --yes", 2),
        'unknown migration "users-9"; shipped: users',
        "name your own as package.module:attribute",
    ),
}


def test_what_a_running_run_cannot_do_is_said_in_one_sentence_and_changes_nothing(
    typed: Typed,
) -> None:
    shop = begun(typed, 1, 2)
    with nothing_changes(shop):
        for line, code, sentence, hint in OF_A_RUNNING_RUN.values():
            refused(typed(*line.split()), code, sentence, hint)


def test_a_planned_run_has_nothing_to_stop_resume_or_roll_back(typed: Typed) -> None:
    shop = typed.shop
    shop.data["users"].insert_many(users(20))
    good(typed("plan", "users", "--yes"))
    start = "mongosplit start users-1"
    with nothing_changes(shop):
        said = typed("pause", "users", "--yes")
        refused(said, 3, "users-1 is planned, so there is nothing to stop", STATUS)
        refused(typed("resume", "users", "--yes"), 3, "users-1 is planned, not paused", start)
        refused(
            typed("rollback", "users", "--yes"),
            3,
            "users-1 is planned: nothing of it is applied",
            "to give it up: mongosplit cancel users-1",
        )


OF_ONE_ROLLED_BACK = {
    "pause": "users-1 is over: it is rolled back, so there is nothing to stop",
    "cancel": "users-1 is over: it is rolled back, so there is nothing to stop",
    "resume": "users-1 is over: it is rolled back",
    "retry": "users-1 is over: it is rolled back",
    "rollback": "users-1 is rolled back: nothing of it is applied any more",
    "drill": "users-1 is rolled back and cannot be started",
    "start": "users-1 is rolled back and cannot be started",
}


def test_a_run_that_is_rolled_back_is_over_for_every_verb(typed: Typed) -> None:
    shop = begun(typed, 1)
    good(typed("rollback", "users", "--yes"))
    with nothing_changes(shop):
        for verb, sentence in OF_ONE_ROLLED_BACK.items():
            refused(typed(verb, "users-1", "--yes"), 3, sentence, STATUS)
