"""The doctor's verdicts on given facts: each names what is wrong and the mend."""

from __future__ import annotations

from typing import Any

import pytest

from mongosplit.settings import Settings
from producer import doctor_celery, doctor_mongodb, doctor_redis, doctor_rights, doctor_workers
from producer.doctor_celery import Delivery
from producer.doctor_rights import Need
from producer.findings import Finding
from worker.app import QUEUES
from worker.presence import Sign

WELL: dict[str, Any] = {
    "redis_version": "7.2.4",
    "role": "master",
    "cluster_enabled": 0,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory": 64 * 2**20,
    "used_memory": 2 * 2**20,
    "total_system_memory": 8 * 2**30,
}
CHUNK = Delivery("migrate", acks_late=True, soft=75, hard=105)


def sign(*queues: str, migration: str = "users", fingerprint: str = "a1", ahead: float = 0) -> Sign:
    return Sign(list(queues), migration, fingerprint, ahead)


def is_said(finding: Finding, verdict: str, part: str) -> None:
    """The verdict, in a sentence that has this part; whoever is not well gets a mend."""
    assert (finding.verdict, part in finding.sentence) == (verdict, True), finding
    assert bool(finding.hint) == (verdict != "ok"), finding


@pytest.mark.parametrize(
    ("feature", "version", "verdict", "part"),
    [
        ({"version": "6.0"}, "6.0.5", "ok", "6.0"),
        ({"version": "5.0"}, "6.0.5", "warning", "6.0 still works as 5.0"),
        ({"version": "4.4"}, "5.0.1", "refusal", "5.0 works as 4.4"),
        ({"version": "6.0", "targetVersion": "7.0"}, "7.0.1", "warning", "from 6.0 to 7.0"),
    ],
)
def test_a_feature_version_behind_its_server_is_an_upgrade_that_was_not_finished(
    feature: dict[str, Any], version: str, verdict: str, part: str
) -> None:
    is_said(doctor_mongodb.judge_feature_version(feature, version), verdict, part)


def test_from_mongodb_7_on_the_mend_of_a_feature_version_confirms_it() -> None:
    for version, confirmed in (("6.0.5", False), ("7.0.5", True), ("8.0.1", True)):
        mend = doctor_mongodb.judge_feature_version({"version": "5.0"}, version).hint
        assert ("confirm: true" in mend) == confirmed


@pytest.mark.parametrize(
    ("default", "verdict", "part"),
    [
        ({"w": "majority", "wtimeout": 0}, "ok", "majority"),
        ({"w": 1}, "warning", "w: 1"),
        (None, "warning", "w: 1"),
        ({}, "warning", "w: 1"),
    ],
)
def test_a_default_below_the_majority_is_warned_of(
    default: dict[str, Any] | None, verdict: str, part: str
) -> None:
    is_said(doctor_mongodb.judge_write_concern(default), verdict, part)


def test_members_that_are_away_or_not_ready_are_named() -> None:
    rows = [
        {"name": "a:1", "health": 1, "state": 1, "stateStr": "PRIMARY"},
        {"name": "b:1", "health": 1, "state": 2, "stateStr": "SECONDARY"},
        {"name": "c:1", "health": 1, "state": 7, "stateStr": "ARBITER"},
    ]
    assert list(doctor_mongodb.judge_members(rows)) == []
    rows[1] |= {"health": 0, "state": 8, "stateStr": "(not reachable/healthy)"}
    rows[2] |= {"state": 3, "stateStr": "RECOVERING"}
    [found] = doctor_mongodb.judge_members(rows)
    is_said(found, "warning", "2 of 3 members away or not ready: b:1 ")
    assert "c:1 (RECOVERING)" in found.sentence


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(54, "warning"), (55, "ok"), (60, "ok"), (105, "ok"), (106, "warning")]
)
def test_a_transaction_may_last_as_long_as_a_chunk_and_no_longer_than_its_task(
    seconds: int, verdict: str
) -> None:
    is_said(doctor_mongodb.judge_lifetime(seconds), verdict, f"{seconds} s")


def test_old_transactions_are_counted_and_the_oldest_is_told() -> None:
    is_said(doctor_mongodb.judge_transactions([]), "ok", "none is open")
    found = doctor_mongodb.judge_transactions([61.0, 1234.5])
    is_said(found, "warning", "2 transactions open for 60 s or longer, the oldest for 1,234 s")


