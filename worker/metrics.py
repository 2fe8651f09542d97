"""What a worker tells Prometheus: counts of all its processes, in files that they share.

Each process counts in files of its own, named for its place in the pool and not for its process
number: whoever takes the place of a process that has ended goes on with its numbers. So no count is
lost or goes down when Celery replaces a process, and there are never more files than places. The
main process adds them up at each scrape. Moving data outranks counting: what goes wrong here is
logged, and the work goes on.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from celery import Task, signals
from celery.exceptions import Retry
from celery.utils.log import current_process_index
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server, values
from prometheus_client.multiprocess import MultiProcessCollector

from mongosplit import errors
from mongosplit.errors import MongosplitError, TransientError
from mongosplit.ledger.claims import Attempt
from mongosplit.model import Outcome
from mongosplit.open_run import OpenRun
from mongosplit.rate_limit import Waited
from mongosplit.series import By, Kind, exposed_by
from mongosplit.settings import tell_library
from worker import guard, place
from worker.guard import Duty

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
DONE = ("migrated", "verified", "compared", "rolled back", "synced")
"""The outcomes whose documents were done; others found nothing to do, or were held."""


@dataclass
class _Telling:
    """What the main process made before its pool: the series, and how it answers, once it does."""

    folder: str
    address: tuple[str, int]
    counters: dict[str, Counter]
    chunk_seconds: Histogram
    process: int
    answer: Any = None


_telling: list[_Telling] = []
"""Empty where the setting is: then nothing is counted and nothing listens."""


@signals.celeryd_after_setup.connect
def _begin(**_: Any) -> None:
    # Before the pool: its processes are forks of this one and find the series made.
    address = place.settings().worker_metrics_address
    if address is None:
        return
    try:
        folder = tempfile.mkdtemp(prefix="mongosplit-metrics-")
    except OSError as error:
        log.error("nothing is told to Prometheus: no folder for its numbers: %s", error.strerror)
        return
    tell_library(FOLDER_VARIABLE, folder)
    values.ValueClass = values.MultiProcessValue(_place_in_pool)  # type: ignore[no-untyped-call]
    counters, seconds = _made()
    _telling.append(_Telling(folder, address, counters, seconds, os.getpid()))
    atexit.register(_end, _telling[0])


def _place_in_pool() -> str:
    # None in the main process, where the pools `solo` and `threads` do their work.
    index = current_process_index()
    return "main" if index is None else str(index)


def _made() -> tuple[dict[str, Counter], Histogram]:
    told = exposed_by(By.WORKER)
    counters = {
        series.name: Counter(series.full_name, series.meaning, series.labels, registry=None)
        for series in told
        if series.kind is Kind.COUNTER
    }
    [series] = [series for series in told if series.kind is Kind.HISTOGRAM]
    seconds = Histogram(
        series.full_name, series.meaning, series.labels, buckets=series.buckets, registry=None
    )
    return counters, seconds


@signals.worker_ready.connect
def _answer(**_: Any) -> None:
    for telling in _telling:
        host, port = telling.address
        registry = CollectorRegistry(auto_describe=False)
        MultiProcessCollector(registry, path=telling.folder)  # type: ignore[no-untyped-call]
        try:
            telling.answer = start_http_server(port, host, registry)
        except OSError as error:
            why = (error.strerror or "unknown").lower()
            log.error(
                "Prometheus is not answered at %s:%d: %s; the worker works on without",
                *telling.address,
                why,
            )


@signals.worker_process_init.connect
def _leave_the_port(**_: Any) -> None:
    """A process that is forked later must not keep the port when the main process is gone."""
    for telling in _telling:
        if telling.answer is not None and telling.process != os.getpid():
            telling.answer[0].socket.close()


def _end(telling: _Telling) -> None:
    if telling.process != os.getpid():
        return
    if telling.answer is not None:
        server, thread = telling.answer
        server.shutdown()
        thread.join()
        server.server_close()
    shutil.rmtree(telling.folder, ignore_errors=True)


def carry_out(task: Task, duty: Duty) -> dict[str, Any]:
    """As the guard does it, and what it comes to is counted."""
    if not _telling:
        return guard.carry_out(task, duty)
    try:
        return guard.carry_out(task, _counted(duty))
    except Retry as again:
        # The guard asks for the retry while it handles the error, so that is its context.
        _add("retries", duty.run, duty.kind, class_of(again.__context__))
        raise


def synced(message: dict[str, Any]) -> dict[str, Any]:
    """Count the message of a sync, which is returned as it is."""
    if _telling:
        run, did = str(message["run"]), str(message["did"])
        _add("sync_batches", run, did)
        if did in DONE:
            _add("worker_documents", run, "sync", amount=message.get("docs", 0))
    return message


def _counted(duty: Duty) -> Duty:
    """The duty with its work, its wait and its end counted."""

    def work(at: OpenRun, attempt: Attempt) -> Outcome:
        begun, did, docs = time.perf_counter(), "error", 0
        try:
            outcome = duty.work(at, attempt)
            did, docs = outcome.did, outcome.docs if outcome.did in DONE else 0
        finally:
            _observe(time.perf_counter() - begun, duty.run, duty.kind, did)
        _add("worker_documents", duty.run, duty.kind, amount=docs)
        return outcome

    def admit(at: OpenRun) -> Waited:
        waited = duty.admit(at) if duty.admit else Waited(granted=True, seconds=0.0)
        _add("permit_wait_seconds", duty.run, duty.kind, amount=waited.seconds)
        return waited

    def give_up(ledger: Any, error: dict[str, str], actor: str) -> object:
        _add("failures", duty.run, duty.kind, error["class"])
        return duty.give_up(ledger, error, actor)

    return replace(duty, work=work, admit=admit if duty.admit else None, give_up=give_up)


def class_of(error: BaseException | None) -> str:
    """The class by who acts next: the nearest one that `mongosplit.errors` knows."""
    for found in type(error).__mro__:
        if found.__module__ == errors.__name__ and issubclass(found, MongosplitError):
            return found.__name__
    # What is repeated and is no error of ours is a chunk that took too long.
    return TransientError.__name__


def _add(name: str, *labels: str, amount: float = 1) -> None:
    with _harmless():
        _telling[0].counters[name].labels(*labels).inc(amount)


def _observe(seconds: float, *labels: str) -> None:
    with _harmless():
        _telling[0].chunk_seconds.labels(*labels).observe(seconds)


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        log.error("a count for Prometheus is lost: %s", type(error).__name__)
