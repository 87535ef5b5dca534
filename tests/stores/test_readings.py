"""The contract of readings(): all readings of one metric as arrays, in parts. Runs on each of conftest.STORES."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from readings.model import Gpu
from stores.aggregate.limits import READINGS_IN_A_PART, PartTooLarge, check_count
from stores.aggregate.passes import slices
from stores.base import Store, StoreError
from tests.stores.making import MINUTE, SECOND, START, TEMP, UTIL, ask, fleet, gpu, one

Row = tuple[str, str, str, int, float]  # GPU, host, model, time, value
# Where SQLite begins a block.
EDGE = START // (5 * MINUTE) * 5 * MINUTE


@pytest.fixture(params=[READINGS_IN_A_PART, 7])
def most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many readings a part may have."""
    for module in ("memory", "sqlite.arrays", "influxdb.arrays"):
        monkeypatch.setattr(f"stores.{module}.READINGS_IN_A_PART", request.param)
    return int(request.param)


def parts(store: Store, start_ns: int, end_ns: int, metric: str = UTIL, **asked: Any) -> list[list[Row]]:
    """The rows of each part, in order."""
    found = []
    for part in store.readings(metric, start_ns, end_ns, **asked):
        sources = [part.sources[place] for place in part.places.tolist()]
        columns = zip(sources, part.times.tolist(), part.values.tolist(), strict=True)
        found.append(sorted((each.gpu, each.hostname, each.model, time, value) for each, time, value in columns))
    return found


def all_rows(store: Store, start_ns: int, end_ns: int, metric: str = UTIL, **asked: Any) -> list[Row]:
    return sorted(row for part in parts(store, start_ns, end_ns, metric, **asked) for row in part)


def paged(store: Store, start_ns: int, end_ns: int, metric: str = UTIL, **asked: Any) -> list[Row]:
    """The same from page()."""
    found = ask(store, metric_names=(metric,), start_ns=start_ns, end_ns=end_ns, limit=10_000, **asked)
    return sorted((row.gpu, row.hostname, row.model_name, row.time_ns, row.value) for row in found)


def filled(store: Store) -> list[Gpu]:
    gpus = [gpu(number) for number in range(4)] + [gpu(3, mig_id="1"), gpu(3, mig_id="2")]
    store.write([fleet(gpus, EDGE + step * 20 * SECOND) for step in range(40)])
    return gpus


def test_they_are_all_the_readings_of_the_range(store: Store, most: int) -> None:
    filled(store)
    for start, end in ((EDGE, EDGE + 15 * MINUTE), (EDGE + 20 * SECOND, EDGE + 5 * MINUTE), (EDGE, EDGE + 1)):
        for metric in (UTIL, TEMP):
            found = all_rows(store, start, end, metric)
            assert found
            assert found == paged(store, start, end, metric)


def test_parts_are_in_order_of_time_and_bounded(store: Store, most: int) -> None:
    gpus = filled(store)
    found = [part for part in parts(store, 0, EDGE + 60 * MINUTE) if part]
    assert sum(map(len, found)) == 40 * len(gpus)
    assert all(len(part) <= max(most, len(gpus)) for part in found)
    spans = [(min(row[3] for row in part), max(row[3] for row in part)) for part in found]
    assert all(last < first for (_, last), (first, _) in pairwise(spans))
    assert most > 40 * len(gpus) or len(spans) == 40


def test_gpus_are_named_by_their_ids(store: Store, most: int) -> None:
    filled(store)
    for asked in (("GPU-0003",), ("GPU-0003:2", "GPU-0000"), ["GPU-0001", "nobody"], {"\ud800"}):
        found = all_rows(store, EDGE, EDGE + 15 * MINUTE, gpus=asked)
        assert {row[0] for row in found} == set(asked) - {"nobody", "\ud800"}
        assert found == paged(store, EDGE, EDGE + 15 * MINUTE, gpus=tuple(asked))


