"""The contract: what every store does. Runs on each of conftest.STORES."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from readings.mig import MEMORY_USED
from readings.model import Gpu, Point, PointBlock
from stores.aggregate.buckets import Buckets
from stores.base import Aggregate, By, PodAssignment, Position, ReadingsQuery, SeriesQuery, Store, StoreError
from tests.stores.making import (
    MINUTE,
    SECOND,
    START,
    TEMP,
    UTIL,
    Row,
    ask,
    fleet,
    gpu,
    held,
    keys,
    one,
    rows,
    several,
    values,
)  # fmt: skip


class TestEveryStore:
    def test_a_reading_comes_back_as_it_was_written(self, store: Store) -> None:
        of = gpu(13, container="train", pod="job-1", namespace="ml")
        assert store.write([one(of, START, U=66.781)]).written == 1
        assert ask(store) == [
            Row(
                START, "U", 66.781, "GPU-0013", "", 5, "nvidia5", "NVIDIA H100 80GB HBM3",
                "host-001", "train", "job-1", "ml",
            )
        ]  # fmt: skip

    def test_an_empty_store_answers_everything(self, store: Store) -> None:
        assert ask(store) == []
        assert ask(store, gpus=("GPU-0000",), hostnames=("host-000",), after=Position(START, "", "")) == []
        assert store.metric_names() == []
        assert store.metric_names("GPU-0000") == []
        assert held(store) == (0, 0, None, None)
        assert store.stats().shares in {0, None}
        assert store.apply_retention(START) == 0
        store.ping()

    def test_writing_nothing_is_fine(self, store: Store) -> None:
        assert store.write([]).written == 0
        assert store.write([PointBlock([], [], []), PointBlock([gpu()], [UTIL], [])]).written == 0
        assert held(store).series == 0

    def test_newest_first_then_gpu_then_metric_name(self, store: Store) -> None:
        # Written in an order that no index would give back: names are interned in the wrong order too.
        store.write([fleet([gpu(2), gpu(1)], START, ["b", "a"]), fleet([gpu(1), gpu(2)], START + 1, ["b", "a"])])
        expected = [
            (time, name, metric) for time in (START + 1, START) for name in ("GPU-0001", "GPU-0002") for metric in "ab"
        ]
        assert keys(ask(store)) == expected

    def test_oldest_first_turns_only_the_times_round(self, store: Store) -> None:
        store.write([fleet([gpu(2), gpu(1)], START, ["b", "a"]), fleet([gpu(1), gpu(2)], START + 1, ["b", "a"])])
        expected = [
            (time, name, metric) for time in (START, START + 1) for name in ("GPU-0001", "GPU-0002") for metric in "ab"
        ]
        assert keys(ask(store, newest_first=False)) == expected

    def test_names_are_ordered_by_code_point(self, store: Store) -> None:
        names = ["Z", "a", "ä", "z", "😀", "_", "\uffff", ""]
        store.write([PointBlock([gpu()], names, [(0, START, [1.0] * len(names))])])
        assert [row.metric_name for row in ask(store)] == sorted(names)

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("step", [1, 3, 7, 1000])
    def test_pages_by_offset_cover_every_row_once(self, store: Store, newest_first: bool, step: int) -> None:
        _write_uneven_fleet(store)
        whole = ask(store, limit=10_000, newest_first=newest_first)
        assert len(whole) == held(store).readings
        pages = _pages_by_offset(store, step, newest_first=newest_first)
        assert keys(pages) == keys(whole)

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("step", [1, 3, 7, 1000])
    def test_pages_by_cursor_cover_every_row_once(self, store: Store, newest_first: bool, step: int) -> None:
        _write_uneven_fleet(store)
        whole = ask(store, limit=10_000, newest_first=newest_first)
        assert keys(_pages_by_cursor(store, step, newest_first=newest_first)) == keys(whole)

    def test_pages_by_cursor_keep_to_the_filters_and_the_range(self, store: Store) -> None:
        _write_uneven_fleet(store)
        query = {
            "hostnames": ("host-000",),
            "metric_names": (UTIL,),
            "start_ns": START + 1,
            "end_ns": START + 3 * MINUTE,
        }
        whole = ask(store, limit=10_000, **query)
        assert 0 < len(whole) < len(ask(store, limit=10_000))
        assert keys(_pages_by_cursor(store, 2, **query)) == keys(whole)

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize(("rows", "most"), [(1, 1), (3, 7), (20_000, 40_000)])
    def test_a_stream_gives_every_row_once_in_order(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, newest_first: bool, rows: int, most: int
    ) -> None:
        _small_portions(monkeypatch, rows, most)
        _write_uneven_fleet(store)
        whole = ask(store, limit=10_000, newest_first=newest_first)
        assert _streamed(store, newest_first=newest_first, limit=None) == whole

    @pytest.mark.parametrize("newest_first", [True, False])
    def test_a_stream_keeps_to_everything_a_query_says(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, newest_first: bool
    ) -> None:
        _small_portions(monkeypatch, 5, 10)
        _write_uneven_fleet(store)
        whole = ask(store, limit=10_000, newest_first=newest_first)
        start, end = START + SECOND, START + 3 * MINUTE
        for query in (
            {"limit": 0},
            {"limit": 7},
            {"limit": 10, "offset": 4},
            {"offset": 100_000},
            {"start_ns": start, "end_ns": end},
            {"hostnames": ("host-000",)},
            {"metric_names": (UTIL,), "start_ns": start},
            {"gpus": ("GPU-0001", "GPU-0002"), "offset": 3},
            {"after": whole[len(whole) // 2].position},
            {"after": whole[5].position, "offset": 2, "limit": 9, "metric_names": (UTIL, TEMP)},
            {"pods": ("nowhere",)},
        ):
            asked: dict[str, Any] = {"limit": None, "newest_first": newest_first, **query}
            expected = ask(store, **{**asked, "limit": 10_000 if asked["limit"] is None else asked["limit"]})
            assert _streamed(store, **asked) == expected, query

    def test_a_stream_of_nothing_is_empty(self, store: Store) -> None:
        assert list(store.stream(ReadingsQuery(limit=None))) == []
        assert list(store.stream(ReadingsQuery(limit=None, newest_first=False))) == []

    def test_a_stream_that_is_left_lets_the_store_go_on(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        _small_portions(monkeypatch, 3, 6)
        _write_uneven_fleet(store)
        stream = store.stream(ReadingsQuery(limit=None))
        assert len(next(stream))
        assert store.write([one(gpu(), START + 9 * MINUTE, u=1.0)]).written == 1
        assert store.apply_retention(START + MINUTE) > 0
        stream.close()  # type: ignore[attr-defined]
        assert ask(store, limit=1)[0].value == 1.0

    def test_readings_of_one_time_are_streamed_in_the_order_of_their_names(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # More than a portion holds, all of one nanosecond: there is nothing to cut.
        _small_portions(monkeypatch, 4, 8)
        gpus = [gpu(number) for number in range(30, 0, -1)]
        store.write([fleet(gpus, START, ["b", "a"]), fleet(gpus, START + 1, ["b", "a"])])
        assert _streamed(store, limit=None) == ask(store, limit=1000)

    def test_a_page_is_cut_and_continued_by_row(self, store: Store) -> None:
        _write_uneven_fleet(store)
        page = store.page(ReadingsQuery(limit=17, offset=5))
        assert rows(page) == ask(store, limit=100)[5:22]
        assert page.position(3) == rows(page)[3].position
        assert rows(page.cut(2, 4)) == rows(page)[2:4]

    def test_rows_that_arrive_while_paging_move_no_page_of_the_cursor(self, store: Store) -> None:
        store.write([several(gpu(), [(START + i, i) for i in range(10)])])
        first = ask(store, limit=4)
        store.write([several(gpu(), [(START + 100, 100.0)])])
        second = ask(store, limit=100, after=first[-1].position)
        assert values(first + second) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]

    def test_a_cursor_need_not_be_a_row_that_is_there(self, store: Store) -> None:
        store.write([fleet([gpu(1), gpu(3)], START, ["b", "d"]), fleet([gpu(1)], START - 5, ["b"])])
        assert keys(ask(store, after=Position(START, "GPU-0001", "c"))) == [
            (START, "GPU-0001", "d"),
            (START, "GPU-0003", "b"),
            (START, "GPU-0003", "d"),
            (START - 5, "GPU-0001", "b"),
        ]
        assert keys(ask(store, after=Position(START - 2, "", ""))) == [(START - 5, "GPU-0001", "b")]
        assert keys(ask(store, after=Position(START - 2, "", ""), newest_first=False, limit=1)) == [
            (START, "GPU-0001", "b")
        ]
        assert ask(store, after=Position(START - 6, "", "")) == []
        assert len(ask(store, after=Position(1 << 70, "", ""))) == 5
        assert ask(store, after=Position(1 << 70, "", ""), newest_first=False) == []

    def test_offset_counts_from_the_cursor(self, store: Store) -> None:
        store.write([fleet([gpu(1), gpu(2)], START), fleet([gpu(1), gpu(2)], START - MINUTE)])
        whole = ask(store)
        assert ask(store, after=whole[0].position, offset=2, limit=3) == whole[3:6]
        assert ask(store, after=whole[0].position, offset=5, limit=3) == whole[6:]
        assert ask(store, after=whole[0].position, offset=50) == []

    def test_limits_and_offsets(self, store: Store) -> None:
        store.write([several(gpu(), [(START + i, i) for i in range(250)])])
        assert len(ask(store)) == 100
        assert ask(store, limit=0) == []
        assert len(ask(store, limit=1_000_000)) == 250
        assert values(ask(store, limit=3, offset=248)) == [1, 0]
        assert ask(store, offset=250) == []
        with pytest.raises(ValueError, match="negative"):
            ReadingsQuery(limit=-1)
        with pytest.raises(ValueError, match="negative"):
            ReadingsQuery(offset=-1)

    def test_a_range_holds_its_start_and_not_its_end(self, store: Store) -> None:
        store.write([several(gpu(), [(START + i, i) for i in range(5)])])
        assert values(ask(store, start_ns=START + 1, end_ns=START + 3)) == [2, 1]
        assert values(ask(store, start_ns=START + 3)) == [4, 3]
        assert values(ask(store, end_ns=START + 1)) == [0]
        assert ask(store, start_ns=START + 2, end_ns=START + 2) == []
        assert ask(store, start_ns=START + 3, end_ns=START + 1) == []

    def test_a_range_may_be_wider_than_any_time(self, store: Store) -> None:
        store.write([one(gpu(), START, U=1.0)])
        year_9999 = 253_402_300_800 * SECOND
        assert len(ask(store, start_ns=-year_9999, end_ns=year_9999)) == 1
        assert ask(store, start_ns=year_9999) == []
        assert ask(store, end_ns=-year_9999) == []

    @pytest.mark.parametrize("time_ns", [0, 1, -1, -MINUTE, START + 1, START + 123_456_789, START + 999_999_000])
    def test_times_are_kept_to_the_nanosecond(self, store: Store, time_ns: int) -> None:
        store.write([several(gpu(), [(time_ns - 1, 1.0), (time_ns, 2.0), (time_ns + 1, 3.0)])])
        assert [row.time_ns for row in ask(store)] == [time_ns + 1, time_ns, time_ns - 1]
        assert values(ask(store, start_ns=time_ns, end_ns=time_ns + 1)) == [2.0]
        assert held(store)[2:] == (time_ns - 1, time_ns + 1)

    @pytest.mark.parametrize(
        "value", [0.0, 66.781, 1 / 3, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 2.0**53 + 2, 1e15]
    )
    def test_values_are_kept_exactly_and_as_floats(self, store: Store, value: float) -> None:
        store.write([one(gpu(), START, U=value)])
        (row,) = ask(store)
        assert row.value == value
        assert isinstance(row.value, float)

    def test_whole_numbers_come_back_as_floats(self, store: Store) -> None:
        store.write([one(gpu(), START, U=7)])
        assert isinstance(ask(store)[0].value, float)

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ({"gpus": ("GPU-0001",)}, {1}),
            ({"gpus": ("GPU-0001", "GPU-0009", "GPU-0009")}, {1, 9}),
            ({"gpus": ("GPU-000",)}, set()),
            ({"gpus": ("gpu-0001",)}, set()),
            ({"hostnames": ("host-001",)}, {8, 9, 10, 11}),
            ({"hostnames": ("host-000", "host-001", "host-099")}, set(range(12))),
            ({"gpu_ids": (3,)}, {3, 11}),
            ({"gpu_ids": (0, 1)}, {0, 1, 8, 9}),
            ({"gpu_ids": (1 << 70,)}, set()),
            ({"models": ("A100",)}, {2, 3}),
            ({"models": ("A100", "NVIDIA H100 80GB HBM3")}, set(range(12))),
            ({"namespaces": ("ml",)}, {2, 3, 4}),
            ({"pods": ("job-a", "job-b")}, {2, 3}),
            ({"pods": ("job-c",), "namespaces": ("ml",)}, {4}),
            ({"hostnames": ("host-000",), "gpu_ids": (1,)}, {1}),
            ({"hostnames": ("host-000",), "gpus": ("GPU-0009",)}, set()),
            ({"gpus": ("GPU-0002", "GPU-0004"), "pods": ("job-a",)}, {2}),
            ({"hostnames": ("\ud800",)}, set()),
            ({"gpus": ("\ud800", "GPU-0001")}, {1}),
        ],
    )
    def test_filters_take_alternatives_and_hold_together(
        self, store: Store, query: dict[str, Any], numbers: set[int]
    ) -> None:
        of = [gpu(number) for number in range(12)]
        of[2] = gpu(2, model_name="A100", namespace="ml", pod="job-a")
        of[3] = gpu(3, model_name="A100", namespace="ml", pod="job-b")
        of[4] = gpu(4, namespace="ml", pod="job-c")
        for time_ns in (START, START + MINUTE, START + 20 * MINUTE):
            store.write([fleet(of, time_ns)])
        assert {row.uuid for row in ask(store, **query)} == {f"GPU-{number:04d}" for number in numbers}
        assert len(ask(store, **query)) == len(numbers) * 2 * 3
        assert len(ask(store, **query, metric_names=(TEMP,))) == len(numbers) * 3
        assert len(ask(store, **query, start_ns=START + 1)) == len(numbers) * 2 * 2

    def test_metric_names_filter(self, store: Store) -> None:
        store.write([fleet([gpu(1), gpu(2)], START, ["a", "b", "c"])])
        assert {row.metric_name for row in ask(store, metric_names=("a", "c", "d"))} == {"a", "c"}
        assert ask(store, metric_names=("A",)) == []

    def test_writing_the_same_again_changes_nothing(self, store: Store) -> None:
        blocks = [fleet([gpu(1), gpu(2)], START), fleet([gpu(1), gpu(2)], START + 5 * MINUTE)]
        assert store.write(blocks).written == 8
        before = (ask(store), held(store), store.metric_names())
        for _ in range(3):
            assert store.write(blocks).written == 8
        assert (ask(store), held(store), store.metric_names()) == before

    def test_part_of_a_write_may_be_there_already(self, store: Store) -> None:
        store.write([several(gpu(), [(START, 1.0), (START + 2, 3.0)])])
        store.write([several(gpu(), [(START + i, i + 1.0) for i in range(4)])])
        assert values(ask(store)) == [4, 3, 2, 1]
        assert held(store).readings == 4

    def test_a_new_value_replaces_the_old(self, store: Store) -> None:
        store.write([one(gpu(), START, U=1.0)])
        store.write([one(gpu(), START, U=2.0)])
        assert values(ask(store)) == [2.0]
        assert held(store).readings == 1

    def test_a_new_description_replaces_the_old(self, store: Store) -> None:
        store.write([one(gpu(), START, U=1.0)])
        store.write([one(gpu(pod="job-1"), START, U=1.0)])
        assert [row.pod for row in ask(store)] == ["job-1"]
        assert ask(store, pods=("",)) == []

    def test_of_one_reading_told_twice_in_a_call_the_later_stays(self, store: Store) -> None:
        store.write([several(gpu(), [(START, 1.0), (START, 2.0)]), several(gpu(), [(START, 3.0)])])
        assert values(ask(store)) == [3.0]
        store.write([several(gpu(), [(START, 4.0), (START + 1, 0.0), (START, 3.0)])])
        assert values(ask(store)) == [0.0, 3.0]
        assert held(store).readings == 2

    def test_a_null_is_no_reading(self, store: Store) -> None:
        assert store.write([one(gpu(), START, a=None, b=1.0, c=None)]).written == 1
        assert store.write([one(gpu(1), START + 5, a=None)]).written == 0
        assert keys(ask(store)) == [(START, "GPU-0000", "b")]
        assert store.metric_names() == ["b"]
        assert held(store) == (1, 1, START, START)

    def test_a_null_leaves_an_earlier_value_alone(self, store: Store) -> None:
        store.write([one(gpu(), START, U=1.0)])
        store.write([one(gpu(), START, U=None)])
        assert values(ask(store)) == [1.0]

    def test_a_series_may_begin_after_its_gpu(self, store: Store) -> None:
        store.write([one(gpu(), START, a=1.0, b=None)])
        store.write([one(gpu(), START + 1, a=1.0, b=2.0)])
        assert keys(ask(store, metric_names=("b",))) == [(START + 1, "GPU-0000", "b")]

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "twelve"])
    def test_what_is_no_finite_number_is_refused_by_itself(self, store: Store, value: Any) -> None:
        store.write([one(gpu(), START - 1, a=5.0)])
        result = store.write([fleet([gpu(1)], START), one(gpu(2), START, a=1.0, odd=value, b=2.0)])
        assert result.written == 4
        (refused,) = result.refused
        assert (refused.gpu, refused.metric_name, refused.time_ns) == ("GPU-0002", "odd", START)
        assert "value" in refused.reason
        assert store.metric_names() == [TEMP, UTIL, "a", "b"]
        assert held(store).readings == 5

    @pytest.mark.parametrize("time_ns", [1 << 63, -(1 << 63) - 1, 1 << 200])
    def test_a_time_beyond_64_bits_is_refused_by_itself(self, store: Store, time_ns: int) -> None:
        result = store.write([several(gpu(), [(START, 1.0), (time_ns, 2.0), (START + 1, 3.0)])])
        assert result.written == 2
        assert [refused.time_ns for refused in result.refused] == [time_ns]
        assert values(ask(store)) == [3.0, 1.0]

    def test_text_that_is_not_unicode_is_refused_by_itself(self, store: Store) -> None:
        bad = gpu(1, hostname="\udcff")
        result = store.write([fleet([bad, gpu(2)], START, ["a", "\ud800"])])
        assert result.written == 1
        assert len(result.refused) == 3
        assert keys(ask(store)) == [(START, "GPU-0002", "a")]

    def test_a_gpu_index_beyond_64_bits_is_refused_by_itself(self, store: Store) -> None:
        result = store.write([fleet([gpu(1, gpu_id=1 << 64), gpu(2)], START, ["a"])])
        assert (result.written, len(result.refused)) == (1, 1)

    @pytest.mark.parametrize(
        "odd",
        [
            "",
            " ",
            "a b",
            "a,b=c\\d",
            "quote\"'`;--",
            "' OR 1=1",
            "日本語",
            "é",
            "e\u0301",
            "😀",
            "%_*?",
            "a\x00b",
            "\n",
            "null",
            "x" * 5000,
        ],
    )
    def test_any_text_is_kept_and_found_as_it_is(self, store: Store, odd: str) -> None:
        of = gpu(uuid="GPU" + odd, hostname=odd, device=odd, model_name=odd, container=odd, pod=odd, namespace=odd)
        other = gpu(1, hostname="other", model_name="other", pod="other", namespace="other")
        store.write([PointBlock([of, other], [odd, UTIL], [(0, START, [1.0, None]), (1, START, [None, 2.0])])])
        (row,) = ask(store, gpus=(of.id,))
        assert row == Row(START, odd, 1.0, "GPU" + odd, "", 0, odd, odd, odd, odd, odd, odd)
        for query in (
            {"hostnames": (odd,)}, {"models": (odd,)}, {"namespaces": (odd,)}, {"pods": (odd,)}, {"metric_names": (odd,)},
        ):  # fmt: skip
            assert ask(store, **query) == [row]
        assert store.metric_names(of.id) == [odd]

    def test_a_gpu_may_have_no_index(self, store: Store) -> None:
        store.write([fleet([gpu(0, gpu_id=None), gpu(1, gpu_id=0)], START, ["a"])])
        store.write([fleet([gpu(0, gpu_id=None)], START + 1, ["a"])])
        assert [row.gpu_id for row in ask(store, gpus=("GPU-0000",))] == [None, None]
        assert [row.uuid for row in ask(store, gpu_ids=(0,))] == ["GPU-0001"]

    @pytest.mark.parametrize("by", ["gpu", "host", None])
    @pytest.mark.parametrize(
        ("metric", "readings", "aggregate", "expected"),
        [
            # Of the board: three instances repeat it.
            ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", [(10.0, 13.0)] * 3, "increase", 3.0),
            ("DCGM_FI_DEV_POWER_VIOLATION", [(5e9, 8e9)] * 3, "increase", 3e9),
            ("DCGM_FI_DEV_POWER_MGMT_LIMIT", [(400.0, 400.0)] * 3, "sum", 400.0),
            ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", [(0.0, 4.0)] * 3, "last", 4.0),
            ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", [(4.0, 0.0)] * 3, "max", 4.0),
            # Of the instance.
            (MEMORY_USED, [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)], "sum", 6.0),
            # Nobody knows of what: once.
            ("of_my_own", [(7.0, 7.0), (9.0, 9.0), (8.0, 8.0)], "sum", 9.0),
        ],
    )
    def test_how_instances_make_a_board_is_in_the_catalogue(
        self,
        store: Store,
        by: By | None,
        metric: str,
        readings: list[tuple[float, float]],
        aggregate: Aggregate,
        expected: float,
    ) -> None:
        for number, (first, second) in enumerate(readings, 3):
            instance = gpu(1, mig_id=str(number), mig_profile="1g.10gb")
            store.write([several(instance, [(START, first), (START + SECOND, second)], metric)])
        query = SeriesQuery(
            metric_name=metric, aggregate=aggregate, by=by, buckets=Buckets(START, START + 2 * SECOND, MINUTE)
        )
        (series,) = store.series(query)
        assert series.values == [expected]

    def test_a_mig_instance_is_a_gpu_of_its_own(self, store: Store) -> None:
        instances = [gpu(1, mig_id=str(number), mig_profile="1g.10gb") for number in (1, 2)]
        store.write([fleet([gpu(1), *instances], START, ["a"])])
        assert [(row.gpu, row.uuid, row.mig_id, row.value) for row in ask(store)] == [
            ("GPU-0001", "GPU-0001", "", 0.0),
            ("GPU-0001:1", "GPU-0001", "1", 100.0),
            ("GPU-0001:2", "GPU-0001", "2", 200.0),
        ]
        assert values(ask(store, gpus=("GPU-0001:2",))) == [200.0]
        assert values(ask(store, gpus=("GPU-0001",))) == [0.0]
        assert held(store).series == 3

    def test_shares_are_kept_apart(self, store: Store) -> None:
        device = gpu(1)
        shares = [gpu(1, share=True, namespace="ml", pod=pod, container="main") for pod in ("b", "a")]
        block = PointBlock([device, *shares], [UTIL, "only"], [(0, START, [60.0, None]), (1, START, [20.0, 1.0])])
        block.points.append((2, START, [40.0, None]))
        for _ in range(2):
            assert store.write([block]).written == 4
        assert values(ask(store)) == [60.0]
        assert ask(store, pods=("a",)) == []
        assert store.metric_names() == [UTIL]
        assert store.metric_names("GPU-0001") == [UTIL]
        assert held(store)[:2] == (1, 1)
        assert store.stats().shares in {3, None}
        assert _by_pod(store, UTIL, "a", "b") == {("ml", "a"): [40.0], ("ml", "b"): [20.0]}
        assert _by_pod(store, "only", "a", "b") == {("ml", "b"): [1.0]}

    def test_a_share_alone_is_no_reading(self, store: Store) -> None:
        store.write([one(gpu(1, share=True, namespace="ml", pod="a"), START, U=1.0)])
        assert ask(store) == []
        assert held(store).oldest_ns is None
        assert _by_pod(store, "U", "a") == {("ml", "a"): [1.0]}

    @pytest.mark.parametrize(
        ("second", "by", "expected"),
        [
            ("ml", "namespace", {("ml",): [9000.0]}),
            ("ml", "pod", {("ml", ""): [9000.0]}),
            ("web", "namespace", {}),
            ("web", "pod", {}),
        ],
    )
    def test_what_pods_use_together_is_their_namespaces_and_no_pods(
        self, store: Store, second: str, by: By, expected: dict[tuple[str, ...], list[float | None]]
    ) -> None:
        store.write([one(gpu(1), START, **{MEMORY_USED: 9000.0})])
        # The pods are there, without a part of their own.
        for pod, namespace in (("a", "ml"), ("b", second)):
            store.write([one(gpu(1, pod=pod, namespace=namespace, share=True), START, **{MEMORY_USED: None})])
        assert store.stats().shares in {0, None}
        query = SeriesQuery(
            metric_name=MEMORY_USED, buckets=Buckets(START, START + SECOND, MINUTE), by=by, aggregate="sum",
            assignments=(
                PodAssignment("GPU-0001", "ml", "a", "", START, None, share=True),
                PodAssignment("GPU-0001", second, "b", "", START, START + MINUTE, share=True),
            ),
        )  # fmt: skip
        assert {each.group: each.values for each in store.series(query)} == expected

    def test_a_gpu_that_moved_has_each_reading_with_the_host_of_its_time(self, store: Store) -> None:
        before, after = gpu(1), gpu(1, hostname="host-099", gpu_id=7, pod="job")
        store.write(
            [several(before, [(START, 1.0)]), several(after, [(START + MINUTE, 2.0), (START + 2 * MINUTE, 3.0)])]
        )
        assert [(row.hostname, row.gpu_id, row.pod) for row in ask(store, gpus=("GPU-0001",))] == [
            ("host-099", 7, "job"),
            ("host-099", 7, "job"),
            ("host-000", 1, ""),
        ]
        assert values(ask(store, hostnames=("host-000",))) == [1.0]
        assert values(ask(store, hostnames=("host-099",))) == [3.0, 2.0]
        assert held(store).series == 1

    def test_late_readings_take_their_place(self, store: Store) -> None:
        store.write([several(gpu(), [(START + 10 * MINUTE, 3.0)])])
        store.write([several(gpu(), [(START + 5 * MINUTE, 2.0), (START, 1.0)])])
        store.write([several(gpu(), [(START + 7 * MINUTE, 2.5)])])
        assert values(ask(store)) == [3.0, 2.5, 2.0, 1.0]
        assert values(ask(store, gpus=("GPU-0000",), end_ns=START + 7 * MINUTE)) == [2.0, 1.0]
        assert held(store).oldest_ns == START

    def test_metric_names_of_one_gpu_and_of_all(self, store: Store) -> None:
        store.write([one(gpu(1), START, b=1.0, a=1.0), one(gpu(2), START, c=1.0)])
        assert store.metric_names() == ["a", "b", "c"]
        assert store.metric_names("GPU-0001") == ["a", "b"]
        assert store.metric_names("GPU-0003") == []
        assert store.metric_names("\ud800") == []

    def test_stats_count(self, store: Store) -> None:
        store.write([fleet([gpu(1), gpu(2)], START), fleet([gpu(1)], START + MINUTE + 5)])
        assert held(store) == (6, 4, START, START + MINUTE + 5)
        assert store.stats().bytes > 0

    def test_retention_drops_what_is_older_and_nothing_else(self, store: Store) -> None:
        times = [START + i * 10 * SECOND for i in range(30)]
        store.write([fleet([gpu(1), gpu(2)], time_ns) for time_ns in times])
        store.write([one(gpu(3), times[0], gone=1.0), one(gpu(3, share=True, pod="p"), times[0], gone=1.0)])
        store.write([one(gpu(4), times[19], part=1.0), one(gpu(4), times[0], part=1.0)])
        assert store.apply_retention(times[17]) == 17 * 4 + 3
        kept = ask(store, limit=1000)
        assert len(kept) == 13 * 4 + 1 == held(store).readings
        assert min(row.time_ns for row in kept) == times[17] == held(store).oldest_ns
        assert held(store).newest_ns == times[-1]
        assert store.stats().shares in {0, None}
        assert held(store).series == 5
        assert store.metric_names() == [TEMP, UTIL, "part"]
        assert store.metric_names("GPU-0003") == []
        assert store.apply_retention(times[17]) == 0

    @pytest.mark.parametrize("away", [-1, 0, 1])
    def test_retention_keeps_a_reading_of_exactly_that_time(self, store: Store, away: int) -> None:
        store.write([one(gpu(), START, U=1.0)])
        assert store.apply_retention(START + away) == (1 if away > 0 else 0)

    def test_after_everything_was_dropped_writing_goes_on(self, store: Store) -> None:
        blocks = [fleet([gpu(1), gpu(2)], START)]
        for _ in range(3):
            store.write(blocks)
            assert store.apply_retention(START + MINUTE) == 4
            assert held(store) == (0, 0, None, None)
            assert ask(store) == []
            assert store.metric_names() == []
        store.write(blocks)
        assert len(ask(store)) == 4

    def test_large_batches(self, store: Store) -> None:
        gpus = [gpu(number) for number in range(64)]
        metrics = [f"m{number}" for number in range(10)]
        blocks = [fleet(gpus, START + i * 15 * SECOND, metrics) for i in range(60)]
        assert store.write(blocks).written == 38_400
        assert held(store).readings == 38_400
        assert len(ask(store, gpus=("GPU-0007",), limit=10_000)) == 600
        newest = ask(store, limit=1000)
        assert keys(newest) == keys(ask(store, limit=600) + ask(store, limit=400, offset=600))
        assert [row.time_ns for row in ask(store, offset=38_399)] == [START]
        assert keys(ask(store, metric_names=("m3",), offset=3000, limit=2)) == keys(
            ask(store, metric_names=("m3",), limit=10_000)[3000:3002]
        )

    @pytest.mark.parametrize("seed", range(12))
    def test_any_query_answers_as_a_plain_list_would(self, store: Store, seed: int) -> None:
        chance = random.Random(seed)
        model: dict[tuple[int, str, str], Row] = {}
        for _ in range(chance.randint(1, 25)):
            block = _random_block(chance)
            store.write([block])
            _remember(model, block)
        for _ in range(40):
            query = _random_query(chance)
            assert rows(store.page(query)) == _plain_answer(model, query), query

    @pytest.mark.parametrize("seed", range(6))
    def test_points_told_again_with_any_description_are_there_once(self, store: Store, seed: int) -> None:
        _tell_again(store, seed, lambda row: row.position)

    @pytest.mark.parametrize("seed", range(6))
    def test_a_local_store_has_points_as_told_last(self, local_store: Store, seed: int) -> None:
        _tell_again(local_store, seed, lambda row: (*row.position, row.value))

    def test_a_point_told_again_for_another_host_is_found_there_alone(self, local_store: Store) -> None:
        store = local_store
        here, there = gpu(1), gpu(1, hostname="host-099", gpu_id=7)
        store.write([one(here, START, a=1.0, b=2.0), one(here, START + 1, a=5.0)])
        for _ in range(2):
            assert store.write([one(there, START, a=3.0, b=4.0)]).written == 2
            assert [(row.hostname, row.time_ns, row.value) for row in ask(store)] == [
                ("host-000", START + 1, 5.0),
                ("host-099", START, 3.0),
                ("host-099", START, 4.0),
            ]
            assert ask(store, hostnames=("host-000",), metric_names=("b",)) == []
            assert held(store).readings == 3
            assert held(store).series == 2
        # And back again, but for one of its readings: that one is still there, once.
        store.write([one(here, START, a=6.0)])
        assert values(ask(store)) == [5.0, 6.0, 4.0]
        assert [row.hostname for row in ask(store, metric_names=("a",))] == ["host-000", "host-000"]
        assert store.apply_retention(START + 1) == 2
        assert values(ask(store)) == [5.0]

    def test_readers_and_writers_at_once(self, store: Store) -> None:
        _read_and_write_at_once(store, whole=False)

    def test_readers_of_a_local_store_see_a_write_whole_or_not_at_all(self, local_store: Store) -> None:
        _read_and_write_at_once(local_store, whole=True)

    def test_a_closed_store_says_so(self, store: Store) -> None:
        store.write([one(gpu(), START, U=1.0)])
        store.close()
        store.close()
        for call in (
            lambda: store.write([]),
            lambda: ask(store),
            store.stats,
            store.metric_names,
            store.ping,
        ):
            with pytest.raises(StoreError, match="closed"):
                call()


def _tell_again(store: Store, seed: int, seen: Callable[[Row], Any]) -> None:
    """Write points several times with changing descriptions; compare what is ``seen`` of each row with a plain list."""
    chance = random.Random(seed)
    model: dict[tuple[int, str, str], Row] = {}
    for _ in range(chance.randint(5, 25)):
        block = _random_block(chance, by_time=False)
        store.write([block])
        _remember(model, block)
    assert held(store).readings == len(model)
    for _ in range(20):
        query = replace(_random_query(chance), hostnames=(), gpu_ids=(), models=(), namespaces=(), pods=())
        assert list(map(seen, rows(store.page(query)))) == list(map(seen, _plain_answer(model, query)))


def _read_and_write_at_once(store: Store, *, whole: bool) -> None:
    """Four writers and three readers; with ``whole``, readers never find a part of a write."""
    gpus = [gpu(number) for number in range(8)]
    done = threading.Event()
    errors: list[BaseException] = []

    def write(worker: int) -> None:
        for step in range(40):
            store.write([fleet(gpus, START + (step * 4 + worker) * 3 * SECOND)])

    def read() -> None:
        while not done.is_set():
            found = ask(store, limit=500)
            assert found == sorted(found, key=lambda row: (-row.time_ns, row.gpu, row.metric_name))
            assert len(set(keys(found))) == len(found)
            parts = ((store.stats().readings or 0) % 16, len(ask(store, gpus=("GPU-0003",), limit=10_000)) % 2)
            assert not whole or parts == (0, 0)

    def guarded(work: Any, *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=guarded, args=(write, worker)) for worker in range(4)]
    readers = [threading.Thread(target=guarded, args=(read,)) for _ in range(3)]
    for thread in [*writers, *readers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert held(store).readings == 4 * 40 * 16


def _write_uneven_fleet(store: Store) -> None:
    """Many ties, gaps of minutes, GPUs that come and go."""
    for number in range(12):
        block = fleet([gpu(number)], START)
        for step in range(0, 12, 1 + number % 3):
            block.points.append((0, START + step * 25 * SECOND, [float(step), None if step % 2 else 1.0]))
        store.write([block])
    store.write([fleet([gpu(number) for number in range(20)], START + 60 * MINUTE)])


def _small_portions(monkeypatch: pytest.MonkeyPatch, rows: int, most: int) -> None:
    for module in ("sqlite.reader", "memory", "influxdb.reader"):
        monkeypatch.setattr(f"stores.{module}.ROWS_AT_ONCE", rows)
    monkeypatch.setattr("stores.sqlite.reader.READ_AT_ONCE", most)


def _streamed(store: Store, **query: Any) -> list[Row]:
    portions = list(store.stream(ReadingsQuery(**query)))
    assert all(len(portion) for portion in portions)
    return [row for portion in portions for row in rows(portion)]


def _pages_by_offset(store: Store, step: int, **query: Any) -> list[Row]:
    found: list[Row] = []
    while page := ask(store, limit=step, offset=len(found), **query):
        found += page
    return found


def _pages_by_cursor(store: Store, step: int, **query: Any) -> list[Row]:
    found = ask(store, limit=step, **query)
    while page := ask(store, limit=step, after=found[-1].position, **query):
        found += page
    return found


def _by_pod(store: Store, metric: str, *pods: str) -> dict[tuple[str, ...], list[float | None]]:
    """The means of pods that share GPU-0001, over a minute."""
    query = SeriesQuery(
        metric_name=metric, buckets=Buckets(START, START + SECOND, MINUTE), by="pod", hostnames=("host-000",),
        assignments=tuple(PodAssignment("GPU-0001", "ml", pod, "main", START, None) for pod in pods),
    )  # fmt: skip
    return {each.group: each.values for each in store.series(query)}


def _random_gpu(chance: random.Random, number: int, mig_id: str) -> Gpu:
    return gpu(
        number,
        mig_id=mig_id,
        hostname=chance.choice(["h1", "h2", "h3"]),
        gpu_id=chance.choice([None, 0, 1]),
        model_name=chance.choice(["A", "B"]),
        pod=chance.choice(["", "p", "q"]),
        namespace=chance.choice(["", "n"]),
    )


def _random_time(chance: random.Random) -> int:
    return START + chance.choice([chance.randrange(5), chance.randrange(10) * MINUTE, chance.randrange(90 * MINUTE)])


def _random_block(chance: random.Random, *, by_time: bool = True) -> PointBlock:
    """Points of GPUs that move about; ``by_time``: where one is at a time is the same in every block."""
    metrics = chance.sample("abcd", chance.randint(1, 4))
    gpus: list[Gpu] = []
    points: list[Point] = []
    for place in range(chance.randint(0, 30)):
        number, mig_id, time_ns = chance.randrange(6), chance.choice(["", "", "1"]), _random_time(chance)
        gpus.append(_random_gpu(random.Random(f"{number} {mig_id} {time_ns}") if by_time else chance, number, mig_id))
        points.append((place, time_ns, [chance.choice([None, chance.random(), 1.0]) for _ in metrics]))
    return PointBlock(gpus, metrics, points)


def _remember(model: dict[tuple[int, str, str], Row], block: PointBlock) -> None:
    for index, time_ns, found in block.points:
        of = block.gpus[index]
        for metric, value in zip(block.metric_names, found, strict=True):
            if value is not None:
                model[time_ns, of.id, metric] = Row(
                    time_ns, metric, value, of.uuid, of.mig_id, of.gpu_id, of.device, of.model_name,
                    of.hostname, of.container, of.pod, of.namespace,
                )  # fmt: skip


def _random_query(chance: random.Random) -> ReadingsQuery:
    def some(options: list[Any], likely: float = 0.25) -> tuple[Any, ...]:
        return tuple(chance.sample(options, chance.randint(1, 2))) if chance.random() < likely else ()

    ends = sorted([_random_time(chance), _random_time(chance)])
    after = Position(_random_time(chance), f"GPU-000{chance.randrange(6)}", chance.choice("abcd"))
    return ReadingsQuery(
        gpus=some([f"GPU-000{number}" for number in range(7)] + ["GPU-0001:1"]),
        metric_names=some(list("abcde")),
        hostnames=some(["h1", "h2", "h4"], 0.15),
        gpu_ids=some([0, 1, 2], 0.1),
        models=some(["A", "B", "C"], 0.1),
        namespaces=some(["", "n", "x"], 0.1),
        pods=some(["", "p", "x"], 0.1),
        start_ns=ends[0] if chance.random() < 0.3 else None,
        end_ns=ends[1] if chance.random() < 0.3 else None,
        newest_first=chance.random() < 0.6,
        limit=chance.choice([1, 2, 5, 17, 100, 1000]),
        offset=chance.choice([0, 0, 0, 1, 5, 40]),
        after=after if chance.random() < 0.4 else None,
    )


def _plain_answer(model: dict[tuple[int, str, str], Row], query: ReadingsQuery) -> list[Row]:
    sign = -1 if query.newest_first else 1

    def order(row: Row | Position) -> tuple[int, str, str]:
        return (sign * row.time_ns, row.gpu, row.metric_name)

    def matches(row: Row) -> Iterator[bool]:
        yield not query.gpus or row.gpu in query.gpus
        yield not query.metric_names or row.metric_name in query.metric_names
        yield not query.hostnames or row.hostname in query.hostnames
        yield not query.gpu_ids or row.gpu_id in query.gpu_ids
        yield not query.models or row.model_name in query.models
        yield not query.namespaces or row.namespace in query.namespaces
        yield not query.pods or row.pod in query.pods
        yield query.start_ns is None or row.time_ns >= query.start_ns
        yield query.end_ns is None or row.time_ns < query.end_ns
        yield query.after is None or order(row) > order(query.after)

    found = sorted((row for row in model.values() if all(matches(row))), key=order)
    return found[query.offset :][: query.limit]
