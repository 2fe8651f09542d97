"""How parts are cut into inserts: by bytes, by time, never lost and never out of order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mongosplit.sub_batches import FEWEST, MOST_BYTES, SubBatches


class Server:
    """Takes so many seconds for each document, on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0
        self.batches: list[list[bytes]] = []

    def __call__(self, batch: Sequence[bytes]) -> None:
        self.batches.append(list(batch))
        self.now += self.seconds * len(batch)


def inserted(server: Server, documents: list[bytes], *, times: int = 1) -> int:
    batches = SubBatches(0.25, clock=lambda: server.now)
    return sum(batches.insert(documents, server) for _ in range(times))


@given(st.lists(st.binary(max_size=40), max_size=400), st.floats(0, 0.1))
def test_every_document_goes_once_and_in_order(documents: list[bytes], seconds: float) -> None:
    server = Server(seconds)
    assert inserted(server, documents) == len(server.batches)
    assert [document for batch in server.batches for document in batch] == documents
    assert all(server.batches)


def test_a_quick_server_gets_everything_at_once() -> None:
    server = Server(0.00002)
    assert inserted(server, [b"x"] * 1000, times=3) == 3


def test_a_slow_server_gets_as_much_as_fits_the_target() -> None:
    server = Server(0.001)
    inserted(server, [b"x"] * 1000, times=2)
    first, *later = map(len, server.batches)
    assert first == 1000  # nothing was known yet
    assert set(later) == {250}


def test_a_crawling_server_gets_no_fewer_than_are_worth_a_round_trip() -> None:
    server = Server(1.0)
    inserted(server, [b"x"] * 200, times=2)
    assert [len(batch) for batch in server.batches] == [200, *[FEWEST] * 4]


def test_large_documents_are_cut_by_bytes_and_one_goes_alone() -> None:
    large = MOST_BYTES // 3
    server = Server(0.0)
    inserted(server, [b"x" * large] * 7 + [b"x" * (2 * MOST_BYTES)])
    assert [len(batch) for batch in server.batches] == [3, 3, 1, 1]
