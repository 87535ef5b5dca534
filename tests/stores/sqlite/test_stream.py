"""Streaming from SQLite: in pieces of bounded size, whatever lies how densely, and without holding anybody up."""

from __future__ import annotations

import pytest

from stores.base import ReadingsQuery
from stores.sqlite import SqliteStore
from tests.stores.making import MINUTE, SECOND, START, TEMP, UTIL, ask, fleet, gpu, rows, several


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few rows."""
    monkeypatch.setattr("stores.sqlite.reader.ROWS_AT_ONCE", 50)
    monkeypatch.setattr("stores.sqlite.reader.READ_AT_ONCE", 200)


@pytest.mark.parametrize("newest_first", [True, False])
def test_no_portion_is_large(sqlite_store: SqliteStore, small: None, newest_first: bool) -> None:
    # A dense minute, sparse ones, and one series far denser than the others.
    sqlite_store.write([fleet([gpu(n) for n in range(20)], START + second * SECOND) for second in range(30)])
    sqlite_store.write([fleet([gpu(1)], START + minute * MINUTE) for minute in range(2, 40)])
    sqlite_store.write([several(gpu(3), [(START + 50 * MINUTE + ms * 1_000_000, 1.0) for ms in range(3000)])])
    for query in ({}, {"gpus": ("GPU-0003",)}, {"metric_names": (TEMP,)}, {"hostnames": ("host-000",)}):
        asked = ReadingsQuery(limit=None, newest_first=newest_first, **query)  # type: ignore[arg-type]
        portions = list(sqlite_store.stream(asked))
        assert max(map(len, portions)) <= 100
        assert [row for each in portions for row in rows(each)] == ask(
            sqlite_store, limit=100_000, newest_first=newest_first, **query
        )


def test_no_transaction_is_held_between_portions(sqlite_store: SqliteStore, small: None) -> None:
    sqlite_store.write([fleet([gpu(n) for n in range(40)], START + minute * MINUTE) for minute in range(5)])
    stream = sqlite_store.stream(ReadingsQuery(limit=None))
    next(stream)
    assert not sqlite_store.file._readers._busy
    # Oldest first it would run for ever after what is written meanwhile.
    oldest_first = sqlite_store.stream(ReadingsQuery(limit=None, newest_first=False))
    count = len(next(oldest_first))
    sqlite_store.write([several(gpu(), [(START + 10 * MINUTE, 1.0)], UTIL)])
    assert count + sum(map(len, oldest_first)) == 400
