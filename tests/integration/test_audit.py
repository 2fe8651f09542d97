"""The audit: told exactly when it is done, one chain whoever builds it and dies, tampering seen."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId
from pymongo.errors import BulkWriteError, DuplicateKeyError

from mongosplit import mongo
from mongosplit.errors import UsageError
from mongosplit.ledger import audit
from mongosplit.ledger.audit import NOTHING_BEFORE, Broken, Checked
from mongosplit.ledger.book import Ledger
from mongosplit.model import Run
from mongosplit.mongo import transact
from producer.connection import given
from producer.verbs_history import history
from tests.conditions import until
from tests.integration.conftest import Client, Document, at_once, failing
from worker.app import app

TOLD = 12
# One of several processes: changes the ledger, tells of it in the same transaction, and chains.
TELLER = """
import sys
from mongosplit import mongo
from mongosplit.ledger import audit
from mongosplit.ledger.book import Ledger

url, name, who, application = sys.argv[1:]
client = mongo.connect(url, application=application)
ledger = Ledger.at(client, name)

def change(session):
    ledger["kept"].insert_one({"_id": f"{who}-{n}"}, session=session)
    audit.say(ledger, "changed", actor=who, session=session, facts={"change": f"{who}-{n}"})

print("ready", flush=True)
with client, client.start_session() as session:
    for n in range(int(sys.stdin.readline())):
        mongo.transact(session, change)
        audit.chain(ledger, limit=5)
"""


@contextmanager
def teller(
    mongo_url: str, ledger: Ledger, who: str, *, changes: int, application: str = "teller"
) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to make so many changes; killed at the end."""
    command = [sys.executable, "-c", TELLER, mongo_url, ledger.database.name, who, application]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.stdin.write(f"{changes}\n")
            process.stdin.close()
            yield process
        finally:
            process.kill()


def tell(ledger: Ledger, count: int = TOLD, **about: Any) -> None:
    for n in range(1, count + 1):
        audit.say(ledger, "planned", actor="anna@here", facts={"n": n}, **about)


@pytest.fixture
def chained(ledger: Ledger) -> Ledger:
    """A ledger with a chain of `TOLD` entries."""
    tell(ledger)
    assert audit.chain(ledger) == TOLD
    return ledger


def chain_all(ledger: Ledger) -> None:
    until(lambda: audit.chain(ledger) >= 0 and not audit.waiting(ledger))


def whole(ledger: Ledger) -> Checked:
    found = audit.check(ledger)
    assert found.broken is None
    return found


def broken(ledger: Ledger, anchor: str | None = None) -> Broken:
    found = audit.check(ledger, anchor)
    assert found.broken is not None
    assert found.count == found.broken.number - 1
    return found.broken


def changes_told(ledger: Ledger) -> list[str]:
    return sorted(row["facts"]["change"] for row in audit.entries(ledger))


def changes_made(ledger: Ledger) -> list[str]:
    return sorted(row["_id"] for row in ledger["kept"].find())


def test_an_entry_says_who_did_what_where_and_when(ledger: Ledger) -> None:
    id_ = ObjectId()
    facts = {"documents": 3, "seconds": 1.5, "source_id": id_, "asked": datetime(2024, 5, 6, 7)}
    audit.say(ledger, "migrated", actor="w1@here", run="users-1", chunk=7, facts=facts)
    audit.say(ledger, "served", actor="anna@here")
    assert audit.chain(ledger) == 2
    first, second = audit.entries(ledger)
    at, hash_ = first["at"], first["hash"]
    assert isinstance(at, datetime)
    assert first == {
        "number": 1,
        "entry": first["entry"],
        "at": at,
        "actor": "w1@here",
        "host": socket.gethostname(),
        "action": "migrated",
        "run": "users-1",
        "chunk": 7,
        "facts": facts,
        "previous": NOTHING_BEFORE,
        "hash": hash_,
    }
    assert (second["number"], second["previous"]) == (2, hash_)
    assert (second["run"], second["facts"]) == ("", {})
    assert "chunk" not in second
    assert whole(ledger) == Checked(2, second["hash"], None)


