"""Counting a bucket without making anybody wait."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from stores.base import StoreUnavailable
from stores.influxdb import InfluxStore, counts
from stores.influxdb.counts import Counter, Counts
from stores.influxdb.reader import Reader
from tests.stores.making import START, gpu, one


def test_a_count_that_takes_long_goes_on_without_its_asker(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx_store.write([one(gpu(), START, U=1.0)])
    counter = Counter(influx_store._connection)
    assert counter.counts(1) == Counts(1, 1, 0)
    influx_store.write([one(gpu(), START + 1, U=1.0)])
    may_go_on, original = threading.Event(), Reader.counts

    def slow(self: Reader, *values: Any) -> Any:
        may_go_on.wait(30)
        return original(self, *values)

    monkeypatch.setattr(Reader, "counts", slow)
    monkeypatch.setattr(counts, "_PATIENCE", 0.01)
    assert Counter(influx_store._connection).counts(1) is None
    assert counter.counts(2) == Counts(1, 1, 0)
    run = counter._running
    assert counter.counts(2) == Counts(1, 1, 0)
    assert counter._running is run  # one at a time
    may_go_on.set()
    assert run is not None
    assert run.done.wait(30)
    monkeypatch.setattr(counts, "_PATIENCE", 30.0)
    assert counter.counts(2) == Counts(2, 1, 0)


def test_a_count_is_good_for_a_multiple_of_its_cost_or_until_the_next_write(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_WORTH_KEEPING", 0.0)
    monkeypatch.setattr(counts, "_GOOD_FOR", 1e6)
    influx_store.write([one(gpu(), START, U=1.0)])
    assert influx_store.stats().readings == 1
    other = InfluxStore(influx_store.config)
    other.write([one(gpu(1), START, U=1.0)])
    assert influx_store.stats().readings == 1
    influx_store.write([one(gpu(2), START, U=1.0)])
    assert influx_store.stats().readings == 3
    other.close()


def test_an_error_is_the_askers(influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Reader, *values: Any) -> Any:
        raise StoreUnavailable("away")

    influx_store.ping()
    monkeypatch.setattr(Reader, "counts", fail)
    with pytest.raises(StoreUnavailable, match="away"):
        Counter(influx_store._connection).counts(0)
