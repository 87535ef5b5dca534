from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings.blocks import BlockBuilder
from readings.blocks import blocks as blocks_of_columns
from readings.checks import parse_value
from readings.columns import Columns
from readings.labels import OWNER_LABELS
from readings.model import Gpu, PointBlock
from readings.times import parse_time

UTIL, MEMORY, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE"
A, B = Gpu(uuid="GPU-a"), Gpu(uuid="GPU-b")

Row = tuple[Gpu, str, int, float]


def blocks(rows: Sequence[Row], batch_size: int = 1000) -> list[PointBlock]:
    builder = BlockBuilder()
    for row in rows:
        builder.add(*row)
    assert len(builder) == len(rows)
    made = list(builder.blocks(batch_size))
    assert not builder
    return made


def readings(made: Sequence[PointBlock]) -> list[Row]:
    return [
        (block.gpus[index], name, time_ns, value)
        for block in made
        for index, time_ns, values in block.points
        for name, value in zip(block.metric_names, values, strict=True)
        if value is not None
    ]


def pod(name: str, namespace: str = "ml", *, share: bool = False, **more: Any) -> Gpu:
    return msgspec.structs.replace(A, pod=name, namespace=namespace, container="main", share=share, **more)


def test_readings_sorted_by_metric_become_whole_points() -> None:
    rows: list[Row] = [(gpu, name, 1, 5.0) for name in (UTIL, MEMORY, POWER) for gpu in (A, B)]
    (block,) = blocks(rows)
    assert block == PointBlock([A, B], [UTIL, MEMORY, POWER], [(0, 1, [5.0, 5.0, 5.0]), (1, 1, [5.0, 5.0, 5.0])])


def test_points_are_ordered_by_gpu_and_then_time() -> None:
    made = blocks([(B, UTIL, 2, 1.0), (A, UTIL, 1, 2.0), (B, UTIL, 1, 3.0), (A, MEMORY, 0, 4.0)])
    assert readings(made) == [(B, UTIL, 1, 3.0), (B, UTIL, 2, 1.0), (A, MEMORY, 0, 4.0), (A, UTIL, 1, 2.0)]


def test_nothing_gathered_gives_no_block() -> None:
    assert blocks([]) == []


def test_a_builder_can_be_used_again() -> None:
    builder = BlockBuilder()
    builder.add(A, UTIL, 1, 1.0)
    first = builder.blocks(10)
    builder.add(B, UTIL, 1, 2.0)
    assert readings(list(first)) == [(A, UTIL, 1, 1.0)]
    assert readings(list(builder.blocks(10))) == [(B, UTIL, 1, 2.0)]


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        BlockBuilder().blocks(0)


def test_a_block_ends_before_the_point_that_would_make_it_too_large() -> None:
    rows: list[Row] = [(gpu, name, t, 1.0) for t in range(4) for name in (UTIL, MEMORY, POWER) for gpu in (A, B)]
    made = blocks(rows, 8)
    assert [block.count() for block in made] == [6, 6, 6, 6]
    assert [len(block.gpus) for block in made] == [1, 1, 1, 1]


def test_a_point_larger_than_a_batch_is_cut() -> None:
    rows: list[Row] = [(A, f"m{number}", 1, float(number)) for number in range(7)]
    made = blocks([*rows, (B, UTIL, 1, 0.0)], 3)
    assert [block.count() for block in made] == [3, 3, 2]
    assert readings(made) == [*rows, (B, UTIL, 1, 0.0)]


def test_a_block_holds_only_the_metric_names_it_needs() -> None:
    made = blocks([(A, UTIL, 1, 1.0), (B, MEMORY, 1, 2.0)], 1)
    assert [block.metric_names for block in made] == [[UTIL], [MEMORY]]


def test_readings_that_share_no_name_do_not_make_a_huge_table() -> None:
    rows: list[Row] = [(Gpu(uuid=f"GPU-{n}"), f"m{n}", 1, 1.0) for n in range(3000)]
    made = blocks(rows, 3000)
    assert sum(len(block.points) * len(block.metric_names) for block in made) < 3_000_000
    assert Counter(readings_without_gpu(made)) == Counter((name, 1, 1.0) for _, name, _, _ in rows)