def test_entries_are_of_one_run_or_of_all_and_at_most_so_many(ledger: Ledger) -> None:
    tell(ledger, 3, run="users-1")
    tell(ledger, 2, run="users-2")
    chain_all(ledger)

    def numbers(**how: Any) -> list[int]:
        return [row["number"] for row in audit.entries(ledger, **how)]

    assert numbers() == [1, 2, 3, 4, 5]
    assert numbers(run="users-2") == [4, 5]
    assert numbers(run="users-1", limit=2, newest_first=True) == [3, 2]


def test_an_entry_exists_exactly_when_its_transaction_was_committed(
    client: Client, ledger: Ledger
) -> None:
    def change(session: mongo.Session) -> None:
        audit.say(ledger, "changed", actor="a test", session=session)
        ledger["kept"].insert_one({"_id": 1}, session=session)
        assert audit.chain(ledger) == 0  # what is not committed is told to nobody

    with client.start_session() as session:
        transact(session, change)
        with pytest.raises(DuplicateKeyError):
            transact(session, change)
    assert audit.chain(ledger) == 1
    assert whole(ledger).count == 1


def test_an_entry_too_large_for_the_chain_is_refused_before_it_stands_in_the_way(
    ledger: Ledger,
) -> None:
    with pytest.raises(ValueError, match="too large"):
        audit.say(ledger, "planned", actor="a test", facts={"n": "x" * audit.LARGEST_BYTES})
    assert audit.waiting(ledger) == 0


def test_many_that_chain_at_once_build_one_chain_that_tells_everything_once(ledger: Ledger) -> None:
    tell(ledger, 120)
    added = at_once(6, lambda _: sum(audit.chain(ledger, limit=7) for _ in range(10)))
    chain_all(ledger)
    rows = audit.entries(ledger)
    assert sum(added) <= len(rows) == 120
    assert {row["facts"]["n"] for row in rows} == set(range(1, 121))
    whole(ledger)


def test_who_finds_the_next_number_taken_again_and_again_leaves_the_entry_for_the_next_call(
    chained: Ledger,
) -> None:
    # To the server 13.0 is the number 13; to the chain it is none, as one that it cannot see yet.
    chained["audit"].insert_one({"_id": TOLD + 1.0, "entry": "another's"})
    tell(chained, 3)
    assert audit.chain(chained) == 0
    assert audit.waiting(chained) == 3
    chained["audit"].delete_one({"_id": TOLD + 1})
    assert audit.chain(chained) == 3
    assert whole(chained).count == TOLD + 3


def test_a_refusal_that_is_no_race_is_not_swallowed(chained: Ledger) -> None:
    rule = {"collMod": "audit", "validator": {"action": "unheard of"}}
    chained.database.command(rule)
    tell(chained, 1)
    with pytest.raises(BulkWriteError):
        audit.chain(chained)
    assert audit.waiting(chained) == 1


@pytest.mark.parametrize(
    ("command", "collection", "for_others"), [("insert", "audit", 4), ("delete", "outbox", 3)]
)
def test_a_process_killed_in_the_middle_of_chaining_stalls_nobody_and_breaks_nothing(
    command: str,
    collection: str,
    for_others: int,
    ledger: Ledger,
    client: Client,
    mongo_url: str,
) -> None:
    """The server carries out the last command of the dead when the others have gone on."""
    name = f"dying-{ledger.database.name}"
    where = {"appName": name, "namespace": f"{ledger.database.name}.{collection}"}

    def held() -> bool:
        running = {"appName": name, f"command.{command}": collection}
        return bool([*client.admin.aggregate([{"$currentOp": {}}, {"$match": running}])])

    with failing(client, command, blockConnection=True, blockTimeMS=3000, **where):
        with teller(mongo_url, ledger, "dying", changes=1, application=name) as process:
            until(held, what="it never got there")
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert changes_made(ledger) == ["dying-0"]
        assert audit.waiting(ledger) == 1
        tell(ledger, 3)
        assert audit.chain(ledger) == for_others
        assert audit.waiting(ledger) == 0
        assert whole(ledger).count == 4
        until(lambda: not held())
    assert audit.chain(ledger) == 0
    assert whole(ledger).count == 4


