"""Bad input: one sentence that names what and where, what to type next, and nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pymongo import MongoClient

from ops.embedded import EmbeddedServers
from ops.seed import seed
from tests.e2e.conftest import Shop
from tests.e2e.typed import Typed, nothing_changes, refused

Case = tuple[tuple[str, ...], dict[str, str], int, str, str]

NOWHERE = "127.0.0.1:9"
SECRET = "geheim-4711"
PLAN = ("plan", "users", "--yes")
MONGO_URL = (
    "MONGOSPLIT_MONGO_URL (--mongo-url) is not a MongoDB URL like mongodb://host:27017 "
    "(user name and password percent-encoded, options that the driver knows)"
)
REDIS_URL = (
    "MONGOSPLIT_REDIS_URL (--redis-url) is not a Redis URL like redis://host:6379/0 "
    "(user name and password percent-encoded)"
)
GIVE_MONGO_URL = "give --mongo-url: MongoDB replica set, mongodb://…"
GIVE_REDIS_URL = "give --redis-url: Redis that carries the tasks, redis://…"


def setting(name: str, value: str, sentence: str, hint: str) -> Case:
    return PLAN, {f"MONGOSPLIT_{name}": value}, 2, sentence, hint


WORDS: dict[str, Case] = {
    "an unknown migration": (
        *(("plan", "nosuch", "--yes"), {}, 2),
        'unknown migration "nosuch"; shipped: users',
        "name your own as package.module:attribute",
    ),
    "a migration in an unknown module": (
        *(("plan", "nosuch.split:migration", "--yes"), {}, 2),
        'migration "nosuch.split:migration": there is no module nosuch',
        "run from the folder that holds it, or install it",
    ),
    "a migration that is not in its module": (
        *(("start", "mongosplit.users:nosuch", "--yes"), {}, 2),
        'migration "mongosplit.users:nosuch": mongosplit.users has no Migration called "nosuch"',
        "name it as package.module:attribute",
    ),
    **{
        f"{verb} without a run": (
            *((*verb.split(), name), {}, 2),
            f'there is no run of "{name}" in this ledger',
            "make one: mongosplit plan users",
        )
        for verb, name in {
            "status": "users-9",
            "verify": "users",
            "retry": "users",
            "quarantine list": "users",
        }.items()
    },
    **{
        f"a chunk size of {size}": (
            *((*PLAN, "--chunk-size", size), {}, 2),
            f"MONGOSPLIT_CHUNK_SIZE (--chunk-size) is '{size}' "
            "and must be a whole number, at least 1 and at most 100,000",
            "give --chunk-size 1000: source documents in a chunk",
        )
        for size in ("0", "-1", "1000000000", "many", "1.5")
    },
    "a share above one": setting(
        *("VERIFY_SHARE", "2"),
        "MONGOSPLIT_VERIFY_SHARE (--verify-share) is '2' "
        "and must be a number, at least 0 and at most 1",
        "give --verify-share 0.1: share of chunks also verified through the Python reference",
    ),
    "no database": setting(
        *("DATABASE", ""),
        "MONGOSPLIT_DATABASE is not set: the database that holds the source collection",
        "give --database or export MONGOSPLIT_DATABASE",
    ),
    "a database no server allows": setting(
        *("DATABASE", "my shop"),
        "MONGOSPLIT_DATABASE (--database) is not a name that MongoDB allows for a database",
        "give --database: database of the source and the targets",
    ),
    "only Redis": setting(
        *("MONGO_URL", ""),
        "MONGOSPLIT_MONGO_URL is not set: the replica set that holds the data",
        "give --mongo-url or export MONGOSPLIT_MONGO_URL",
    ),
    "only MongoDB": setting(
        *("REDIS_URL", ""),
        "MONGOSPLIT_REDIS_URL is not set: the Redis that carries the tasks",
        "give --redis-url or export MONGOSPLIT_REDIS_URL",
    ),
    **{
        f"MongoDB at {url}": setting("MONGO_URL", url, MONGO_URL, GIVE_MONGO_URL)
        for url in ("http://host", "mongodb://host:port", "mongodb://u:p/w@host", "mongodb://")
    },
    **{
        f"Redis at {url}": setting("REDIS_URL", url, REDIS_URL, GIVE_REDIS_URL)
        for url in ("http://host", "redis://host:port", "redis:///0", "redis://host/users")
    },
    "MongoDB away": (
        PLAN,
        {"MONGOSPLIT_MONGO_URL": f"mongodb://{NOWHERE}", "MONGOSPLIT_SERVER_SECONDS": "1"},
        1,
        f"MongoDB at {NOWHERE} does not answer as a replica set with a primary",
        "check that it runs, and MONGOSPLIT_MONGO_URL (--mongo-url)",
    ),
    "Redis away": (
        ("start", "users", "--yes"),
        {"MONGOSPLIT_REDIS_URL": f"redis://{NOWHERE}/0"},
        3,
        f"Redis does not answer at {NOWHERE}",
        "check that it runs, and MONGOSPLIT_REDIS_URL (--redis-url)",
    ),
}


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    seed(shop.data["users"], 5)
    return Typed(shop, monkeypatch, capsys)


@pytest.mark.parametrize("case", WORDS.values(), ids=WORDS)
def test_a_wrong_word_is_answered_by_a_sentence_and_what_to_type(typed: Typed, case: Case) -> None:
    arguments, changes, code, sentence, hint = case
    with nothing_changes(typed.shop):
        refused(typed(*arguments, **changes), code, sentence, hint)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["splti"], "No such command 'splti'."),
        (["plan", "--chunks", "5"], "No such option '--chunks'."),
        (["plan", "users", "vendors"], "Got unexpected extra argument (vendors)"),
        (["quarantine", "drop"], "No such command 'drop'."),
        (["status", "-o", "xml"], "Invalid value for '-o' / '--output': 'xml' is not one of"),
        (["start", "--local-workers", "-1"], "Invalid value for '--local-workers': -1 is not in"),
    ],
)
def test_a_word_the_command_line_does_not_have_is_named_with_the_way_to_help(
    typed: Typed, arguments: list[str], sentence: str
) -> None:
    said = typed(*arguments)
    assert said.code == 2
    assert f"Error: {sentence}" in said.err
    assert "--help' for help" in said.err
    assert said.out == ""


def test_wrong_credentials_are_said_without_repeating_them(typed: Typed, mongo_url: str) -> None:
    host = mongo_url.removeprefix("mongodb://").partition("/")[0]
    url = mongo_url.replace("mongodb://", f"mongodb://erika:{SECRET}@")
    with nothing_changes(typed.shop):
        said = typed(*PLAN, MONGOSPLIT_MONGO_URL=url)
    refused(
        said,
        2,
        f"MongoDB at {host} refuses the user name or the password",
        "check the credentials in MONGOSPLIT_MONGO_URL (--mongo-url) and its authSource",
    )
    assert SECRET not in said.err


@pytest.fixture
def locked(broker: redis.Redis) -> Iterator[None]:
    """The session's Redis asks for a password."""
    broker.ping()
    broker.config_set("requirepass", "another")
    yield
    broker.config_set("requirepass", "")