def readings_without_gpu(made: Sequence[PointBlock]) -> list[tuple[str, int, float]]:
    return [row[1:] for row in readings(made)]


def test_an_exact_duplicate_folds_and_a_second_value_wins() -> None:
    made = blocks([(A, UTIL, 1, 5.0), (A, UTIL, 1, 5.0), (A, MEMORY, 1, 1.0), (A, MEMORY, 1, 2.0)])
    assert readings(made) == [(A, UTIL, 1, 5.0), (A, MEMORY, 1, 2.0)]


def test_equal_descriptions_in_different_objects_are_one_gpu() -> None:
    made = blocks([(Gpu(uuid="GPU-a", labels={"x": "1"}), name, 1, 5.0) for name in (UTIL, MEMORY)])
    assert made == [PointBlock([Gpu(uuid="GPU-a", labels={"x": "1"})], [UTIL, MEMORY], [(0, 1, [5.0, 5.0])])]


def test_instances_of_one_board_are_different_gpus() -> None:
    made = blocks([(Gpu(uuid="GPU-a", mig_id=mig), MEMORY, 1, float(mig)) for mig in "0123456"])
    assert [gpu.id for gpu in made[0].gpus] == [f"GPU-a:{n}" for n in range(7)]
    assert [values for _, _, values in made[0].points] == [[float(n)] for n in range(7)]


def test_the_device_row_of_a_shared_gpu_is_its_point_and_each_pods_row_a_share() -> None:
    made = blocks([(pod("a"), MEMORY, 1, 40000.0), (A, MEMORY, 1, 60000.0), (pod("b"), MEMORY, 1, 20000.0)])
    assert readings(made) == [
        (A, MEMORY, 1, 60000.0),
        (pod("a", share=True), MEMORY, 1, 40000.0),
        (pod("b", share=True), MEMORY, 1, 20000.0),
    ]


def test_without_a_device_row_the_largest_value_is_the_gpus() -> None:
    made = blocks([(pod("a"), UTIL, 1, 30.0), (pod("b"), UTIL, 1, 99.0), (pod("c"), UTIL, 1, 40.0)])
    assert readings(made)[0] == (A, UTIL, 1, 99.0)
    assert [row[0].pod for row in readings(made)[1:]] == ["a", "b", "c"]
    assert all(row[0].share for row in readings(made)[1:])


@pytest.mark.parametrize("impossible", [2619.0, 2.0**63])
def test_a_value_that_cannot_be_is_not_the_largest(impossible: float) -> None:
    made = blocks([(pod("a"), UTIL, 1, impossible), (pod("b"), UTIL, 1, 99.0)])
    assert readings(made)[0] == (A, UTIL, 1, 99.0)


def test_when_no_value_can_be_the_check_of_the_collector_gets_to_see_it() -> None:
    made = blocks([(pod("a"), UTIL, 1, 2619.0), (pod("b"), UTIL, 1, 1980.0)])
    assert readings(made)[0] == (A, UTIL, 1, 2619.0)


def test_one_pod_alone_is_no_sharing() -> None:
    made = blocks([(pod("a"), UTIL, 1, 30.0), (pod("a"), MEMORY, 1, 5.0)])
    assert readings(made) == [(pod("a"), UTIL, 1, 30.0), (pod("a"), MEMORY, 1, 5.0)]


def test_pods_that_follow_each_other_are_no_sharing() -> None:
    made = blocks([(pod("a"), UTIL, 1, 30.0), (pod("b"), UTIL, 2, 31.0)])
    assert readings(made) == [(pod("a"), UTIL, 1, 30.0), (pod("b"), UTIL, 2, 31.0)]


def test_pods_of_one_name_in_two_namespaces_are_two() -> None:
    made = blocks([(pod("a", "x"), UTIL, 1, 30.0), (pod("a", "y"), UTIL, 1, 31.0)])
    assert [row[0].namespace for row in readings(made)] == ["", "x", "y"]


def test_the_later_value_of_a_share_wins() -> None:
    made = blocks([(pod("a"), UTIL, 1, 30.0), (A, UTIL, 1, 50.0), (pod("a"), UTIL, 1, 31.0), (A, UTIL, 1, 51.0)])
    assert readings(made) == [(A, UTIL, 1, 51.0), (pod("a", share=True), UTIL, 1, 31.0)]


