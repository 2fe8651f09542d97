"""Answering Prometheus: the ledger is read at each scrape, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pymongo import DESCENDING
from pymongo.errors import PyMongoError

from mongosplit.errors import Failed
from mongosplit.ledger import paces, runs
from mongosplit.ledger.book import Ledger, now
from producer.metrics import SERIES, Seen


class Runs(Collector):
    """Reads the ledger at each scrape: every unfinished run, and the newest one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All series of all runs; nothing but that it is away while the ledger does not answer."""
        try:
            seen = [self._see(run) for run in self._runs()]
            told = [series.family(seen) for series in SERIES]
        except PyMongoError:
            yield _up(0.0)
            return
        yield _up(1.0)
        yield from told

    def _runs(self) -> list[str]:
        rows, ids = self._ledger["runs"], {"_id": 1}
        newest = rows.find({}, ids).sort("created", DESCENDING).limit(1)
        return sorted({row["_id"] for row in (*rows.find({"unfinished": True}, ids), *newest)})

    def _see(self, run: str) -> Seen:
        found = runs.get(self._ledger, run)
        return Seen(self._ledger, found, paces.pulse(self._ledger, run), now())


def _up(value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "mongosplit_ledger_up", "1 when the ledger answered this scrape, 0 when not", value
    )


@contextmanager
def served(ledger: Ledger, address: tuple[str, int] | None) -> Iterator[None]:
    """Answer Prometheus at this address meanwhile; None: nowhere.

    Raises:
        Failed: nothing can listen there.
    """
    if address is None:
        yield
        return
    host, port = address
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Runs(ledger))  # which does not read the ledger yet
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise Failed(
            f"metrics cannot be served at {host}:{port}: {(error.strerror or 'unknown').lower()}",
            hint="give --metrics another host:port, or leave it out",
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
