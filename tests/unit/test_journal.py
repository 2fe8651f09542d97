"""The application's journal: nothing that was entered is lost, and what is unknown is settled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bson
import pytest

from mongosplit import raw
from ops.load.change import REMOVED, changed
from ops.load.journal import Journal, known
from ops.load.latency import Sample, by_operation, errors, percentile, summary
from producer.leash import leashed

KEY = raw.encode(1)

ENDLESS = """
import sys
from itertools import count
from pathlib import Path
from mongosplit import raw
from ops.load.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    for number in count():
        journal.acknowledged(raw.encode(number), raw.build([("_id", raw.encode(number))]))
        print(number, flush=True)
"""


def state(n: int) -> bytes:
    return bson.encode({"_id": 1, "n": n})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def possible(file: Path) -> set[bytes | None]:
    return known(file)[KEY].possible


def test_a_writer_that_is_killed_loses_no_entry_of_which_it_has_told(file: Path) -> None:
    line = leashed([sys.executable, "-c", ENDLESS, str(file)])
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(300)]
        process.kill()
        process.wait()
    found = known(file)
    for number in range(300):
        key = raw.encode(number)
        assert found[key].possible == {raw.build([("_id", key)])}, said[-1]


def test_an_entry_cut_off_at_any_byte_is_ignored_and_gone_when_the_journal_goes_on(
    file: Path,
) -> None:
    with Journal(file) as journal:
        assert journal.is_new
        journal.acknowledged(KEY, state(1))
        whole = file.stat().st_size
        journal.acknowledged(KEY, state(2))
    written = file.read_bytes()
    for cut in range(whole, len(written)):
        file.write_bytes(written[:cut])
        assert possible(file) == {state(1)}
        with Journal(file) as again:
            assert not again.is_new
            again.intended(KEY, state(1), state(3))
        assert possible(file) == {state(1), state(3)}


def test_a_write_that_was_only_intended_leaves_both_states_possible(file: Path) -> None:
    with Journal(file) as journal:
        journal.intended(KEY, state(1), None)
        assert possible(file) == {state(1), None}
        journal.intended(KEY, state(1), state(2))
        assert possible(file) == {state(1), None, state(2)}


@pytest.mark.parametrize("how", ["read", "acknowledged"])
def test_a_later_read_or_acknowledged_write_settles_an_unknown_one(file: Path, how: str) -> None:
    with Journal(file) as journal:
        journal.acknowledged(KEY, state(1))
        journal.intended(KEY, state(1), state(2))
        assert possible(file) == {state(1), state(2)}
        getattr(journal, how)(KEY, state(1))
    assert possible(file) == {state(1)}


def test_what_changes_make_of_a_document_keeps_order_and_puts_new_fields_in_order() -> None:
    before = bson.encode({"_id": 1, "b": {"x": 1, "y": 2}, "c": 3})
    changes = {"z": 1, "b.y": REMOVED, "b.x": 9, "d.k": True, "c": None, "a": 5}
    after = {"_id": 1, "b": {"x": 9}, "c": None, "a": 5, "d": {"k": True}, "z": 1}
    assert changed(before, changes) == bson.encode(after)


def test_percentiles_are_values_that_occurred_at_their_nearest_rank() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert percentile([7.0], 0.5) == 7
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2
    found = summary([0.003, 0.001, 0.002])
    assert (found.count, found.p50, found.p99, found.most) == (3, 2.0, 3.0, 3.0)
    with pytest.raises(ValueError, match="percentile of 0 values"):
        percentile([], 0.5)


def test_a_summary_for_each_operation_counts_failed_ones_too() -> None:
    samples = [Sample("login", 0.0, 0.001), Sample("login", 1.0, 0.003, "AutoReconnect")]
    found = by_operation([*samples, Sample("delete", 2.0, 0.002)])
    assert {name: one.count for name, one in found.items()} == {"login": 2, "delete": 1}
    assert errors(samples) == {"AutoReconnect": 1}