@pytest.mark.parametrize(
    ("resource", "database", "collection", "covered"),
    [
        ({"db": "shop", "collection": "users"}, "shop", "users", True),
        ({"db": "shop", "collection": "users"}, "shop", "orders", False),
        ({"db": "shop", "collection": "users"}, "shop", "", False),
        ({"db": "shop", "collection": ""}, "shop", "users", True),
        ({"db": "shop", "collection": ""}, "shop", "", True),
        ({"db": "shop", "collection": ""}, "other", "users", False),
        ({"db": "", "collection": "users"}, "shop", "users", True),
        ({"db": "", "collection": ""}, "shop", "users", True),
        ({"db": "", "collection": ""}, "local", "oplog.rs", False),
        ({"db": "local", "collection": ""}, "local", "oplog.rs", True),
        ({"anyResource": True}, "local", "oplog.rs", True),
        ({"cluster": True}, "shop", "users", False),
        ({"cluster": True}, "", "", True),
        ({"db": "", "collection": ""}, "", "", False),
    ],
)
def test_a_resource_covers_what_mongodb_says_it_does(
    resource: dict[str, Any], database: str, collection: str, covered: bool
) -> None:
    assert doctor_rights.covers(resource, database, collection) is covered


def test_a_need_names_what_lacks_on_any_of_its_collections() -> None:
    need = Need("write", "shop", ("a", "b"), frozenset({"insert", "remove"}), "grant it")
    on_a = {"resource": {"db": "shop", "collection": "a"}, "actions": ["insert", "remove"]}
    on_both = {"resource": {"db": "shop", "collection": ""}, "actions": ["insert"]}
    assert doctor_rights.lacking(need, [on_a, on_both]) == ["remove"]
    everything = {"resource": {"anyResource": True}, "actions": ["anyAction"]}
    assert doctor_rights.lacking(need, [everything]) == []
    [found] = doctor_rights.judge_rights([need], [on_a])
    is_said(found, "refusal", "this user may not write: it lacks insert, remove")
    [found] = doctor_rights.judge_rights([need], [everything])
    is_said(found, "ok", "all that a run does")


@pytest.mark.parametrize(
    ("version", "verdict"), [("6.0.20", "refusal"), ("6.2.0", "ok"), ("10.0.1", "ok")]
)
def test_a_redis_older_than_celery_needs_is_refused(version: str, verdict: str) -> None:
    is_said(doctor_redis.judge_version(WELL | {"redis_version": version}), verdict, version)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "volatile-lru"])
def test_a_redis_that_evicts_is_refused(policy: str) -> None:
    is_said(doctor_redis.judge_policy(WELL), "ok", "noeviction")
    found = doctor_redis.judge_policy(WELL | {"maxmemory_policy": policy})
    is_said(found, "refusal", f"maxmemory-policy {policy}")


@pytest.mark.parametrize(
    ("changes", "verdict", "part"),
    [
        ({}, "ok", "master"),
        ({"role": "slave"}, "refusal", "is a slave, which takes no writes"),
        ({"cluster_enabled": 1}, "refusal", "a node of a cluster"),
    ],
)
def test_a_redis_that_takes_no_writes_or_is_one_of_a_cluster_is_refused(
    changes: dict[str, Any], verdict: str, part: str
) -> None:
    [found] = doctor_redis.judge_role(WELL | changes)
    is_said(found, verdict, part)


@pytest.mark.parametrize(
    ("changes", "snapshots", "verdict", "part"),
    [
        ({}, False, "ok", "appends"),
        ({"aof_enabled": 0}, True, "ok", "snapshots"),
        ({"aof_enabled": 0}, False, "warning", "keeps nothing over a restart"),
        ({"aof_enabled": 0}, None, "warning", "does not tell"),
        ({"aof_last_write_status": "err"}, False, "refusal", "could not append"),
        ({"rdb_last_bgsave_status": "err"}, True, "refusal", "could not save"),
        ({"rdb_last_bgsave_status": "err"}, False, "ok", "appends"),
    ],
)
def test_what_outlives_a_restart_of_redis_is_judged_and_a_full_disk_refused(
    changes: dict[str, Any], snapshots: bool | None, verdict: str, part: str
) -> None:
    is_said(doctor_redis.judge_persistence(WELL | changes, snapshots), verdict, part)


@pytest.mark.parametrize(
    ("changes", "verdict", "part"),
    [
        ({}, "ok", "its maxmemory holds"),
        ({"used_memory": 60 * 2**20}, "warning", "4 MB are left of its maxmemory; "),
        ({"used_memory": 70 * 2**20}, "warning", "0 MB are left"),
        ({"maxmemory": 0}, "ok", "the machine's memory holds"),
        ({"maxmemory": 0, "used_memory": 2**33}, "warning", "left of the machine's memory"),
        ({"maxmemory": 0, "total_system_memory": 0}, "ok", "no limit"),
    ],
)
def test_the_memory_that_is_left_must_hold_the_waves_in_flight(
    changes: dict[str, Any], verdict: str, part: str
) -> None:
    found = doctor_redis.judge_memory(WELL | changes, doctor_redis.needed_bytes(Settings()))
    is_said(found, verdict, part)


