"""docker-compose.yml as far as it is ours: the services that are built here, and Redis."""

from __future__ import annotations

import re
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from mongosplit.errors import UsageError

APP = Path(__file__).parents[1]  # stands for the image's working directory
FILE = APP / "docker-compose.yml"
SECRETS = ("REDIS_PASSWORD", "FLOWER_PASSWORD", "GRAFANA_PASSWORD")
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<how>[-?])(?P<word>[^}]*))?\}|)")


@dataclass(frozen=True)
class Service:
    """One service that is built here: what its container would run, and how it is stopped."""

    command: tuple[str, ...]
    environment: dict[str, str]
    health: tuple[str, ...]
    stop_signal: int
    grace_seconds: float
    ports: tuple[int, ...]
    volumes: tuple[str, ...]


@dataclass(frozen=True)
class Composition:
    """Our services by name, and how the file configures Redis."""

    ours: dict[str, Service]
    redis: dict[str, str]


def read(file: Path, variables: Mapping[str, str]) -> Composition:
    """The file with these variables; `UsageError` when one, or a part of the file, is missing."""
    try:
        filled = filled_in(yaml.safe_load(file.read_text()), variables)
        services = filled["services"].items()
        ours = {name: _service(service) for name, service in services if "build" in service}
        lines = filled["configs"]["redis"]["content"].splitlines()
        return Composition(ours, dict(line.split(maxsplit=1) for line in lines))
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{file.name} cannot be read as ours: {error}") from error


def filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    """The value with `${NAME}`, `${NAME:-default}`, `${NAME:?why}` and `$$` replaced.

    Raises `UsageError` when a variable is not given, or a `$` begins nothing that is known.
    """
    if isinstance(value, dict):
        return {key: filled_in(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled_in(inner, variables) for inner in value]
    return _VARIABLE.sub(partial(_value, variables), value) if isinstance(value, str) else value


def _value(variables: Mapping[str, str], found: re.Match[str]) -> str:
    if found["dollar"]:
        return "$"
    if not found["name"]:
        raise UsageError("a $ begins no variable", hint="write ${NAME}, or $$ for the sign itself")
    if given := variables.get(found["name"]) or (found["how"] == "-" and found["word"]):
        return given
    why = found["word"] or "the file has no default for it"
    raise UsageError(f"{found['name']} is not set: {why}", hint=f"export {found['name']}=…")


def _service(written: dict[str, Any]) -> Service:
    kind, *health = written["healthcheck"]["test"]
    ports = (*written.get("ports", ()), *written.get("expose", ()))
    return Service(
        command=tuple(map(str, written["command"])),
        environment={name: str(value) for name, value in written["environment"].items()},
        health=("/bin/sh", "-c", *health) if kind == "CMD-SHELL" else tuple(health),
        stop_signal=signal.Signals[written["stop_signal"]],
        grace_seconds=float(written["stop_grace_period"].removesuffix("s")),
        ports=tuple(int(str(port).rpartition(":")[2]) for port in ports),
        volumes=tuple(mount.split(":")[1] for mount in written.get("volumes", ())),
    )


def made_up(user: str) -> dict[str, str]:
    """Variables for trying out: passwords that nobody has had before, and who may read Flower."""
    return {**{name: secrets.token_hex(12) for name in SECRETS}, "FLOWER_USER": user}