def test_what_was_committed_is_told_once_in_one_chain_whoever_of_several_is_killed_and_when(
    ledger: Ledger, client: Client, mongo_url: str
) -> None:
    with ExitStack() as stack:
        begin = partial(teller, mongo_url, ledger, changes=60)
        *doomed, last = [stack.enter_context(begin(f"p{n}")) for n in range(4)]
        for victim in doomed:
            wanted = ledger["kept"].count_documents({}) + random.randint(1, 30)
            until(lambda least=wanted: ledger["kept"].count_documents({}) >= least)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        assert last.wait(60) == 0
    chain_all(ledger)
    # What the killed had not committed the server would only give up after a minute.
    client.admin.command("killAllSessions", [])
    assert changes_told(ledger) == changes_made(ledger)
    assert whole(ledger).count == len(changes_made(ledger)) >= 60


def change(ledger: Ledger) -> None:
    ledger["audit"].update_one({"_id": 5}, {"$set": {"actor": "eve@here"}})


def change_type(ledger: Ledger) -> None:
    ledger["audit"].update_one({"_id": 5}, {"$set": {"facts.n": 5.0}})


def add_a_field(ledger: Ledger) -> None:
    ledger["audit"].update_one({"_id": 5}, {"$set": {"approved": True}})


def delete_middle(ledger: Ledger) -> None:
    ledger["audit"].delete_one({"_id": 5})


def delete_first(ledger: Ledger) -> None:
    ledger["audit"].delete_one({"_id": 1})


def swap(ledger: Ledger) -> None:
    rows = [ledger["audit"].find_one_and_delete({"_id": n}) or {} for n in (5, 6)]
    ledger["audit"].insert_many([{**rows[0], "_id": 6}, {**rows[1], "_id": 5}])


def change_and_hash_anew(ledger: Ledger) -> None:
    row = ledger["audit"].find_one_and_delete({"_id": 5}) or {}
    ledger["audit"].insert_one(hashed({**row, "actor": "eve@here"}))


def squeeze_in(ledger: Ledger) -> None:
    ledger["audit"].insert_one(hashed({"_id": 5.5, "entry": "forged", "previous": head(ledger, 5)}))


def append_unlinked(ledger: Ledger) -> None:
    forged = {"_id": TOLD + 1, "entry": "forged", "previous": head(ledger, 5)}
    ledger["audit"].insert_one(hashed(forged))


def append_unhashed(ledger: Ledger) -> None:
    ledger["audit"].insert_one({"_id": TOLD + 1, "entry": "forged", "previous": head(ledger, TOLD)})


def append_unnumbered(ledger: Ledger) -> None:
    forged = {"_id": "thirteen", "entry": "forged", "previous": head(ledger, TOLD)}
    ledger["audit"].insert_one(hashed(forged))


def hashed(row: Document) -> Document:
    """The row with the hash that its other fields have."""
    rest = {name: value for name, value in row.items() if name != "hash"}
    return {**rest, "hash": hashlib.sha256(bson.encode(rest)).hexdigest()}


def head(ledger: Ledger, number: int) -> str:
    row = ledger["audit"].find_one({"_id": number}) or {}
    return str(row["hash"])


