"""Every setting: from a flag, from `MONGOSPLIT_…` in the environment, or from the servers file.

The servers file is what `mongosplit dev` writes, so that any command typed in the same folder finds
its embedded servers.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from mongosplit.errors import UsageError
from mongosplit.signal_thresholds import Thresholds

PREFIX = "MONGOSPLIT_"
HOME = Path(".mongosplit")
SERVERS_FILE = HOME / "servers.env"
MONGODB_S_OWN = ("admin", "config", "local")
FORBIDDEN_IN_A_DATABASE = set(' /\\."$*<>:|?\0')
"""What a server may refuse in the name of a database, on any platform."""


def _actor() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


class Settings(BaseSettings):
    """Where things are and how much is done at once; frozen, read once at an entry point."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=SERVERS_FILE, frozen=True, extra="ignore"
    )

    mongo_url: str = Field("", repr=False, description="MongoDB replica set, mongodb://…")
    database: str = Field("", description="database of the source and the targets")
    redis_url: str = Field("", repr=False, description="Redis that carries the tasks, redis://…")
    ledger_database: str = Field("mongosplit", min_length=1, description="database of the ledger")
    migration: str = Field("users", min_length=1, description="the migration when none is named")
    chunk_size: int = Field(1000, ge=1, le=100_000, description="source documents in a chunk")
    wave_size: int = Field(200, ge=1, le=5000, description="chunks sent as one chord")
    target_milliseconds: int = Field(
        250,
        ge=10,
        le=30_000,
        description="how long a chunk is to take; slower ones: smaller waves",
    )
    waves_in_flight: int = Field(3, ge=1, le=100, description="waves sent before one is closed")
    verify_share: float = Field(
        0.1, ge=0, le=1, description="share of chunks also verified through the Python reference"
    )
    breaker_documents: float = Field(
        0.05, gt=0, le=1, description="share of documents in quarantine that stops a run"
    )
    breaker_chunks: float = Field(
        0.5, gt=0, le=1, description="share of failed chunks that stops a run"
    )
    throttle: str = Field(
        "", description="where the database's health slows or stops a run: signal=soft:hard, or off"
    )
    throttle_command: str = Field(
        "", description="a command whose exit code or number says how well the database is"
    )
    recheck_seconds: float = Field(
        10.0,
        ge=0,
        le=86_400,
        description="how often a random applied chunk is compared while followed; 0: never",
    )
    oplog_multiple: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="the oplog must reach back so many times what a run still takes; 0: any",
    )
    metrics: str = Field(
        "", description="where serve answers Prometheus, 127.0.0.1:9464; empty: nowhere"
    )
    worker_metrics: str = Field(
        "", description="where a worker answers Prometheus, 127.0.0.1:9465; empty: nowhere"
    )
    max_attempts: int = Field(6, ge=1, le=100, description="tries of a chunk before it is failed")
    retry_seconds: float = Field(
        1.0, gt=0, le=60, description="first wait before another try; it doubles, up to 30 s"
    )
    server_seconds: float = Field(
        10.0, gt=0, le=300, description="how long to look for a server before giving up"
    )
    actor: str = Field(default_factory=_actor, description="who is asking, for the ledger")

    @field_validator("mongo_url")
    @classmethod
    def _mongo_url_parses(cls, url: str) -> str:
        if url:
            try:
                parse_uri(url, validate=True, warn=False)
            except (PyMongoError, ValueError) as error:
                # What the driver says may hold a part of a password that was not escaped.
                raise ValueError(
                    "is not a MongoDB URL like mongodb://host:27017 (user name and password "
                    "percent-encoded, options that the driver knows)"
                ) from error
        return url

    @field_validator("redis_url")
    @classmethod
    def _redis_url_parses(cls, url: str) -> str:
        if url and not _is_redis_url(url):
            raise ValueError(
                "is not a Redis URL like redis://host:6379/0 (user name and password "
                "percent-encoded)"
            )
        return url

    @field_validator("database", "ledger_database")
    @classmethod
    def _database_may_be_called_so(cls, name: str) -> str:
        if FORBIDDEN_IN_A_DATABASE & set(name) or len(name.encode()) > 63:
            raise ValueError("is not a name that MongoDB allows for a database")
        if name in MONGODB_S_OWN:
            raise ValueError(f"cannot be one of {', '.join(MONGODB_S_OWN)}: they are MongoDB's own")
        return name

    @field_validator("throttle")
    @classmethod
    def _throttle_parses(cls, text: str) -> str:
        try:
            return str(Thresholds.parse(text))
        except UsageError as error:
            raise ValueError(f"cannot be read: {error.message} ({error.hint})") from error

    @field_validator("metrics", "worker_metrics")
    @classmethod
    def _metrics_is_an_address(cls, text: str) -> str:
        if text and _address(text) is None:
            raise ValueError("is not an address like 127.0.0.1:9464 (host:port)")
        return text

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port at which `serve` answers Prometheus; None: it does not."""
        return _address(self.metrics)

    @property
    def worker_metrics_address(self) -> tuple[str, int] | None:
        """Host and port at which a worker answers Prometheus; None: it does not."""
        return _address(self.worker_metrics)

    @property
    def data_database(self) -> str:
        """The database of source and targets: the setting, or the one the MongoDB URL names.

        Raises:
            UsageError: neither names one.
        """
        if self.database:
            return self.database
        named = parse_uri(self.mongo_url, warn=False)["database"] if self.mongo_url else None
        if not named:
            raise missing("database", "the database that holds the source collection")
        return str(named)


def _is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - asking for a port that is no number raises
    except ValueError:
        return False
    database = parts.path.removeprefix("/")
    scheme_known = parts.scheme in ("redis", "rediss")
    return scheme_known and bool(parts.hostname) and (not database or database.isdigit())


def _address(text: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):([0-9]{1,5})", text, re.ASCII)
    if found is None or not 1 <= int(found[3]) <= 65_535:
        return None
    return found[1] or found[2], int(found[3])


def tell_library(variable: str, value: str) -> None:
    """Set a variable in the environment for a library that takes it from nowhere else."""
    os.environ[variable] = value


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def missing(name: str, what: str) -> UsageError:
    """The error for a setting that is needed and not given."""
    return UsageError(
        f"{PREFIX}{name.upper()} is not set: {what}",
        hint=f"give {flag(name)} or export {PREFIX}{name.upper()}",
    )


def read_settings(**flags: Any) -> Settings:
    """Settings from flags (None: not given), then the environment, then the servers file.

    Raises:
        UsageError: naming the first setting that is wrong; a URL is never repeated.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        sentence = _sentence(first)
        raise UsageError(
            f"{PREFIX}{name.upper()} ({flag(name)}) {sentence}",
            hint=f"give {_example(name)}: {Settings.model_fields[name].description}",
        ) from None


def _example(name: str) -> str:
    default = Settings.model_fields[name].default
    has_one = isinstance(default, str | int | float) and default != ""
    return f"{flag(name)} {default}" if has_one else flag(name)


def _sentence(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "string_too_short":
        return "is empty"
    info = Settings.model_fields[str(error["loc"][0])]
    found = {
        name: getattr(mark, name)
        for mark in info.metadata
        for name in ("gt", "ge", "le")
        if hasattr(mark, name)
    }
    low = f"more than {found['gt']}" if "gt" in found else f"at least {found['ge']}"
    kind = "whole number" if info.annotation is int else "number"
    return f"is {error['input']!r} and must be a {kind}, {low} and at most {found['le']:,}"