def test_more_gpus_than_influxdb_finds_by_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.influxdb.arrays.MOST_NAMED", 1)
    filled(store)
    found = all_rows(store, EDGE, EDGE + MINUTE, gpus=("GPU-0003:2", "GPU-0000"))
    assert found == paged(store, EDGE, EDGE + MINUTE, gpus=("GPU-0003:2", "GPU-0000"))
    assert found


def test_shares_and_nulls_are_no_readings(store: Store) -> None:
    share = gpu(0, share=True, pod="train", namespace="ml")
    store.write([one(gpu(0), START, U=None, T=1.0), one(share, START, U=5.0), one(gpu(0), START + 1, U=2.0)])
    assert [row[-1] for row in all_rows(store, START, START + 2, "U")] == [2.0]
    store.write([one(gpu(0), START, U=3.0)])
    assert [row[-1] for row in all_rows(store, START, START + 2, "U")] == [3.0, 2.0]


def test_a_gpu_that_moved_has_two_sources(store: Store) -> None:
    store.write([one(gpu(0, hostname="a"), START, U=1.0), one(gpu(0, hostname="b"), START + 1, U=2.0)])
    assert [(row[1], row[-1]) for row in all_rows(store, START, START + 2, "U")] == [("a", 1.0), ("b", 2.0)]


def test_a_reading_that_a_store_holds_twice_comes_once(store: Store) -> None:
    store.write([one(gpu(0, hostname="a"), START, U=1.0)])
    store.write([one(gpu(0, hostname="b"), START, U=2.0)])
    assert [row[-1] for row in all_rows(store, START, START + 1, "U")] == [2.0]
    if not store.expires_by_itself:
        return
    hosts = [("GPU-0000", "a", START, None)]
    assert [row[-1] for row in all_rows(store, START, START + 1, "U", hosts=lambda *asked: hosts)] == [1.0]


def test_where_there_is_nothing_there_are_no_readings(store: Store) -> None:
    assert all_rows(store, 0, START) == []
    store.write([one(gpu(0), START, U=1.0)])
    for metric, start, end in (("other", 0, START + 1), ("", 0, START + 1), ("U", 0, START), ("U", START + 1, 1 << 62)):
        assert all_rows(store, start, end, metric) == []
    assert all_rows(store, START, START, "U") == []
    assert len(all_rows(store, -(1 << 62), 1 << 62, "U")) == 1


def test_a_store_that_is_closed_says_so(local_store: Store) -> None:
    local_store.close()
    with pytest.raises(StoreError):
        list(local_store.readings(UTIL, 0, START))


def read_from(times: list[int], most: int, asked: list[tuple[int, int]]) -> Callable[[int, int, bool], list[int]]:
    def read(start: int, end: int, of_any_size: bool) -> list[int]:
        asked.append((start, end))
        found = [time for time in times if start <= time < end]
        if not of_any_size:
            check_count(len(found), most)
        return found

    return read


@pytest.mark.parametrize("length", [0, 1, 3, 1000])
def test_slices_cover_a_range_in_parts_that_fit(length: int) -> None:
    times = [0, 0, 0, 0, 5, 6, 7, 8, 9, 90, 91, 91]
    found = list(slices(0, 100, length, read_from(times, 2, []), len, 2))
    assert [time for part in found for time in part] == times
    assert max(len(part) for part in found if part != [0, 0, 0, 0]) <= 2


def test_slices_end_at_blocks_where_they_can() -> None:
    asked: list[tuple[int, int]] = []
    assert len(list(slices(3, 80, 12, read_from(list(range(80)), 20, asked), len, 20, block_ns=10))) > 4
    assert asked[0] == (3, 10)
    assert all(start % 10 == 0 for start, _ in asked[1:])


def test_a_part_that_is_too_large_is_read_again_in_smaller_ones() -> None:
    asked: list[tuple[int, int]] = []
    assert next(slices(0, 8, 8, read_from([1, 2, 3], 1, asked), len, 1)) == [1]
    assert asked[:2] == [(0, 8), (0, 2)]
    with pytest.raises(PartTooLarge):
        check_count(2, 1)
