"""The benchmark: all its cells move the same bytes, and what it reports is what it measured."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import bson
import pytest
from click.testing import CliRunner

from mongosplit import reference
from mongosplit.errors import Failed
from mongosplit.open_run import OpenRun
from mongosplit.users import migration
from ops import seed
from ops.bench import jobs, stage
from ops.bench.command import main
from ops.bench.result import Goal, Result
from ops.bench.sections import SECTIONS
from ops.bench.stage import Cell, Sample, Stage
from ops.bench.workers import Share, Work
from ops.embedded import EmbeddedServers

USERS = 600


@pytest.fixture
def small(servers: EmbeddedServers) -> Iterator[Stage]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with stage.open_client(servers.mongo_url) as client:
        settings = stage.settings(servers.mongo_url, servers.redis_url, database=name, chunk=10)
        made = Stage(client, settings, rounds=1, patience=0)
        made.fill(20)
        yield made
        client.drop_database(settings.database)
        client.drop_database(settings.ledger_database)


def expected() -> dict[str, str]:
    """The md5 of each target, by the Python reference."""
    made = {target.collection: hashlib.md5() for target in migration.targets}
    for user in sorted(seed.users(USERS), key=lambda user: user["_id"]):
        for key, part in reference.split(migration, bson.encode(user)).items():
            made[migration.keys[key].collection].update(part)
    return {name: digest.hexdigest() for name, digest in made.items()}


def damaged(at: OpenRun, share: Share) -> Work:
    """Moves everything, and changes one value on the way."""
    work = jobs.plain_dicts(at, share)

    def damage() -> int:
        users = work()
        at.data.base_users.update_one({"isAdmin": False}, {"$set": {"isAdmin": 0}})
        return users

    return damage


def dying(at: OpenRun, share: Share) -> Work:
    """One of two workers dies in the middle of its work."""

    def work() -> int:
        if share.number:
            raise SystemExit(3)
        return 0

    return work


def _documents(targets: dict[str, str]) -> dict[str, str]:
    """The hashes of the targets that hold anything."""
    nothing = hashlib.md5(usedforsecurity=False).hexdigest()
    return {name: value for name, value in targets.items() if value != nothing}


def test_every_cell_leaves_the_bytes_of_the_reference_in_the_targets(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    options = ["--users", str(USERS), "--chunk", "200", "--rounds", "1", "--patience", "0"]
    # The reaction takes three nodes and a hold of ten seconds, and leaves nothing to compare.
    names = [name for name in SECTIONS if name != "reaction"]
    line = [*names, *options, "--json", str(file)]
    done = CliRunner().invoke(main, line, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert list(found["sections"]) == names
    bytes_expected = expected()
    pause = found["sections"].pop("pause")
    assert (len(pause["seconds"]), "from pause to quiet" in done.output) == (1, True)
    assert all(0.5 < one["ratio"] < 1.5 for one in found["sections"].pop("limiter")["kept"])
    assert len(found["sections"].pop("latency")["felt"]) == 3
    assert len(found["sections"].pop("compat")["reads"]) == 8
    for section in found["sections"].values():
        for cell in section["cells"]:
            left = {} if cell["name"] == "rollback x2" else bytes_expected
            assert [_documents(sample["targets"]) for sample in cell["samples"]] == [left]
            assert all(sample["users"] % USERS == 0 for sample in cell["samples"])
            assert cell["name"] in done.output
        assert all(goal["sentence"] in done.output for goal in section["goals"])
    assert found["command"] in done.output


def test_a_cell_that_leaves_other_bytes_stops_the_benchmark(small: Stage) -> None:
    small.measure([[Cell("good", jobs.plain_dicts, 1)]])
    with pytest.raises(Failed, match="cell damaged left other bytes"):
        small.measure([[Cell("damaged", damaged, 1)]])


def test_a_worker_that_dies_ends_the_benchmark_with_a_sentence(small: Stage) -> None:
    with pytest.raises(Failed, match="a worker of the benchmark died"):
        small.measure([[Cell("dying", dying, 2)]])


@pytest.mark.parametrize(("patience", "measured"), [(0, 1), (1000, 3)])
def test_a_cell_beside_other_work_is_measured_again_while_patience_lasts(
    small: Stage, monkeypatch: pytest.MonkeyPatch, patience: float, measured: int
) -> None:
    monkeypatch.setattr(stage, "QUIET", -1.0)
    calls: list[int] = []
    small.patience, small.on_sample = patience, lambda: calls.append(1)
    samples = small.measure([[Cell("good", jobs.plain_dicts, 1)]])
    assert len(calls) == measured
    assert len(samples["good"]) == 1


def test_ratios_are_taken_within_a_round_and_not_of_medians() -> None:
    def samples(*seconds: float) -> list[Sample]:
        return [Sample(100, s, mongod=s, clients=s, foreign=None, targets={}) for s in seconds]

    result = Result("", {"one": samples(1, 4, 100), "other": samples(2, 2, 300)}, to=("other",))
    assert result.ratio("one", "other") == 2
    assert result.cpu_ratio("one", "other") == 2
    assert result.cpu("one", lambda sample: sample.mongod) == pytest.approx(40_000)


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("", "fast", "slow", least=2), True),
        (Goal("", "fast", "slow", least=2.1), False),
        (Goal("", "slow", "fast", most=0.5), True),
        (Goal("", "slow", "fast", most=0.4), False),
    ],
)
def test_a_goal_is_met_at_its_bound_and_not_beyond(goal: Goal, met: bool) -> None:
    def sample(seconds: float) -> list[Sample]:
        return [Sample(100, seconds, None, 0.0, None, {})]

    result = Result("", {"fast": sample(1), "slow": sample(2)}, to=(), goals=(goal,))
    assert result.to_document()["goals"][0]["met"] is met