@pytest.mark.parametrize(
    ("tamper", "number", "sentence"),
    [
        (change, 5, "entry 5 has been changed"),
        (change_type, 5, "entry 5 has been changed"),
        (add_a_field, 5, "entry 5 has been changed"),
        (delete_middle, 5, "entry 5 is missing"),
        (delete_first, 1, "entry 1 is missing"),
        (swap, 5, "entry 5 has been changed"),
        (change_and_hash_anew, 6, "entry 6 does not follow"),
        (squeeze_in, 6, "where entry 6 should be"),
        (append_unlinked, TOLD + 1, f"entry {TOLD + 1} does not follow"),
        (append_unhashed, TOLD + 1, f"entry {TOLD + 1} has been changed"),
        (append_unnumbered, TOLD + 1, f"where entry {TOLD + 1} should be"),
    ],
)
def test_the_first_link_that_does_not_hold_is_named(
    tamper: Callable[[Ledger], None], number: int, sentence: str, chained: Ledger
) -> None:
    noted = whole(chained).anchor
    tamper(chained)
    for anchor in (None, noted):
        found = broken(chained, anchor)
        assert found.number == number
        assert found.sentence.startswith(sentence)


def test_an_end_that_was_cut_off_is_seen_by_what_was_noted_and_only_so(chained: Ledger) -> None:
    noted = whole(chained).anchor
    assert audit.check(chained, noted).broken is None
    chained["audit"].delete_one({"_id": TOLD})
    assert whole(chained).count == TOLD - 1
    found = broken(chained, noted)
    assert found.number == TOLD
    assert found.sentence.startswith(f"entry {TOLD} is missing")
    tell(chained, 3)  # and that the chain has grown again does not hide it
    audit.chain(chained)
    assert broken(chained, noted).sentence.startswith(f"entry {TOLD} is not the one")


def test_a_chain_that_was_built_anew_is_seen_by_what_was_noted(chained: Ledger) -> None:
    noted = whole(chained).anchor
    previous = head(chained, 4)
    for n in range(5, TOLD + 1):
        row = chained["audit"].find_one_and_delete({"_id": n}) or {}
        forged = hashed({**row, "actor": "eve@here", "previous": previous})
        chained["audit"].insert_one(forged)
        previous = forged["hash"]
    assert whole(chained).count == TOLD
    assert broken(chained, noted).number == TOLD


def test_the_whole_audit_that_was_dropped_is_seen_by_what_was_noted(chained: Ledger) -> None:
    noted = whole(chained).anchor
    chained["audit"].drop()
    assert whole(chained) == Checked(0, NOTHING_BEFORE, None)
    assert broken(chained, noted).number == 1


def test_a_chain_grows_past_a_forged_entry_that_has_no_number(chained: Ledger) -> None:
    append_unnumbered(chained)
    tell(chained, 2)
    assert audit.chain(chained) == 2
    assert broken(chained).number == TOLD + 3


@pytest.mark.parametrize("anchor", ["", "17", "17:", "x:" + "a" * 64, "0:" + "0" * 64, "1:abc"])
def test_an_anchor_that_is_none_is_a_usage_error(anchor: str, chained: Ledger) -> None:
    with pytest.raises(UsageError, match="is not the number and the hash of an entry"):
        audit.check(chained, anchor)


@dataclass(frozen=True)
class Said:
    """What the verb printed and its exit code."""

    code: int
    out: str
    err: str


Type = Callable[..., Said]


@pytest.fixture
def typed(
    ledger: Ledger,
    mongo_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Type]:
    """`history` typed in a folder of its own."""
    places = ["--mongo-url", mongo_url, "--redis-url", redis_url, "--database", "shop"]
    monkeypatch.chdir(tmp_path)
    broker, results = app.conf.broker_url, app.conf.result_backend

    def type_(*arguments: str, name: str = ledger.database.name) -> Said:
        line = [*arguments, *places, "--ledger-database", name]
        code = history.main(line, standalone_mode=False, obj=given)
        return Said(int(code or 0), *capsys.readouterr())

    yield type_
    app.conf.broker_url, app.conf.result_backend = broker, results


