"""The verbs on documents in quarantine and on kept ones, as an operator types them."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import DatetimeMS, json_util
from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.document_text import CANONICAL
from mongosplit.errors import Failed
from mongosplit.ledger import kept
from mongosplit.ledger.claims import Attempt
from mongosplit.ledger.kept import Kept
from mongosplit.migrate import migrate_chunk
from mongosplit.model import Chunk, ChunkState
from mongosplit.open_run import open_run
from producer import json_lines
from tests.e2e.conftest import Shop
from tests.e2e.typed import Said, Typed, nothing_changes, refused
from tests.integration.conftest import oid, user

EMAIL, SECRET = "kontakt.email", "geheim"
MISSING, NUMBER, GOOD = str(oid(10)), str(oid(11)), str(oid(1))
FAR = DatetimeMS(2**60)
FAR_TEXT = '{"$date": {"$numberLong": "1152921504606846976"}}'
BECAUSE = ("--because", "agreed with the shop")
LIST = "mongosplit quarantine list users-1"


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """A run with its chunks migrated: four documents good, five in quarantine."""
    secret = {"username": f"{SECRET}10", "kontakt.name": SECRET, "lastLogin": f"{SECRET} gestern"}
    reader = {"username": f"{SECRET}11", "isVendor": False}
    broken = bson.encode(user(13, {EMAIL: None, "note": "k@x.de"})).replace(
        b"k@x.de", b"k\xff\xfe.de"
    )
    shop.data["users"].insert_many([user(n) for n in range(1, 5)])
    shop.data["users"].insert_many(
        [
            user(10, {EMAIL: None, **secret}),
            user(11, {EMAIL: 3, **reader}),
            user(12, {"_id": {"nr": 4}}),
            RawBSONDocument(broken),
            user(14, {"_id": FAR, EMAIL: 3, "far": FAR}),
        ]
    )
    typed = Typed(shop, monkeypatch, capsys)
    done = typed("start", "--detach", "--yes", "--chunk-size", "5")
    assert done.code == 0, done.err
    at = open_run(shop.data.client, shop.ledger, "users-1", holder="a test")
    for row in shop.ledger["chunks"].find({}, {"n": 1}):
        migrate_chunk(at, row["n"], Attempt("w1@here"))
    return typed


def value(said: Said) -> Any:
    assert said.code == 0, said.err
    return json.loads(said.out)


def lines(said: Said) -> list[Any]:
    assert said.code == 0, said.err
    return [json_util.loads(line, json_options=CANONICAL) for line in said.out.splitlines()]


def test_list_gives_reasons_with_counts_then_documents_and_never_a_value(typed: Typed) -> None:
    found = value(typed("quarantine", "list", "-o", "json"))
    assert found["run"] == "users-1"
    assert found["reasons"] == [
        {"reason": "missing", "path": EMAIL, "count": 2},
        {"reason": "wrong-type", "path": EMAIL, "count": 2},
        {"reason": "id-type", "path": "_id", "count": 1},
    ]
    assert len(found["documents"]) == 5
    assert all(row["released"] is None for row in found["documents"])
    said = typed("quarantine", "list", "users-1")
    assert SECRET not in said.out
    assert said.out.index("documents") < said.out.index(MISSING)
    for text in (MISSING, NUMBER, FAR_TEXT, '{"nr": {"$numberInt": "4"}}', "is of type int"):
        assert text in said.out
    assert "released" not in said.out
    assert "5 of 5 documents in quarantine of users-1\n" in said.out


def test_list_of_one_reason_holds_no_other(typed: Typed) -> None:
    found = value(typed("quarantine", "list", "--reason", "missing", "--limit", "1", "-o", "json"))
    assert [row["reason"] for row in found["reasons"]] == ["missing"]
    assert [row["reason"] for row in found["documents"]] == ["missing"]
    said = typed("quarantine", "list", "--reason", "missing", "--limit", "1")
    assert "1 of 2 documents in quarantine of users-1 for reason missing\n" in said.out
    with nothing_changes(typed.shop):
        refused(
            typed("quarantine", "list", "--reason", "x"),
            3,
            "nothing of users-1 is in quarantine for that reason",
            "there are: id-type, missing, wrong-type",
        )


def test_show_names_every_problem_of_every_target_and_no_value(typed: Typed) -> None:
    with nothing_changes(typed.shop):
        said = typed("quarantine", "show", MISSING)
    assert said.code == 0, said.err
    assert SECRET not in said.out
    for sentence in (
        "kontakt.email is null; base_users.email must be string",
        "lastLogin is of type string; base_users.lastLogin must be date",
        "kontakt.email is null; newsletter_subscribers.email must be string",
    ):
        assert sentence in said.out
    found = value(typed("quarantine", "show", "users-1", NUMBER, "-o", "json"))
    assert (found["source_id"], found["source"]) == ({"$oid": NUMBER}, "there")
    states = {part["target"]: part["state"] for part in found["parts"]}
    assert states == {
        "base_users": "problems",
        "vendors": "nothing",
        "newsletter_subscribers": "problems",
    }
    assert SECRET not in json.dumps(found)


def test_show_gives_values_only_when_they_are_asked_for(typed: Typed) -> None:
    said = typed("quarantine", "show", MISSING, "--values")
    assert said.out.count(f'"{SECRET}10"') == 2, "in the document and in the part"
    found = value(typed("quarantine", "show", MISSING, "--values", "-o", "json"))
    assert found["document"]["kontakt"]["name"] == SECRET
    parts = {part["target"]: part["document"] for part in found["parts"]}
    assert parts["base_users"]["username"] == f"{SECRET}10"
    for odd in (str(oid(13)), FAR_TEXT):
        assert typed("quarantine", "show", odd, "--values").code == 0
    assert r"k\udcff\udcfe.de" in typed("quarantine", "show", str(oid(13)), "--values").out


def test_show_takes_ids_of_types_without_ranges_and_says_what_was_deleted(typed: Typed) -> None:
    said = typed("quarantine", "show", '{"nr": 4}')
    assert said.out.count("_id is of type object, which has no ranges") == 4
    typed.shop.data["users"].delete_one({"_id": {"nr": 4}})
    said = typed("quarantine", "show", "users", '{"nr": 4}')
    assert "it was deleted since" in said.out
    assert value(typed("quarantine", "show", '{"nr": 4}', "-o", "json"))["source"] == "deleted"


@pytest.mark.parametrize(
    ("line", "code", "sentence", "hint"),
    [
        (f"show {GOOD}", 3, f"{GOOD} is not in quarantine of users-1", LIST),
        ("show users-1 x", 2, "the text is no _id of type date or object or objectId", ""),
        ("show", 2, "show takes one _id, and the run before it", "give [RUN] ID"),
        ("show users-2 x", 2, 'there is no run of "users-2" in this ledger', "there are: users-1"),
        (f"release {MISSING} --yes", 2, "a release says why", 'give --because "…"'),
        (
            f"release {MISSING} {GOOD} --yes --because x",
            3,
            f"{GOOD} is not in quarantine of users-1",
            LIST,
        ),
        (
            f"release {MISSING} --because x",
            2,
            "release 1 document in quarantine of users-1, so that they stay unsplit?"
            " - nobody is there to answer",
            "give --yes",
        ),
        (
            "retry --yes",
            2,
            "nothing says which documents are meant",
            "give ids, or --reason R: mongosplit quarantine list",
        ),
        (
            f"retry users-1 {MISSING} --all --yes",
            2,
            "ids and --all cannot be given together",
            "give one of them",
        ),
        (f"retry {GOOD} --yes", 3, f"{GOOD} is not in quarantine of users-1", LIST),
        (
            "export users nowhere/x.jsonl",
            2,
            "nowhere/x.jsonl: no such file or directory",
            "give FILE, or nothing for stdout",
        ),
        ("export user", 2, 'there is no run of "user" in this ledger', "there are: users-1"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence_and_nothing_changes(
    typed: Typed, line: str, code: int, sentence: str, hint: str
) -> None:
    with nothing_changes(typed.shop):
        said = typed("quarantine", *line.split())
    first, second = said.err.splitlines()
    assert (said.code, first, said.out) == (code, f"mongosplit: {sentence}", "")
    assert second == f"  {hint}" or not hint


def test_release_is_told_to_the_audit_counted_listed_and_taken_back(typed: Typed) -> None:
    line = ("quarantine", "release", "users-1", MISSING, '{"nr": 4}', "--yes")
    assert value(typed(*line, *BECAUSE, "--actor", "anna", "-o", "json"))["changed"] == 2
    again = value(typed(*line, "--because", "other", "-o", "json"))
    assert again == {"run": "users-1", "documents": 2, "changed": 0, "released": 2}

    rows = value(typed("quarantine", "list", "-o", "json"))["documents"]
    told = [row["released"] for row in rows if row["released"]]
    assert {(row["actor"], row["because"]) for row in told} == {("anna", BECAUSE[1])}
    assert "yes" in typed("quarantine", "list").out
    assert "released     by anna" in typed("quarantine", "show", MISSING).out
    assert value(typed("status", "-o", "json"))["released"] == 2

    entries = value(typed("history", "-o", "json"))["entries"]
    facts = [row["facts"] for row in entries if row["facts"].get("verb") == "quarantine release"]
    assert facts[0] == {
        "verb": "quarantine release",
        "documents": 2,
        "ids": ['{"nr": {"$numberInt": "4"}}', MISSING],
        "because": BECAUSE[1],
    }
    undone = typed("quarantine", "release", "--undo", MISSING, "--yes")
    assert undone.out.startswith("users-1: 1 document no longer released; 1 in all\n")
    assert value(typed("status", "-o", "json"))["released"] == 1


def test_release_by_reason_takes_all_of_it(typed: Typed) -> None:
    typed("quarantine", "release", "users-1", "--reason", "missing", *BECAUSE, "--yes")
    rows = value(typed("quarantine", "list", "-o", "json"))["documents"]
    assert {row["reason"] for row in rows if row["released"]} == {"missing"}
    assert sum(1 for row in rows if row["released"]) == 2


def test_export_gives_a_line_for_each_document_with_its_exact_id_and_no_value(
    typed: Typed,
) -> None:
    typed("quarantine", "release", MISSING, *BECAUSE, "--yes")
    said = typed("quarantine", "export")
    found = lines(said)
    assert len(found) == 5
    assert {json_util.dumps(row["source_id"], json_options=CANONICAL) for row in found} == {
        *(f'{{"$oid": "{oid(n)}"}}' for n in (10, 11, 13)),
        *('{"nr": {"$numberInt": "4"}}', FAR_TEXT),
    }
    keys = ["source_id", "run", "chunk", "reason", "path", "message", "target", "attempts", "at"]
    assert all(list(row) == [*keys, "released"] for row in found)
    assert [row["released"]["because"] for row in found if row["released"]] == [BECAUSE[1]]
    assert SECRET not in said.out
    assert [
        row["reason"] for row in lines(typed("quarantine", "export", "--reason", "id-type"))
    ] == ["id-type"]


def test_export_with_values_writes_whole_documents_into_a_file_it_never_overwrites(
    typed: Typed,
) -> None:
    typed.shop.data["users"].delete_one({"_id": oid(11)})
    file = typed.shop.folder / "bad.jsonl"
    said = typed("quarantine", "export", "bad.jsonl", "--values")
    assert (said.code, said.out) == (0, "")
    assert said.err == "users-1: 5 documents written to bad.jsonl\n"
    assert file.stat().st_mode & 0o777 == 0o600
    rows = lines(Said(0, file.read_text(), ""))
    documents = {str(row["source_id"]): row.get("document") for row in rows}
    assert documents[NUMBER] is None
    assert documents[MISSING]["kontakt"]["name"] == SECRET
    assert documents[str(oid(13))]["note"] == "k\udcff\udcfe.de"
    far = next(row["document"] for row in rows if row.get("document", {}).get("far"))
    assert (far["_id"], far["far"]) == (FAR, FAR)

    before = file.read_bytes()
    refused(
        typed("quarantine", "export", "users", "bad.jsonl"),
        3,
        "bad.jsonl exists already: it is not overwritten",
        "give the name of a file that is not there yet",
    )
    assert file.read_bytes() == before


def test_retry_splits_what_was_mended_and_says_what_is_left(typed: Typed) -> None:
    shop = typed.shop
    typed("quarantine", "release", "--reason", "wrong-type", *BECAUSE, "--yes")
    shop.data["users"].update_one(
        {"_id": oid(10)}, {"$set": {EMAIL: "k10@example.org", "lastLogin": None}}
    )
    tried = shop.ledger["quarantine"].find_one({"source_id": FAR})
    line = ("quarantine", "retry", "users-1", MISSING, "--yes", "--local-workers", "1")
    done = shop.mongosplit(*line)
    assert done.returncode == 0, done.stderr
    assert "tried again: 1 document in quarantine; 0 of 1 left\n" in done.stderr
    assert shop.data["base_users"].count_documents({"_id": oid(10)}) == 1
    assert shop.ledger["quarantine"].find_one({"source_id": FAR}) == tried, "of another chunk"
    rows = value(typed("quarantine", "list", "-o", "json"))["documents"]
    assert {row["reason"] for row in rows} == {"missing", "wrong-type", "id-type"}
    assert {row["reason"] for row in rows if row["released"]} == {"wrong-type"}
    assert value(typed("status", "-o", "json"))["state"] == "verified"
    refused(
        typed("quarantine", "retry", MISSING, "--yes"),
        3,
        f"{MISSING} is not in quarantine of users-1",
        LIST,
    )


def test_kept_documents_are_listed_without_values_and_exported_with_them(typed: Typed) -> None:
    shop = typed.shop
    assert typed("kept", "list").out == "users-1: no document is kept\n"
    document = bson.encode({"_id": oid(1), "slogan": f"{SECRET}!", "far": FAR})
    chunk = Chunk("users-1", 1, (), ChunkState.MIGRATED, fence=3, planned=1)
    found = [Kept("vendors", raw.encode(oid(1)), document)]
    with shop.data.client.start_session() as session:
        kept.save(shop.ledger, session, chunk, found)

    said = typed("kept", "list", "users")
    assert GOOD in said.out
    assert "vendors" in said.out
    assert "changed" in said.out
    assert SECRET not in said.out
    listed = value(typed("kept", "list", "-o", "json"))
    assert listed["reasons"] == [{"reason": "changed", "count": 1}]
    assert [row["document_id"] for row in listed["documents"]] == [{"$oid": GOOD}]
    [row] = lines(typed("kept", "export"))
    assert bson.encode(row["document"]) == document
    assert (row["collection"], row["reason"], row["chunk"]) == ("vendors", "changed", 1)
    assert typed("kept", "export", "users-1", "kept.jsonl").code == 0
    assert SECRET in (shop.folder / "kept.jsonl").read_text()


def test_an_export_that_fails_leaves_no_file_that_looks_whole(tmp_path: Path) -> None:
    file = tmp_path / "half.jsonl"

    def found() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Failed, match=r"half.jsonl: no space left on device"):
        json_lines.write(str(file), found())
    assert not file.exists()