@pytest.mark.usefixtures("locked")
def test_a_redis_that_refuses_the_password_keeps_a_run_from_being_planned_and_started(
    typed: Typed, redis_url: str
) -> None:
    host = redis_url.removeprefix("redis://").partition("/")[0]
    url = redis_url.replace("redis://", f"redis://:{SECRET}@")
    with nothing_changes(typed.shop):
        said = typed("start", "users", "--yes", MONGOSPLIT_REDIS_URL=url)
    refused(
        said,
        3,
        f"Redis at {host} refuses name or password",
        "check that it runs, and MONGOSPLIT_REDIS_URL (--redis-url)",
    )


@pytest.fixture(scope="module")
def alone() -> Iterator[EmbeddedServers]:
    with EmbeddedServers(standalone=True, redis=False) as standalone:
        yield standalone


@pytest.mark.parametrize("verb", ["plan", "start"])
def test_a_standalone_server_is_refused_and_stays_as_it_was(
    typed: Typed, alone: EmbeddedServers, verb: str
) -> None:
    host = alone.mongo_url.removeprefix("mongodb://").partition("/")[0]
    with MongoClient[dict[str, Any]](alone.mongo_url) as client:
        seed(client[typed.shop.data.name]["users"], 5)
        before = client[typed.shop.data.name].command("dbHash")["collections"]
        said = typed(verb, "users", "--yes", MONGOSPLIT_MONGO_URL=alone.mongo_url)
        assert client[typed.shop.data.name].command("dbHash")["collections"] == before
        assert typed.shop.ledger.database.name not in client.list_database_names()
    refused(
        said,
        3,
        f"MongoDB at {host} is a standalone server; transactions need a replica set",
        "start mongod with --replSet rs0, then rs.initiate() once; one node is enough",
    )


def test_the_command_as_a_process_says_the_same_and_shows_no_traceback(shop: Shop) -> None:
    done = shop.mongosplit("plan", "nosuch", "--yes")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        'mongosplit: unknown migration "nosuch"; shipped: users',
        "  name your own as package.module:attribute",
    ]