def test_history_lists_what_was_said_just_now_oldest_first(ledger: Ledger, typed: Type) -> None:
    audit.say(ledger, "planned", actor="anna@here", run="users-1", facts={"chunks": 1017})
    facts = {"documents": 1000, "seconds": 3.25, "parts": {"vendors": 12}, "why": "[red]\x1b[2J"}
    audit.say(ledger, "migrated", actor="w1@here", run="users-1", chunk=17, facts=facts)
    said = typed()
    rows = [" ".join(line.split()) for line in said.out.splitlines() if "users-1" in line]
    here = socket.gethostname()
    assert rows[0].startswith("1 ")
    assert rows[0].endswith(f"anna@here {here} planned users-1: chunks 1,017")
    told = "documents 1,000, seconds 3.25, parts vendors=12, why [red] [2J"
    assert rows[1].endswith(f"w1@here {here} migrated users-1 chunk 17: {told}")
    assert (said.code, said.err, len(rows)) == (0, "", 2)


def test_history_lists_the_newest_of_a_run_or_of_all(
    planning: Run, ledger: Ledger, typed: Type
) -> None:
    tell(ledger, 4, run="others-1")
    tell(ledger, 3, run=planning.id)
    printed = json.loads(typed("users", "--limit", "2", "-o", "json").out)
    assert printed["run"] == planning.id
    assert [row["facts"]["n"] for row in printed["entries"]] == [2, 3]
    everything = json.loads(typed("-o", "json").out)
    assert everything["run"] is None
    assert {row["run"] for row in everything["entries"]} >= {planning.id, "others-1"}


def test_history_lists_forged_entries_too(chained: Ledger, typed: Type) -> None:
    append_unnumbered(chained)
    chained["audit"].update_one(
        {"_id": 5}, {"$set": {"facts": [1], "at": "[/]"}, "$unset": {"run": 1}}
    )
    assert "thirteen" in typed().out


def test_history_check_prints_what_to_note_and_proves_it_later(
    chained: Ledger, typed: Type
) -> None:
    noted = whole(chained).anchor
    said = typed("--check")
    assert said.out == f"{TOLD} entries, the chain is unbroken; head {noted}\n"
    assert said.err.endswith(f"mongosplit history --check --anchor {noted}\n")
    tell(chained, 1)
    assert typed("--check", "--anchor", noted).code == 0
    assert json.loads(typed("--check", "-o", "json").out)["broken"] is None


def test_history_check_ends_with_4_and_names_the_broken_link(chained: Ledger, typed: Type) -> None:
    change(chained)
    said = typed("--check")
    sentence = "entry 5 has been changed after it was written"
    first, hint = said.err.splitlines()
    assert first == f"mongosplit: the audit is broken: {sentence}"
    assert hint.startswith(f"  the last entry that holds: 4:{head(chained, 4)}")
    assert (said.code, said.out) == (4, "")
    said = typed("--check", "-o", "json")
    assert json.loads(said.out)["broken"] == {"number": 5, "sentence": sentence}
    assert (said.code, said.err) == (4, "")


def test_history_of_a_ledger_that_is_not_there_says_so_and_makes_nothing(
    client: Client, typed: Type
) -> None:
    name = f"test_ledger_{uuid.uuid4().hex[:12]}"
    for arguments in ((), ("--check",)):
        said = typed(*arguments, name=name)
        assert said == Said(0, "nothing has happened in this ledger yet\n", "")
    assert typed("--check", "--anchor", "3:" + "a" * 64, name=name).code == 4
    assert name not in client.list_database_names()


@pytest.mark.parametrize("line", [["users-1", "--check"], ["--anchor", "1:" + "a" * 64]])
def test_history_refuses_flags_that_do_not_go_together(line: list[str], typed: Type) -> None:
    with pytest.raises(UsageError):
        typed(*line)
