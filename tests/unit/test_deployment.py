"""Files that deploy: their form, and that they agree with each other and with the code."""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mongosplit.errors import UsageError
from mongosplit.series import SERIES
from mongosplit.settings import Settings
from ops.compose import FILE, filled_in, read
from worker.app import HARD_SECONDS, QUEUES

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
DOCKERFILE = (OPS / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name for name in OURS if name.startswith("worker")}
SECRETS = {
    "REDIS_PASSWORD": "r",
    "FLOWER_USER": "u",
    "FLOWER_PASSWORD": "f",
    "GRAFANA_PASSWORD": "g",
}
MANIFESTS = [
    (path.name, found)
    for path in sorted((OPS / "kubernetes").glob("*.yaml"))
    for found in yaml.safe_load_all(path.read_text())
]
DEPLOYMENTS = {
    found["metadata"]["name"].removeprefix("mongosplit-"): found["spec"]["template"]["spec"]
    for _, found in MANIFESTS
    if found["kind"] == "Deployment"
}
RULES = [
    rule
    for group in yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((OPS / "grafana" / "dashboards" / "runs.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def units() -> Iterator[tuple[str, configparser.SectionProxy]]:
    for path in sorted((OPS / "systemd").glob("*.service")):
        unit = configparser.ConfigParser(interpolation=None, strict=True)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        # systemd takes this one several times; the file of an instance may be missing.
        unit.read_string(path.read_text().replace("\nEnvironmentFile=-", "\n# "))
        yield path.name, unit["Service"]


def queues_of(command: list[str]) -> set[str]:
    return set(command[command.index("-Q") + 1].split(","))


def every_worker_command() -> Iterator[tuple[str, list[str]]]:
    for name in WORKERS:
        yield f"compose {name}", OURS[name]["command"]
    for name, pod in DEPLOYMENTS.items():
        if name.startswith("worker"):
            yield f"kubernetes {name}", pod["containers"][0]["command"]
    for name, service in units():
        if "@" in name:
            yield f"systemd {name}", shlex.split(service["ExecStart"])


def instructions(stage: str) -> list[tuple[str, str]]:
    joined = stage.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    package = importlib.util.find_spec("check_jsonschema")
    assert package is not None
    assert package.submodule_search_locations is not None
    vendor = Path(package.submodule_search_locations[0], "builtin_schemas", "vendor")
    schema = json.loads((vendor / "compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**COMPOSE, "services": {"worker": {"comand": []}}}, schema)


def test_what_a_service_refers_to_is_in_the_compose_file() -> None:
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        needed = service.get("depends_on", ())
        assert set(needed) <= set(SERVICES), name
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"], name
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            here = source.startswith("./")
            assert (ROOT / source).is_dir() if here else source in COMPOSE["volumes"], mount


def test_every_service_has_a_health_check_and_comes_again() -> None:
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert service["restart"] == "always", name


def test_every_password_is_asked_for_and_none_is_in_the_file() -> None:
    for name in SECRETS:
        with pytest.raises(UsageError, match=f"{name} is not set"):
            read_without(name)
    secret = re.compile(r"PASSWORD|AUTH$")
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            assert not secret.search(key) or ":?" in value, key
    assert ":?" in COMPOSE["configs"]["redis"]["content"].splitlines()[0]


def read_without(name: str) -> None:
    filled_in(COMPOSE, {key: value for key, value in SECRETS.items() if key != name})


def test_our_services_run_without_rights_and_cannot_change_their_image() -> None:
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert service["user"] == "10001:10001", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["tmpfs"] == ["/tmp"], name
        assert isinstance(service["command"], list), name


def test_nothing_is_published_but_on_the_loopback_address() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert all(COMPOSE["networks"][name]["internal"] for name in ("data", "queue", "metrics"))
    assert "data" not in SERVICES["flower"]["networks"]


def test_workers_can_be_scaled() -> None:
    for name in WORKERS:
        assert not OURS[name].keys() & {"container_name", "ports", "hostname"}, name


def test_every_variable_of_ours_is_a_setting() -> None:
    known = {f"MONGOSPLIT_{name.upper()}" for name in Settings.model_fields}
    for service in read(FILE, SECRETS).ours.values():
        ours = {name for name in service.environment if name.startswith("MONGOSPLIT_")}
        assert ours <= known
    for name in ("MONGOSPLIT_MONGO_URL", "MONGOSPLIT_DATABASE"):
        assert name not in OURS["flower"]["environment"]


def test_redis_and_mongodb_are_what_the_services_are_told() -> None:
    redis = COMPOSE["configs"]["redis"]["content"]
    assert "maxmemory-policy noeviction\n" in redis
    assert "appendonly yes\n" in redis
    command, check = SERVICES["mongodb"]["command"], SERVICES["mongodb"]["healthcheck"]["test"]
    name = command[command.index("--replSet") + 1]
    assert f'_id: "{name}", members: [{{_id: 0, host: "mongodb:27017"}}]' in check[-1]
    environment = read(FILE, SECRETS).ours["worker"].environment
    assert environment["MONGOSPLIT_MONGO_URL"] == f"mongodb://mongodb:27017/?replicaSet={name}"
    Settings(**{k.removeprefix("MONGOSPLIT_").lower(): v for k, v in environment.items()})


def test_the_image_is_built_in_two_stages_of_packages_checked_by_their_hashes() -> None:
    build, final = (instructions("FROM " + stage) for stage in DOCKERFILE.split("\nFROM ")[1:])
    installing = [text for name, text in build if name == "RUN" and "pip " in text]
    assert installing
    assert all("--require-hashes" in text or "--no-index" in text for text in installing)
    assert not any(name == "RUN" and "pip" in text for name, text in final)
    assert ("COPY", "--from=build /opt/mongosplit /opt/mongosplit") in final


def test_the_image_runs_celery_as_its_first_process_and_as_a_user_without_rights() -> None:
    final = instructions("FROM " + DOCKERFILE.split("\nFROM ")[2])
    names = [name for name, _ in final]
    assert names.index("USER") > max(names.index("RUN"), len(names) - names[::-1].index("COPY") - 1)
    assert dict(final)["USER"] == OURS["worker"]["user"] == "10001:10001"
    assert json.loads(dict(final)["CMD"]) == OURS["worker"]["command"]
    assert not {"ENTRYPOINT", "SHELL"} & set(names)


def test_every_file_that_the_image_copies_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name, text in instructions(DOCKERFILE):
        if name == "COPY" and not text.startswith("--from"):
            for source in text.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source.partition('/')[0]}" in ignored, source
    copied = {text.split()[0] for name, text in instructions(DOCKERFILE) if name == "COPY"}
    assert {"mongosplit", "worker", "producer", "ops"} <= copied


def test_every_queue_has_workers_in_every_way_to_deploy_and_no_other_is_named() -> None:
    served: dict[str, set[str]] = {}
    for where, command in every_worker_command():
        served.setdefault(where.partition(" ")[0], set()).update(queues_of(command))
        assert command[1:4] == ["-A", "worker.app", "worker"], where
        assert command[0].rpartition("/")[2] == "celery", where
    assert served == {way: set(QUEUES) for way in ("compose", "kubernetes", "systemd")}


def test_a_worker_has_longer_to_end_than_a_task_may_take() -> None:
    composed = read(FILE, SECRETS).ours
    for name in WORKERS:
        assert composed[name].grace_seconds > HARD_SECONDS, name
    for name, pod in DEPLOYMENTS.items():
        if name.startswith("worker"):
            assert pod["terminationGracePeriodSeconds"] > HARD_SECONDS, name
    for name, service in units():
        if "@" in name:
            assert int(service["TimeoutStopSec"]) > HARD_SECONDS, name


def test_a_unit_signals_its_first_process_only_and_comes_again() -> None:
    found = dict(units())
    assert len(found) == 5
    for name, service in found.items():
        assert service["KillMode"] == "mixed", name
        assert service["Restart"] == "always", name
        assert service["Type"] == "exec", name
        assert service["User"] == "mongosplit", name
        assert service["ExecStart"].startswith("/opt/mongosplit/bin/"), name
        if "@" in name:
            assert "%i@%%h" in service["ExecStart"], "two instances would have one name"
    assert found["mongosplit-producer.service"]["KillSignal"] == "SIGINT"
    assert OURS["producer"]["stop_signal"] == "SIGINT"


def test_pods_run_the_commands_of_the_compose_file_without_rights() -> None:
    assert set(DEPLOYMENTS) == set(OURS)
    for name, pod in DEPLOYMENTS.items():
        [container] = pod["containers"]
        assert container["command"] == OURS[name]["command"], name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name


def test_disruption_budgets_and_the_autoscaler_mean_deployments_that_exist() -> None:
    for _, found in MANIFESTS:
        if found["kind"] == "PodDisruptionBudget":
            labels = found["spec"]["selector"]["matchLabels"]
            assert labels["app.kubernetes.io/component"] in DEPLOYMENTS
    [scaled] = [found["spec"] for _, found in MANIFESTS if found["kind"] == "ScaledObject"]
    target = scaled["scaleTargetRef"]["name"]
    [deployed] = [f for _, f in MANIFESTS if f["kind"] == "Deployment" and named(f) == target]
    assert "replicas" not in deployed["spec"], "it would undo what the autoscaler did"
    assert scaled["minReplicaCount"] >= 1
    [trigger] = scaled["triggers"]
    assert trigger["type"] == "prometheus"
    assert "mongosplit_throttle_stopped == 0" in trigger["metadata"]["query"]
    budgets = {named(f) for _, f in MANIFESTS if f["kind"] == "PodDisruptionBudget"}
    assert budgets == {f"mongosplit-{name}" for name in WORKERS}


def named(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["name"])


def every_expression() -> Iterator[tuple[str, str]]:
    yield from (("dashboard", expression) for expression in EXPRESSIONS)
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    for file, found in MANIFESTS:
        for trigger in found["spec"].get("triggers", ()):
            yield file, trigger["metadata"]["query"]


def test_every_metric_of_dashboard_alerts_and_autoscaler_exists_with_its_labels() -> None:
    known = {
        sample: {*series.labels, *(["le"] if sample.endswith("_bucket") else [])}
        for series in SERIES
        for sample in series.samples
    }
    used = set()
    for where, expression in every_expression():
        for name, selector in re.findall(r"\b(mongosplit_\w+)(?:\{([^}]*)\})?", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector))
            labels |= grouped_by(expression) if name.endswith("_bucket") else set()
            assert name in known, f"{where}: {name}"
            assert labels <= known[name], f"{where}: {labels - known[name]}"
            used.add(name)
    unused = {series.name for series in SERIES if not used & set(series.samples)}
    assert not unused, "not on the dashboard"


def grouped_by(expression: str) -> set[str]:
    return set(re.findall(r"\w+", ",".join(re.findall(r"\bby \(([^)]*)\)", expression))))


def test_every_alert_says_what_to_do_and_where_it_is_told() -> None:
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page in ("docs/deploying.md", "docs/operating.md"), rule["alert"]
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"\W", "-", found.lower()) for found in headings}, anchor
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]


