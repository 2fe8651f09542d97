"""The doctor on real servers: well, and with each thing that it looks for made wrong and back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis
from celery import signals
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from mongosplit.ledger import runs
from mongosplit.ledger.book import Ledger
from mongosplit.settings import Settings
from mongosplit.users import migration
from producer import doctor, doctor_mongodb
from producer.findings import Finding, Subject
from tests.integration.conftest import PLANNER, Client, Document, failing, users
from worker import presence, tasks
from worker.app import QUEUES, app


class Worker:
    """As much of a Celery worker as its signals carry."""

    hostname = "w1@there"

    @property
    def eventer(self) -> Worker:
        return self


@pytest.fixture
def broker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setattr(app.conf, "broker_url", redis_url)
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection
        connection.flushall()


@pytest.fixture
def at(
    client: Client,
    database: Database[Document],
    ledger: Ledger,
    broker: redis.Redis,
    mongo_url: str,
) -> Subject:
    database.users.insert_many(users(3))
    settings = Settings(mongo_url=mongo_url, database=database.name, server_seconds=2)
    return Subject(client, ledger, settings, migration, "users")


def unwell(at: Subject) -> list[tuple[str, str]]:
    """Check and sentence of what is warned of or refused, but for what these servers lack."""
    found = [f for f in doctor.examine(at) if f.verdict != "ok"]
    assert all(finding.hint for finding in found)
    kept = [f for f in found if f.check != "workers" and "over a restart" not in f.sentence]
    return [(f"{f.check} {f.verdict}", f.sentence) for f in kept]


def only(at: Subject, kind: str, part: str) -> None:
    """Just one thing is not well: that."""
    [(found, sentence)] = unwell(at)
    assert found == kind
    assert part in sentence


def named(at: Subject, check: str) -> list[Finding]:
    return [finding for finding in doctor.examine(at) if finding.check == check]


@contextmanager
def parameter(client: Client, **changed: Any) -> Iterator[None]:
    before = client.admin.command("getParameter", **dict.fromkeys(changed, 1))
    client.admin.command("setParameter", **changed)
    try:
        yield
    finally:
        client.admin.command("setParameter", **{name: before[name] for name in changed})


@contextmanager
def configured(broker: redis.Redis, name: str, value: str) -> Iterator[None]:
    before = broker.config_get(name)[name]
    broker.config_set(name, value)
    try:
        yield
    finally:
        broker.config_set(name, before)


@contextmanager
def as_user(at: Subject, *roles: tuple[str, str]) -> Iterator[Subject]:
    """The subject as a user with these roles, each on a database, sees it."""
    granted = [{"role": role, "db": database} for role, database in roles]
    at.client.admin.command("createUser", "doctor", pwd="geheim", roles=granted)
    url = at.settings.mongo_url.replace("://", "://doctor:geheim@")
    try:
        with MongoClient[dict[str, Any]](url, authSource="admin") as client:
            yield replace(at, client=client, ledger=Ledger.at(client, at.ledger.database.name))
    finally:
        at.client.admin.command("dropUser", "doctor")


def test_of_well_servers_everything_is_said_once_to_be_well(at: Subject) -> None:
    assert unwell(at) == []
    checks = [finding.check for finding in doctor.examine(at)]
    assert list(dict.fromkeys(checks)) == [
        *("mongodb", "majority", "oplog", "rights", "transact"),
        *("redis", "celery", "workers", "clocks"),
    ]


def test_a_transaction_lifetime_below_what_a_chunk_may_take_is_warned_of(at: Subject) -> None:
    with parameter(at.client, transactionLifetimeLimitSeconds=20):
        only(at, "transact warning", "after 20 s; a chunk may take 55 s")


def test_an_old_open_transaction_is_warned_of_until_it_ends(
    at: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at.client.start_session() as session:
        with session.start_transaction():
            at.data["users"].insert_one({"_id": "x"}, session=session)
            assert unwell(at) == [], "it is young"
            monkeypatch.setattr(doctor_mongodb, "OLD_SECONDS", 0)
            only(at, "transact warning", "1 transaction open")
        assert unwell(at) == []


def test_a_majority_that_does_not_confirm_is_refused(
    at: Subject, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_mongodb, "MAJORITY_SECONDS", 0.5)
    unwaited = database.get_collection("notes", write_concern=WriteConcern(1))
    at.client.admin.command("configureFailPoint", "disableSnapshotting", mode="alwaysOn")
    try:
        unwaited.insert_one({})
        found = named(at, "majority")
    finally:
        at.client.admin.command("configureFailPoint", "disableSnapshotting", mode="off")
        unwaited.with_options(write_concern=WriteConcern("majority")).insert_one({})
    assert found[0].verdict == "refusal"
    assert found[0].sentence.startswith("no majority confirms within 0.5 s")
    assert unwell(at) == []


def test_a_default_write_concern_of_one_member_is_warned_of(at: Subject) -> None:
    change = at.client.admin.command
    change("setDefaultRWConcern", defaultWriteConcern={"w": 1})
    try:
        only(at, "majority warning", "wait for w: 1")
    finally:
        change("setDefaultRWConcern", defaultWriteConcern={"w": "majority"})
    assert unwell(at) == []


def test_a_feature_version_behind_is_warned_of(at: Subject) -> None:
    change = at.client.admin.command
    own = change("getParameter", featureCompatibilityVersion=1)["featureCompatibilityVersion"]
    older = {"6.0": "5.0", "7.0": "6.0", "8.0": "7.0"}[own["version"]]
    confirmed = {"confirm": True} if own["version"] >= "7.0" else {}
    change("setFeatureCompatibilityVersion", older, **confirmed)
    try:
        only(at, "mongodb warning", f"still works as {older}")
    finally:
        change("setFeatureCompatibilityVersion", own["version"], **confirmed)


def test_an_oplog_that_a_run_outlasts_is_refused(
    at: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.oplog_guard, "window_seconds", lambda _: 0.0)
    only(at, "oplog refusal", "the oplog reaches back 0.0 s")


def test_a_user_with_the_rights_that_the_mends_grant_may_do_everything(at: Subject) -> None:
    data, ledger = at.settings.data_database, at.ledger.database.name
    roles = [("readWrite", data), ("dbAdmin", data), ("readWrite", ledger)]
    with as_user(at, *roles, ("read", "local"), ("clusterMonitor", "admin")) as seen:
        assert unwell(seen) == []
        [found] = named(seen, "rights")
        assert found.sentence == "this user may do all that a run does"


def test_a_user_who_may_only_read_is_refused_what_a_run_writes(at: Subject) -> None:
    data, ledger = at.settings.data_database, at.ledger.database.name
    roles = [("read", data), ("readWrite", ledger), ("read", "local")]
    with as_user(at, *roles) as seen:
        refused, warned = named(seen, "rights")
    assert refused.verdict == "refusal"
    assert refused.sentence.startswith("this user may not make, write and take away the targets")
    assert "collMod" in refused.sentence
    assert refused.hint == f"grant readWrite and dbAdmin on the database {data}"
    assert warned.verdict == "warning"
    assert warned.hint == "grant clusterMonitor on the database admin"


def test_a_mongodb_that_asks_for_a_user_when_none_is_named_is_refused(at: Subject) -> None:
    with failing(at.client, "find", errorCode=13):
        [found] = named(at, "rights")
    assert found.verdict == "refusal"
    assert found.sentence == "MongoDB asks for a user, and MONGOSPLIT_MONGO_URL names none"


def test_what_this_user_may_not_ask_is_a_warning_and_the_rest_goes_on(at: Subject) -> None:
    with failing(at.client, "getDefaultRWConcern", errorCode=13):
        only(at, "mongodb warning", "may not ask what the application's writes wait for")


def test_an_error_of_the_server_is_a_refusal_and_the_rest_goes_on(at: Subject) -> None:
    with failing(at.client, "replSetGetStatus", errorCode=96):
        only(at, "mongodb refusal", "OperationFailed (code 96)")
        assert named(at, "transact")


def test_a_run_planned_with_another_version_is_refused(at: Subject, facts: Document) -> None:
    run = runs.begin(at.ledger, name="users", facts=facts, holder=PLANNER)
    [found] = named(at, "code")
    assert (found.verdict, found.sentence[:7]) == ("ok", "users-1")
    at.ledger["runs"].update_one({"_id": run.id}, {"$set": {"fingerprint": "other"}})
    only(at, "code refusal", "users-1 was planned with version other of users")


def test_a_redis_that_evicts_is_refused(at: Subject, broker: redis.Redis) -> None:
    with configured(broker, "maxmemory-policy", "allkeys-lru"):
        only(at, "redis refusal", "maxmemory-policy allkeys-lru")


def test_a_redis_without_room_for_the_waves_is_warned_of(at: Subject, broker: redis.Redis) -> None:
    with configured(broker, "maxmemory", str(12 * 2**20)):
        only(at, "redis warning", "MB are left of its maxmemory")


def test_a_redis_that_keeps_nothing_is_warned_of_and_one_that_saves_is_not(
    at: Subject, broker: redis.Redis
) -> None:
    def kept() -> list[str]:
        return [f.verdict for f in named(at, "redis") if "restart" in f.sentence]

    assert kept() == ["warning"]
    with configured(broker, "save", "3600 1000000"):
        assert kept() == ["ok"]


def test_a_redis_that_follows_another_is_refused(at: Subject, broker: redis.Redis) -> None:
    broker.replicaof("127.0.0.1", 9)
    try:
        found = [f.sentence for f in named(at, "redis") if f.verdict == "refusal"]
    finally:
        broker.replicaof("NO", "ONE")
    assert len(found) == 1
    assert found[0].endswith("is a slave, which takes no writes")


def test_a_redis_user_who_may_not_ask_is_told_what_to_grant(
    at: Subject, broker: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.acl_setuser("narrow", enabled=True, passwords=["+geheim"], keys=["*"])
    broker.execute_command("ACL", "SETUSER", "narrow", "+@all", "-@dangerous", "-@admin")
    monkeypatch.setattr(app.conf, "broker_url", redis_url.replace("://", "://narrow:geheim@"))
    try:
        [found] = named(at, "redis")
    finally:
        presence.connection().close()
        broker.acl_deluser("narrow")
    assert (found.verdict, found.hint) == ("warning", "ACL SETUSER … +info +config|get")


def test_without_redis_nothing_is_said_of_workers(
    at: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.conf, "broker_url", "redis://127.0.0.1:9/0")
    only(at, "redis refusal", "Redis does not answer at 127.0.0.1:9")
    assert {f.check for f in doctor.examine(at)}.isdisjoint({"workers", "clocks"})


@pytest.mark.parametrize(
    ("name", "value", "kind", "part"),
    [
        ("broker_transport_options", {"visibility_timeout": 120}, "refusal", "after 120 s"),
        ("worker_prefetch_multiplier", 4, "warning", "4 messages"),
        ("result_serializer", "pickle", "refusal", "pickle"),
        ("accept_content", ["json", "yaml"], "refusal", "yaml"),
    ],
)
def test_a_configuration_of_celery_that_loses_or_trusts_too_much_is_not_well(
    at: Subject, name: str, value: Any, kind: str, part: str
) -> None:
    before = app.conf[name]
    app.conf[name] = value
    try:
        only(at, f"celery {kind}", part)
    finally:
        app.conf[name] = before
    assert unwell(at) == []


def test_a_task_acknowledged_too_early_is_refused(
    at: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.close_wave, "acks_late", False)
    only(at, "celery refusal", "mongosplit.close_wave is acknowledged before it is done")


def test_a_worker_of_this_code_listens_tells_its_version_and_its_clock(at: Subject) -> None:
    signals.heartbeat_sent.send(sender=Worker())
    assert unwell(at) == []
    found = named(at, "workers")
    assert [f.sentence for f in found] == [f"1 on queue {queue}" for queue in QUEUES]
    [version] = named(at, "code")
    assert version.sentence == "1 worker with the version of users that is here"
    [clocks] = named(at, "clocks")
    assert clocks.sentence.startswith("3 clocks within 0.")


def test_a_worker_of_another_version_and_one_whose_clock_is_off_are_named(
    at: Subject, broker: redis.Redis
) -> None:
    facts = {"pid": 1, "queues": [*QUEUES], "at": time.time(), "migration": "users"}
    for name, changes in (
        ("w1@there", {"fingerprint": "other"}),
        ("w2@there", {"migration": "orders", "at": time.time() - 30}),
    ):
        key = presence.PREFIX + name
        broker.set(key, json.dumps(facts | changes), ex=presence.EXPIRES_SECONDS)
    other, silent, clock = unwell(at)
    assert other == (
        "code refusal",
        "another version of users than the one here is held by w1@there",
    )
    assert silent[1].endswith("not told by w2@there")
    assert clock[0] == "clocks warning"
    assert clock[1].startswith("1 clock off that of Redis: w2@there by -")


def test_a_beat_of_some_seconds_ago_by_a_worker_of_older_code_is_no_clock_that_is_off(
    at: Subject, broker: redis.Redis
) -> None:
    facts = {"pid": 1, "queues": [*QUEUES], "at": time.time() - 7}
    broker.set(presence.PREFIX + "w1@there", json.dumps(facts), ex=presence.EXPIRES_SECONDS - 7)
    only(at, "code warning", "not told by w1@there")
