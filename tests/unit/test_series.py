"""The table of series: names that Prometheus takes, and one who exposes each."""

from __future__ import annotations

import re

from mongosplit import errors
from mongosplit.errors import MongosplitError, TransientError
from mongosplit.series import SERIES, By, Kind, exposed_by, table
from producer import metrics as of_producer
from worker import metrics as of_worker
from worker.app import HARD_SECONDS
from worker.guard import NoPermit


def test_every_series_has_a_name_of_its_own_that_prometheus_takes_and_says_what_it_means() -> None:
    assert len({series.name for series in SERIES}) == len(SERIES)
    for series in SERIES:
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", series.name), series.name
        assert not series.name.endswith(("_total", "_count", "_sum", "_bucket")), series.name
        assert len(series.meaning) > 20, series.name
        assert not series.meaning.endswith("."), series.name


def test_no_label_grows_with_the_collection() -> None:
    few = {"run", "state", "origin", "set_by", "held_back_by", "signal", "collection"}
    few |= {"work", "outcome", "error"}
    for series in SERIES:
        assert set(series.labels) <= few, series.name
        assert series.labels[:1] == (() if series.name == "ledger_up" else ("run",))


def test_every_series_is_told_by_exactly_one() -> None:
    assert {*exposed_by(By.PRODUCER), *exposed_by(By.WORKER)} == set(SERIES)
    read = {reading.name for reading in of_producer.SERIES}
    assert read == {series.name for series in exposed_by(By.PRODUCER) if series.labels}
    assert all(series.kind is Kind.GAUGE for series in exposed_by(By.PRODUCER))
    # A gauge of one of several processes would be nobody's number.
    assert all(series.kind is not Kind.GAUGE for series in exposed_by(By.WORKER))


def test_the_buckets_rise_up_to_what_a_task_may_take() -> None:
    for series in SERIES:
        assert bool(series.buckets) is (series.kind is Kind.HISTOGRAM)
        assert list(series.buckets) == sorted(set(series.buckets))
        assert not series.buckets or series.buckets[-1] == HARD_SECONDS


def test_the_samples_are_named_as_prometheus_stores_them() -> None:
    found = {series.name: series.samples for series in SERIES}
    assert found["chunks"] == ("mongosplit_chunks",)
    assert found["retries"] == ("mongosplit_retries_total",)
    assert found["chunk_seconds"] == tuple(
        f"mongosplit_chunk_seconds_{end}" for end in ("bucket", "sum", "count")
    )


def test_the_page_names_every_series_once() -> None:
    page = table()
    for series in SERIES:
        assert page.count(f"| `{series.full_name}` |") == 1


def test_an_error_is_counted_under_a_class_that_says_who_acts_next() -> None:
    for cls in (errors.Failed, errors.FenceBusy, errors.DefinitionChanged, TransientError):
        assert of_worker.class_of(cls("why")) == cls.__name__
    assert of_worker.class_of(NoPermit("why")) == "Waiting"
    assert of_worker.class_of(TimeoutError()) == "TransientError"
    assert of_worker.class_of(None) == "TransientError"
    assert issubclass(getattr(errors, of_worker.class_of(NoPermit("why"))), MongosplitError)