def test_more_and_larger_waves_want_more_memory() -> None:
    small = doctor_redis.needed_bytes(Settings(waves_in_flight=1, wave_size=10))
    assert doctor_redis.needed_bytes(Settings(waves_in_flight=2, wave_size=10)) > small
    assert doctor_redis.needed_bytes(Settings(waves_in_flight=1, wave_size=20)) > small


def test_a_message_must_stay_out_longer_than_task_permit_and_countdown_take() -> None:
    longest = doctor_celery.longest_seconds([CHUNK, Delivery("close", True, None, None)])
    assert longest == 105 + 20 + 30
    is_said(doctor_celery.judge_visibility(156, longest), "ok", "156 s")
    is_said(doctor_celery.judge_visibility(155, longest), "refusal", "given out again after 155 s")


def test_a_task_acknowledged_before_its_work_is_refused_by_name() -> None:
    is_said(doctor_celery.judge_late([CHUNK]), "ok", "when their work is done")
    early = Delivery("sync", acks_late=False, soft=75, hard=105)
    is_said(doctor_celery.judge_late([CHUNK, early]), "refusal", "sync is acknowledged before")


def test_a_soft_limit_that_never_comes_is_refused() -> None:
    assert list(doctor_celery.judge_limits([CHUNK, Delivery("close", True, None, None)])) == []
    [found] = doctor_celery.judge_limits([Delivery("sync", True, soft=105, hard=105)])
    is_said(found, "refusal", "sync is killed after 105 s")


@pytest.mark.parametrize(
    ("multiplier", "verdict", "part"),
    [(1, "ok", "no message ahead"), (4, "warning", "4 messages"), (0, "warning", "any number")],
)
def test_messages_taken_ahead_are_warned_of(multiplier: int, verdict: str, part: str) -> None:
    is_said(doctor_celery.judge_prefetch(multiplier), verdict, part)


def test_any_serializer_but_json_is_refused() -> None:
    is_said(doctor_celery.judge_serializers({"json", "application/json"}), "ok", "JSON")
    found = doctor_celery.judge_serializers({"json", "pickle"})
    is_said(found, "refusal", "sends or accepts pickle")


def test_a_queue_without_a_worker_is_warned_of_with_the_line_to_type() -> None:
    found = {f.sentence: f for f in doctor_workers.judge_queues({"w1@a": sign(*QUEUES)})}
    assert {f.verdict for f in found.values()} == {"ok"}
    signs = {"w1@a": sign("migrate", "verify"), "w2@a": sign("migrate")}
    by_verdict = [(f.verdict, f.sentence) for f in doctor_workers.judge_queues(signs)]
    assert by_verdict == [
        ("ok", "2 on queue migrate"),
        ("ok", "1 on queue verify"),
        ("warning", "no worker listens on queue rollback"),
        ("warning", "no worker listens on queue sync"),
    ]
    for queue, finding in zip(QUEUES, doctor_workers.judge_queues({}), strict=True):
        queues = finding.hint.partition(" -Q ")[2].split()[0]
        assert queue in queues.split(",")


def test_workers_of_another_version_are_refused_and_silent_ones_warned_of() -> None:
    signs = {
        "w1@a": sign(),
        "w2@a": sign(fingerprint="b2"),
        "w3@a": sign(migration="orders"),
        "w4@a": sign(migration="", fingerprint=""),
    }
    other, silent, same = doctor_workers.judge_versions(signs, "users", "a1")
    is_said(other, "refusal", "is held by w2@a")
    is_said(silent, "warning", "not told by w3@a, w4@a")
    is_said(same, "ok", "1 worker with")
    assert list(doctor_workers.judge_versions({}, "users", "a1")) == []


def test_of_many_workers_only_some_are_named() -> None:
    signs = {f"w{n}@a": sign(fingerprint="b2") for n in range(1, 9)}
    [found] = doctor_workers.judge_versions(signs, "users", "a1")
    assert found.sentence.endswith("w1@a, w2@a, w3@a, w4@a, w5@a and 3 more")


def test_a_clock_more_than_two_seconds_off_is_named_with_its_side() -> None:
    is_said(doctor_workers.judge_clocks({"w1@a": 1.9, "MongoDB": -2.0}), "ok", "within 2.0 s")
    found = doctor_workers.judge_clocks({"w1@a": 2.1, "w2@a": 0.0, "MongoDB": -30.0})
    is_said(found, "warning", "2 clocks off that of Redis: MongoDB by -30.0 s, w1@a by +2.1 s")
