"""Answering Prometheus: the ledger is read at each scrape, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pymongo import DESCENDING
from pymongo.errors import PyMongoError

from mongosplit import series
from mongosplit.errors import Failed
from mongosplit.ledger.book import Ledger
from producer.metrics import SERIES, see


class Runs(Collector):
    """Reads the ledger at each scrape: every unfinished run, and the newest one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All series of all runs; nothing but that it is away while the ledger does not answer."""
        try:
            seen = [see(self._ledger, run) for run in self._runs()]
            told = [reading.family(seen) for reading in SERIES]
        except PyMongoError:
            yield _up(0.0)
            return
        yield _up(1.0)
        yield from told

    def _runs(self) -> list[str]:
        rows, ids = self._ledger["runs"], {"_id": 1}
        newest = rows.find({}, ids).sort("created", DESCENDING).limit(1)
        return sorted({row["_id"] for row in (*rows.find({"unfinished": True}, ids), *newest)})


def _up(value: float) -> GaugeMetricFamily:
    [entry] = [entry for entry in series.SERIES if entry.name == "ledger_up"]
    return GaugeMetricFamily(entry.full_name, entry.meaning, value)


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