def test_metrics_that_are_not_shared_stay_with_the_gpus_point() -> None:
    made = blocks(
        [(A, POWER, 1, 300.0), (pod("a"), UTIL, 1, 30.0), (pod("b"), UTIL, 1, 40.0), (pod("a"), MEMORY, 1, 7.0)]
    )
    assert made[0].points[0] == (0, 1, [300.0, 40.0, 7.0])
    assert made[0].gpus[0] == A
    assert len(readings(made)) == 5


def test_shares_of_several_times_come_after_the_gpu_in_order() -> None:
    rows: list[Row] = [(gpu, UTIL, t, v) for t in (1, 2) for gpu, v in ((pod("b"), 1.0), (pod("a"), 2.0), (A, 3.0))]
    made = blocks(rows)
    assert [(row[0].pod, row[2]) for row in readings(made)] == [
        ("", 1),
        ("", 2),
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]
    assert len(made[0].gpus) == 3


def sliced(name: str, number: int) -> Gpu:
    return pod(name, labels={"vgpu": str(number), "pod_uid": name, "driver": "570"})


@pytest.mark.parametrize(
    "rows",
    [
        # Time slicing: the exporter repeats the device's values for each slice, in one scrape not always the very same.
        [
            (sliced(name, number), metric, value + number)
            for metric, value in ((UTIL, 5.0), (MEMORY, 9000.0), (POWER, 68.0))
            for number, name in enumerate("aab")
        ],
        # Batch jobs, or pods of an exporter that tells nothing of slices: equal values.
        [(pod(name), metric, 7.0) for metric in (UTIL, MEMORY) for name in "ab"],
        [(gpu, MEMORY, 9000.0) for gpu in (A, pod("a"), pod("b"))],
    ],
)
@pytest.mark.parametrize("by_column", [False, True])
def test_pods_that_repeat_the_devices_value_have_no_part_of_it(
    rows: list[tuple[Gpu, str, float]], by_column: bool
) -> None:
    readings_ = [(gpu, name, 1, value) for gpu, name, value in rows]
    made = list(blocks_of_columns([Columns.of(readings_)], 1000)) if by_column else blocks(readings_)
    greatest = {name: max(value for _, each, value in rows if each == name) for _, name, _ in rows}
    own = [(gpu, name, value) for gpu, name, _, value in readings(made)]
    assert {(gpu.id, gpu.pod, gpu.share, name): value for gpu, name, value in own} == {
        ("GPU-a", "", False, name): value for name, value in greatest.items()
    }
    assert not OWNER_LABELS.intersection(*(gpu.labels for gpu, _, _ in own))
    shares = [gpu for block in made for gpu in block.gpus if gpu.share]
    assert sorted(gpu.pod for gpu in shares) == ["a", "b"]
    assert sum(len(block.points) for block in made) == 3
    assert all(block.metric_names for block in made)


def test_a_sliced_gpus_pods_have_parts_where_the_exporter_gives_them_beside_the_devices_row() -> None:
    made = blocks(
        [
            *((sliced(name, n), metric, 1, 5.0) for metric in (UTIL, POWER, "own") for n, name in enumerate("ab")),
            (sliced("a", 0), MEMORY, 1, 3000.0),
            (sliced("b", 1), MEMORY, 1, 5000.0),
            (A, MEMORY, 1, 8100.0),
        ]
    )
    parts = [(gpu.pod, name, value) for gpu, name, _, value in readings(made) if gpu.share]
    assert parts == [("a", MEMORY, 3000.0), ("b", MEMORY, 5000.0)]
    assert [value for gpu, name, _, value in readings(made) if name == MEMORY and not gpu.share] == [8100.0]


def test_the_slices_of_one_pod_are_no_sharing() -> None:
    made = blocks([(sliced("a", number), UTIL, 1, 30.0) for number in range(2)])
    assert [(gpu.pod, gpu.share, value) for gpu, _, _, value in readings(made)] == [("a", False, 30.0)]


def test_a_gpu_that_is_a_share_already_stays_one() -> None:
    rows: list[Row] = [(pod("a", share=True), UTIL, 1, 1.0), (pod("b", share=True), UTIL, 1, 2.0), (A, UTIL, 1, 3.0)]
    assert readings(blocks(rows)) == rows


