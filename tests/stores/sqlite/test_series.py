"""Windows from SQLite, batch by batch."""

from __future__ import annotations

from typing import Any

import pytest

from stores.aggregate.buckets import Buckets
from stores.base import SeriesQuery
from stores.sqlite import SqliteStore
from stores.sqlite.arrays import SqliteArrayReader
from tests.stores.aggregate.test_aggregator import small_memory
from tests.stores.making import MINUTE, SECOND, START, UTIL, fleet, gpu


def sizes_of_parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many readings each part has that is read from now on."""
    sizes: list[int] = []
    original = SqliteArrayReader.read

    def counting(self: Any, *values: Any) -> Any:
        columns = original(self, *values)
        sizes.append(len(columns.times))
        return columns

    monkeypatch.setattr(SqliteArrayReader, "read", counting)
    return sizes


def test_memory_holds_a_slab_at_a_time(sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(360)])
    small_memory(monkeypatch, readings=200)
    sizes = sizes_of_parts(monkeypatch)
    query = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + 60 * MINUTE, MINUTE), aggregate="p95", by="gpu"
    )
    found = sqlite_store.series(query)
    assert len(found) == 4
    assert sum(sizes) == 4 * 360
    assert max(sizes) <= 200


def test_a_window_that_holds_more_than_memory_should_is_read_in_parts(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(60)])
    query = SeriesQuery(metric_name=UTIL, buckets=Buckets(START, START + MINUTE * 10, 60 * MINUTE), aggregate="p95")
    answer = sqlite_store.series(query)
    sizes = sizes_of_parts(monkeypatch)
    small_memory(monkeypatch, readings=100)
    assert sqlite_store.series(query) == answer
    assert max(sizes) <= 100