def test_every_alert_is_tested_in_trouble_and_at_rest() -> None:
    [trouble, rest] = yaml.safe_load((OPS / "prometheus" / "alerts_test.yml").read_text())["tests"]
    names = [rule["alert"] for rule in RULES]
    for tests, fires in ((trouble, True), (rest, False)):
        assert [test["alertname"] for test in tests["alert_rule_test"]] == names
        assert all(bool(test["exp_alerts"]) is fires for test in tests["alert_rule_test"])


def test_prometheus_asks_services_of_the_file_at_ports_they_have() -> None:
    config = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    assert all((OPS / "prometheus" / name).exists() for name in config["rule_files"])
    composed = read(FILE, SECRETS).ours
    asked = set()
    for job in config["scrape_configs"]:
        for name, port in every_target(job):
            assert port in composed[name].ports, name
            assert set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"])
            asked.add(name)
    assert asked == set(OURS), "somebody is not asked"


def every_target(job: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for found in job.get("static_configs", ()):
        for address in found["targets"]:
            name, _, port = address.partition(":")
            yield name, int(port)
    for found in job.get("dns_sd_configs", ()):
        yield from ((name, found["port"]) for name in found["names"])


def test_every_worker_answers_prometheus_where_it_is_asked() -> None:
    for name in WORKERS:
        service = read(FILE, SECRETS).ours[name]
        address = service.environment["MONGOSPLIT_WORKER_METRICS"]
        assert Settings(worker_metrics=address).worker_metrics_address == (
            "0.0.0.0",
            *service.ports,
        )
        [container] = DEPLOYMENTS[name]["containers"]
        assert {"name": "MONGOSPLIT_WORKER_METRICS", "value": address} in container["env"]
        assert {"name": "metrics", "containerPort": service.ports[0]} in container["ports"]
    for _, found in MANIFESTS:
        if found["kind"] == "Deployment" and "worker" in named(found):
            told = found["spec"]["template"]["metadata"]["annotations"]
            assert told == {"prometheus.io/scrape": "true", "prometheus.io/port": "9465"}
    for path in (OPS / "systemd").glob("*@.service"):
        own = path.name.removeprefix("mongosplit-").removesuffix("@.service")
        assert f"EnvironmentFile=-/etc/mongosplit/{own}-%i\n" in path.read_text()


def test_grafana_finds_the_dashboard_and_the_dashboard_its_source() -> None:
    provisioning = OPS / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    uids = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
    assert uids == {source["uid"]}
    [provider] = yaml.safe_load((provisioning / "dashboards/runs.yml").read_text())["providers"]
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    assert mounts["./ops/grafana/dashboards"] == provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/runs.json"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A:-x}", "x"),
        ("${B:-x}", "b"),
        ("$${B}", "${B}"),
        ("a ${B:?why} c", "a b c"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, value: str) -> None:
    assert filled_in([{"key": text}, 1], {"B": "b"}) == [{"key": value}, 1]


@pytest.mark.parametrize("text", ["${A:?why}", "${A}", "$A", "$"])
def test_a_variable_that_is_missing_or_has_another_form_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        filled_in(text, {"B": "b"})