def test_rows_of_one_point_that_describe_the_gpu_differently_are_merged() -> None:
    with_error = msgspec.structs.replace(A, labels={"err_code": "79"}, hostname="old")
    later = msgspec.structs.replace(A, labels={"driver": "535"}, hostname="new")
    (block,) = blocks([(with_error, "DCGM_FI_DEV_XID_ERRORS", 1, 79.0), (later, UTIL, 1, 5.0), (later, UTIL, 2, 5.0)])
    assert block.gpus[0] == msgspec.structs.replace(A, labels={"err_code": "79", "driver": "535"}, hostname="new")
    assert block.points == [(0, 1, [79.0, 5.0]), (1, 2, [None, 5.0])]


def test_a_merged_point_keeps_its_pod() -> None:
    (block,) = blocks([(pod("a"), UTIL, 1, 5.0), (A, POWER, 1, 300.0)])
    assert block == PointBlock([pod("a")], [UTIL, POWER], [(0, 1, [5.0, 300.0])])


def test_two_jobs_on_one_gpu_are_one_hardware_point() -> None:
    jobs = [msgspec.structs.replace(A, labels={"hpc_job": job}) for job in ("101", "102")]
    (block,) = blocks([(job, UTIL, 1, 50.0) for job in jobs])
    assert block.points == [(0, 1, [50.0])]


gpus = st.sampled_from([A, B, Gpu(uuid="GPU-a", mig_id="1"), Gpu(uuid="GPU-c", labels={"x": "y"})])
rows_without_pods = st.lists(
    st.tuples(gpus, st.sampled_from([UTIL, MEMORY, POWER, "own"]), st.integers(0, 3), st.floats(0, 1))
)


@given(rows_without_pods, st.integers(1, 12))
def test_whatever_is_gathered_comes_out_once_with_its_last_value(rows: list[Row], batch_size: int) -> None:
    made = blocks(rows, batch_size)
    latest = {(gpu.id, name, time_ns): value for gpu, name, time_ns, value in rows}
    out = readings(made)
    assert {(gpu.id, name, time_ns): value for gpu, name, time_ns, value in out} == latest
    assert len(out) == len(latest)
    assert all(0 < block.count() <= batch_size for block in made)
    for block in made:
        assert all(len(values) == len(block.metric_names) for _, _, values in block.points)
        assert {index for index, _, _ in block.points} == set(range(len(block.gpus)))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B, pod("a"), pod("b"), pod("b", "other")]),
            st.sampled_from([UTIL, MEMORY]),
            st.integers(0, 1),
            st.floats(0, 1),
        )
    )
)
def test_every_reading_of_a_gpu_is_there_once_however_it_is_shared(rows: list[Row]) -> None:
    out = readings(blocks(rows))
    own = [(gpu.id, name, time_ns) for gpu, name, time_ns, _ in out if not gpu.share]
    assert sorted(own) == sorted({(gpu.id, name, time_ns) for gpu, name, time_ns, _ in rows})
    shares = {(gpu.id, gpu.namespace, gpu.pod, name, time_ns) for gpu, name, time_ns, _ in out if gpu.share}
    assert len(shares) == len(out) - len(own)


@pytest.mark.capture
@pytest.mark.parametrize("batch_size", [1, 7, 100, 2000, 20_000])
def test_the_real_capture_comes_out_whole(real_capture: Path, batch_size: int) -> None:
    with real_capture.open(newline="") as file:
        source = list(csv.DictReader(file))
    rows: list[Row] = [
        (
            Gpu(uuid=row["uuid"], hostname=row["Hostname"], gpu_id=int(row["gpu_id"])),
            row["metric_name"],
            parse_time(row["timestamp"]),
            parse_value(row["value"]),
        )
        for row in source
    ]
    made = blocks(rows, batch_size)
    assert sorted(readings_without_gpu(made)) == sorted(row[1:] for row in rows)
    assert len(readings(made)) == 2470
    assert all(block.count() <= batch_size for block in made)
    if batch_size == 100:
        # Whole GPUs fill the batches: 247 GPUs of 10 readings each, whose metrics have four different times.
        assert [block.count() for block in made] == [100] * 24 + [70]
        assert sum(len(block.gpus) for block in made) == 247
        assert sum(len(block.points) for block in made) == 4 * 247
