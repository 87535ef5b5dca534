"""Windows from SQLite, batch by batch."""

from __future__ import annotations

from typing import Any

import pytest

from stores.aggregate import aggregator
from stores.aggregate.buckets import Buckets
from stores.base import SeriesQuery, TooMuch
from stores.sqlite import SqliteStore
from stores.sqlite.series import SeriesReader
from tests.stores.making import MINUTE, SECOND, START, UTIL, fleet, gpu


def test_memory_holds_a_slab_at_a_time(sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(360)])
    monkeypatch.setattr(aggregator, "_READINGS_AT_ONCE", 200)
    sizes: list[int] = []
    original = SeriesReader._columns

    def counting(self: Any, *values: Any) -> Any:
        columns = original(self, *values)
        sizes.append(len(columns.times))
        return columns

    monkeypatch.setattr(SeriesReader, "_columns", counting)
    query = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + 60 * MINUTE, MINUTE), aggregate="p95", by="gpu"
    )
    found = sqlite_store.series(query)
    assert len(found) == 4
    assert sum(sizes) == 4 * 360
    assert max(sizes) <= 240


def test_a_window_that_holds_more_than_memory_should_is_refused(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(60)])
    monkeypatch.setattr(aggregator, "MOST_READINGS", 100)
    query = SeriesQuery(metric_name=UTIL, buckets=Buckets(START, START + MINUTE * 10, 60 * MINUTE), aggregate="p95")
    with pytest.raises(TooMuch, match="more than 100 readings"):
        sqlite_store.series(query)
