"""The runbook typed: every command line that the documents give to the person on duty."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mongosplit.keyspace import Range
from mongosplit.range_text import range_text
from mongosplit.selection import brackets
from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import Shop
from tests.e2e.runbook import Terminal, lines_of

DOCUMENTS = (
    "README.md",
    "docs/operating.md",
    "docs/deploying.md",
    "docs/dashboard.md",
    "docs/flower.md",
    "docs/compat.md",
)
ELSEWHERE = {"mongosplit dev", "mongosplit dev --servers-only"}
"""Lines that another test types: test_demo.py."""
USERS, CHUNK = 800, "20"


def test_every_line_of_the_documents_does_what_they_say(shop: Shop) -> None:
    seed(shop.data["users"], USERS)
    bad = [row["_id"] for row in shop.data["users"].find({}, {"_id": 1}).sort("_id", -1).limit(3)]
    shop.data["users"].update_many({"_id": {"$in": bad}}, {"$set": {"isAdmin": "yes"}})
    shop.environment["MONGOSPLIT_CHUNK_SIZE"] = CHUNK
    typed = Terminal(shop)
    with ExitStack() as workers:
        typed("mongosplit start --help")
        for queues, name in (("migrate,verify", "w1"), ("rollback", "r1"), ("sync", "s1")):
            count = 1 if name == "s1" else 2
            line = f"celery -A worker.app worker -Q {queues} -n {name}@%h -c {count}"
            workers.enter_context(typed.stays(line, "[queues]", stop=signal.SIGTERM))
        look_and_plan(shop, typed)
        apply_parts(shop, typed)
        drive_slow_and_pause(shop, typed)
        look_after_quarantine(typed, [str(one) for one in bad])
        follow_and_compare(typed)
        go_back(shop, typed)
        ask_the_audit(typed)
        begin_again(shop, typed)
    documented = {line for document in DOCUMENTS for line in lines_of(document)}
    assert documented - ELSEWHERE <= typed.typed


def state(shop: Shop, run: str = "users-1") -> str:
    row = shop.ledger["runs"].find_one({"_id": run}) or {}
    return str(row.get("state"))


def look_and_plan(shop: Shop, typed: Terminal) -> None:
    assert "refus" not in typed("mongosplit check users")
    typed("mongosplit doctor")
    assert json.loads(typed("mongosplit doctor -o json"))
    typed("mongosplit plan users --dry-run")
    assert state(shop) == "None"
    typed("mongosplit plan users")
    assert state(shop) == "planned"
    typed("mongosplit drill users")


def apply_parts(shop: Shop, typed: Terminal) -> None:
    typed("mongosplit start users --chunks 1-20,37")
    typed("mongosplit start users --range 64f0..650a", given={"64f0..650a": ids_of(shop, 22)})
    [someone] = shop.data["users"].find({}, {"_id": 1}).sort("_id", 1).skip(500).limit(1)
    (shop.folder / "ids.txt").write_text(f"{someone['_id']}\n")
    typed("mongosplit start users --ids-file ids.txt")
    assert state(shop) == "paused"
    assert "22" in typed("mongosplit status users")


def ids_of(shop: Shop, n: int) -> str:
    """The range of a chunk, as `--range` takes it."""
    [row] = shop.ledger["chunks"].find({"run": "users-1", "n": n})
    return range_text(Range.from_document(row["ranges"][0]), brackets(shop.ledger, "users-1"))


def drive_slow_and_pause(shop: Shop, typed: Terminal) -> None:
    for line in (
        "mongosplit pace users 500/s",
        "mongosplit pace +20%",
        "mongosplit pace users 5000/s",
        "mongosplit pace users 500/s --for 30m",
        'mongosplit pace users --schedule "22:00-06:00 max, else 500/s" --zone Europe/Berlin',
        'mongosplit pace users --signals "replication-lag=10:60"',
        "mongosplit pace users off",
    ):
        typed(line)
    assert "no limit" in typed("mongosplit pace users")
    with typed.stays("mongosplit serve", "serving"):
        with shop.slowed("insert", milliseconds=1500):
            typed("mongosplit resume users --detach")
            typed('mongosplit pause users --why "the sale begins"')
        assert state(shop) == "paused"
        typed("mongosplit resume users --breaker-documents 0.2")
        until(lambda: state(shop) == "verified")
    with typed.stays("mongosplit status users --watch", "verified"):
        pass
    with typed.stays("mongosplit dashboard", "http"):
        pass
    typed("mongosplit compat create users")
    assert "username" in typed("mongosplit compat explain users")
    typed("mongosplit compat explain users username=anna")
    typed("mongosplit verify users")
    typed("mongosplit compat drop users")
    typed("mongosplit status users-1")
    typed("mongosplit history users-1")
    typed("celery -A worker.app control pool_grow 1")
    with typed.stays("mongosplit serve --metrics 127.0.0.1:9464", "serving"):
        pass


def look_after_quarantine(typed: Terminal, bad: list[str]) -> None:
    assert bad[0] in typed("mongosplit quarantine list users")
    assert "isAdmin" in typed("mongosplit quarantine show users ID", given={"ID": bad[0]})
    typed("mongosplit quarantine export users > bad.jsonl")
    typed("mongosplit quarantine retry users ID…", given={"ID…": bad[0]})
    typed("mongosplit retry users --quarantined")
    because = 'mongosplit quarantine release users ID… --because "test account"'
    typed(because, given={"ID…": bad[0]})


def follow_and_compare(typed: Terminal) -> None:
    with typed.stays("mongosplit follow users", "follow"):
        typed("mongosplit verify users")
    with typed.stays("mongosplit follow users --restart --yes", "follow"):
        typed("mongosplit verify users --repair")
    typed("mongosplit verify")


@contextmanager
def refused_inserts(shop: Shop) -> Iterator[None]:
    """The server refuses what is inserted into a target."""
    admin, where = shop.data.client.admin, f"{shop.data.name}.base_users"
    refusal = {"failCommands": ["insert"], "errorCode": 13, "namespace": where}
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=refusal)
    try:
        yield
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")


def go_back(shop: Shop, typed: Terminal) -> None:
    typed("mongosplit rollback users --chunks 3-5")
    assert shop.states()["rolled_back"] == 3
    typed("mongosplit kept list")
    with refused_inserts(shop):
        typed("mongosplit retry users --chunks 3-5", code=1)
    assert shop.states()["failed"] == 3
    typed("mongosplit retry users")
    typed("mongosplit rollback users --chunks 3-5 --yes")
    with refused_inserts(shop):
        typed("mongosplit retry users --chunks 3-5", code=1)
    typed("mongosplit retry users --yes")
    assert "failed" not in shop.states()
    typed("mongosplit rollback users")
    assert state(shop) == "rolled_back"
    # MongoDB keeps its list of views when the last one is dropped.
    assert {*shop.data.list_collection_names()} - {"system.views"} == {"users"}


def ask_the_audit(typed: Terminal) -> None:
    assert "rolled_back" in typed("mongosplit history")
    head = re.search(r"[0-9]+:[0-9a-f]{12,}", typed("mongosplit history --check"))
    assert head
    anchored = "mongosplit history --check --anchor 1234:ab12…"
    assert "unbroken" in typed(anchored, given={"1234:ab12…": head[0]})


def begin_again(shop: Shop, typed: Terminal) -> None:
    typed("mongosplit plan users --yes")
    typed("mongosplit drill users --yes")
    typed("mongosplit resume users --yes")
    assert state(shop, "users-2") == "verified"
    typed("mongosplit rollback users --yes")
    assert state(shop, "users-2") == "rolled_back"
    typed("mongosplit start users --canary 1%")
    assert state(shop, "users-3") == "paused"
    with shop.slowed("insert", milliseconds=500):
        with typed.stays("mongosplit serve", "serving"):
            typed("mongosplit resume users --detach")
            until(lambda: shop.states("users-3").get("migrated", 0) > 2)
        assert state(shop, "users-3") == "running"
    # Its driver is gone.
    typed("mongosplit start users --yes")
    assert state(shop, "users-3") == "verified"
    typed("mongosplit rollback users --yes")
    with typed.stays("mongosplit dashboard users-3", "http"):
        pass
    typed("mongosplit start users")
    assert state(shop, "users-4") == "verified"
