"""Settings: where each comes from, what is refused, and what no sentence ever repeats."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mongosplit.errors import UsageError
from mongosplit.settings import PREFIX, SERVERS_FILE, Settings, flag, missing, read_settings
from producer.options import settings_flags

SECRET = "geheim-4711"
FIELDS = sorted(Settings.model_fields)

WRONG = {
    "mongo_url": ["http://host", "mongodb://", "mongodb://host:port", "mongodb://h/?nosuch=1"],
    "redis_url": [
        "http://host",
        "redis://",
        "redis://host:port",
        "redis://host/users",
        "redis://[",
    ],
    "database": ["my shop", "shop.users", "a/b", 'a"b', "$shop", "x" * 64, "admin", "config"],
    "ledger_database": ["", "my ledger", "local"],
    "migration": [""],
    "chunk_size": ["0", "-1", "100001", "1000000000", "many", "1.5", ""],
    "wave_size": ["0", "5001", "x"],
    "target_milliseconds": ["9", "30001", "x"],
    "waves_in_flight": ["0", "101", "x"],
    "verify_share": ["-0.1", "1.1", "2", "nan", "half"],
    "throttle": ["lag=3", "cache-dirty", "cache-dirty=0"],
    "metrics": [
        *("9464", ":9464", "host", "host:", "host:0", "host:65536", "host:port", "host:-1"),
        *("http://host:9464", "host:9464/metrics", "::1:9464", "[::1]", "ho st:9464", "host:٣"),
    ],
    "worker_metrics": ["9465", ":9465", "host", "host:0", "host:65536", "http://host:9465"],
    "breaker_documents": ["0", "1.1", "nan", "x"],
    "breaker_chunks": ["0", "1.1", "nan", "x"],
    "recheck_seconds": ["-1", "86401", "nan", "x"],
    "oplog_multiple": ["-1", "1001", "nan", "x"],
    "max_attempts": ["0", "101", "x"],
    "retry_seconds": ["0", "61", "inf", "x"],
    "server_seconds": ["0", "301", "x"],
}
CASES = [(name, value) for name, values in WRONG.items() for value in values]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> UsageError:
    monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(UsageError) as found:
        read_settings()
    return found.value


def test_every_setting_that_can_be_wrong_is_among_the_cases() -> None:
    assert {*WRONG, "actor", "throttle_command"} == set(FIELDS)


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_wrong_value_is_named_by_variable_and_flag_with_what_is_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    error = refusal(monkeypatch, name, value)
    assert error.message.startswith(f"{PREFIX}{name.upper()} ({flag(name)}) ")
    assert error.hint.startswith(f"give {flag(name)}")
    description = Settings.model_fields[name].description
    assert description
    assert error.hint.endswith(f": {description}")
    assert "Undefined" not in error.hint
    assert error.exit_code == 2


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_wrong_flag_is_refused_like_a_wrong_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(UsageError) as by_flag:
        read_settings(**{name: value})
    assert by_flag.value.message == refusal(monkeypatch, name, value).message


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("chunk_size", "0", "must be a whole number, at least 1 and at most 100,000"),
        ("chunk_size", "1.5", "must be a whole number, at least 1 and at most 100,000"),
        ("retry_seconds", "0", "must be a number, more than 0 and at most 60"),
        ("verify_share", "nan", "must be a number, at least 0 and at most 1"),
    ],
)
def test_a_wrong_number_is_repeated_with_its_bounds(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, rule: str
) -> None:
    assert refusal(monkeypatch, name, value).message.endswith(f" is '{value}' and {rule}")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("mongo_url", f"mongodb://erika:{SECRET}/w@host"),
        ("mongo_url", f"mongodb://erika:a?x={SECRET}@host"),
        ("mongo_url", f"mongodb://erika:{SECRET}@host:port"),
        ("mongo_url", f"mongo://erika:{SECRET}@host"),
        ("redis_url", f"redis://:{SECRET}/1@host:6379/0"),
        ("redis_url", f"redis://:{SECRET}@host:port"),
        ("redis_url", f"http://:{SECRET}@host"),
    ],
)
def test_a_wrong_url_is_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    error = refusal(monkeypatch, name, url)
    assert SECRET not in error.message + error.hint
    assert "percent-encoded" in error.message


def test_settings_shown_whole_hold_no_url() -> None:
    settings = read_settings(
        mongo_url=f"mongodb://erika:{SECRET}@host", redis_url=f"redis://:{SECRET}@host"
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


def test_a_flag_comes_before_the_environment_and_that_before_the_servers_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SERVERS_FILE.parent.mkdir()
    SERVERS_FILE.write_text(
        "# written by process 1\n"
        "MONGOSPLIT_DATABASE=file\nMONGOSPLIT_ACTOR=file\nMONGOSPLIT_LEDGER_DATABASE=file\n"
    )
    monkeypatch.setenv("MONGOSPLIT_DATABASE", "environment")
    monkeypatch.setenv("MONGOSPLIT_ACTOR", "environment")
    found = read_settings(database="flag", actor=None)
    assert (found.database, found.actor, found.ledger_database) == ("flag", "environment", "file")


def test_without_anything_given_there_are_defaults_and_no_servers() -> None:
    found = read_settings()
    assert (found.mongo_url, found.redis_url, found.database) == ("", "", "")
    assert found.ledger_database == "mongosplit"
    assert found.migration == "users"
    assert "@" in found.actor


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE", "another")
    monkeypatch.setenv("MONGOSPLIT_NOSUCH", "1")
    assert read_settings().database == ""


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_settings().database = "another"


@pytest.mark.parametrize(
    ("url", "database"),
    [("mongodb://host/shop", "shop"), ("mongodb://u:p@a,b/shop?replicaSet=rs0", "shop")],
)
def test_the_database_is_the_setting_or_the_one_the_url_names(url: str, database: str) -> None:
    assert read_settings(mongo_url=url).data_database == database
    assert read_settings(mongo_url=url, database="mine").data_database == "mine"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("metrics-1.shop.internal:65535", ("metrics-1.shop.internal", 65_535)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_the_address_of_the_metrics_is_host_and_port_or_nowhere(
    text: str, address: tuple[str, int] | None
) -> None:
    assert read_settings(metrics=text).metrics_address == address


def test_a_database_that_is_nowhere_named_is_asked_for() -> None:
    with pytest.raises(UsageError) as found:
        _ = read_settings(mongo_url="mongodb://host").data_database
    assert found.value.message == (
        "MONGOSPLIT_DATABASE is not set: the database that holds the source collection"
    )
    assert found.value.hint == "give --database or export MONGOSPLIT_DATABASE"
    assert missing("redis_url", "why").hint == "give --redis-url or export MONGOSPLIT_REDIS_URL"


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_flag_that_is_described_and_passed_on(name: str) -> None:
    @click.command()
    @settings_flags
    def verb(settings: Settings) -> None:
        click.echo(getattr(settings, name))

    typed = {"mongo_url": "mongodb://h", "redis_url": "redis://h", "verify_share": "0.5"}
    typed |= {
        "breaker_documents": "0.5",
        "breaker_chunks": "0.5",
        "throttle": "off",
        "target_milliseconds": "70",
        "metrics": "127.0.0.1:70",
        "worker_metrics": "127.0.0.1:71",
    }
    value = typed.get(name, "7" if Settings.model_fields[name].annotation is not str else "seven")
    said = CliRunner().invoke(verb, [flag(name), value])
    assert said.exit_code == 0, said.output
    assert said.output.strip().removesuffix(".0") == value
    described = " ".join(CliRunner().invoke(verb, ["--help"]).output.split())
    assert f"{flag(name)} …" in described
    assert f"[env {PREFIX}{name.upper()}]" in described
    assert str(Settings.model_fields[name].description) in described
