"""`mongosplit doctor` as a process: its lines, its JSON, its exit codes, beside real workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from ops.seed import seed
from tests.conditions import until
from tests.e2e.conftest import Shop
from worker.presence import PREFIX

DECLARED = '''
from typing import Annotated

from mongosplit.definition import From, Migration, Target
from mongosplit.schema import Id


class Login(Target, collection="logins"):
    """Who may log in."""

    id: Annotated[Id, From("_id")]
    email: Annotated[str, From("kontakt.{field}")]


migration = Migration("logins", source="users", targets=(Login,))
'''


@contextmanager
def evicting(broker: redis.Redis) -> Iterator[None]:
    broker.config_set("maxmemory-policy", "allkeys-lru")
    try:
        yield
    finally:
        broker.config_set("maxmemory-policy", "noeviction")


def declare(shop: Shop, field: str) -> None:
    (shop.folder / "logins.py").write_text(DECLARED.replace("{field}", field))


def await_presence(broker: redis.Redis) -> None:
    until(lambda: list(broker.scan_iter(PREFIX + "*")), what="no worker became present")


def test_it_says_a_line_each_with_the_mend_below_and_ends_with_0(shop: Shop) -> None:
    seed(shop.data["users"], 50)
    done = shop.mongosplit("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok       mongodb  replica set ")
    unheard = lines.index("warning  workers  no worker listens on queue rollback")
    typed = "celery -A worker.app worker -Q rollback -n r1@%h -c 2"
    assert lines[unheard + 1].strip() == typed
    assert "refusal" not in done.stdout


def test_before_there_is_any_data_it_says_the_same(shop: Shop) -> None:
    done = shop.mongosplit("doctor")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_redis_that_evicts_ends_it_with_3_and_json_says_what_and_the_mend(
    shop: Shop, broker: redis.Redis
) -> None:
    with evicting(broker):
        done = shop.mongosplit("doctor", "-o", "json")
        assert shop.mongosplit("doctor").returncode == 3
    assert (done.returncode, done.stderr) == (3, "")
    found = json.loads(done.stdout)
    assert all(set(row) == {"check", "verdict", "sentence", "hint"} for row in found)
    [refused] = [row for row in found if row["verdict"] == "refusal"]
    assert refused["check"] == "redis"
    assert "maxmemory-policy allkeys-lru" in refused["sentence"]
    assert refused["hint"].startswith("redis-cli config set maxmemory-policy noeviction")
    assert shop.mongosplit("doctor", "-o", "json").returncode == 0


def test_a_mongodb_that_is_away_is_refused_and_redis_is_asked_all_the_same(shop: Shop) -> None:
    away = "mongodb://erika:geheim@127.0.0.1:9/?replicaSet=rs0"
    done = shop.mongosplit("doctor", MONGOSPLIT_MONGO_URL=away, MONGOSPLIT_SERVER_SECONDS="0.5")
    assert done.returncode == 3
    assert done.stdout.startswith("refusal  mongodb  MongoDB at 127.0.0.1:9 does not answer")
    assert "ok       redis    " in done.stdout
    assert "geheim" not in done.stdout + done.stderr


def test_a_redis_that_is_away_is_refused_and_mongodb_is_asked_all_the_same(shop: Shop) -> None:
    done = shop.mongosplit("doctor", MONGOSPLIT_REDIS_URL="redis://:geheim@127.0.0.1:9/0")
    assert done.returncode == 3
    assert done.stdout.startswith("ok       mongodb  ")
    assert "refusal  redis    Redis does not answer at 127.0.0.1:9" in done.stdout
    assert "geheim" not in done.stdout + done.stderr


def test_a_worker_that_holds_another_version_of_the_declaration_is_refused_by_name(
    shop: Shop, broker: redis.Redis
) -> None:
    declare(shop, "email")
    shop.worker(queues="migrate,verify,rollback,sync", MONGOSPLIT_MIGRATION="logins:migration")
    await_presence(broker)
    same = shop.mongosplit("doctor", "logins:migration")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "no worker listens" not in same.stdout
    assert "1 worker with the version of logins:migration that is here" in same.stdout
    declare(shop, "telefon")
    other = shop.mongosplit("doctor", "logins:migration")
    assert other.returncode == 3
    assert (
        "refusal  code     another version of logins:migration than the one here is held by w1@"
        in other.stdout
    )
