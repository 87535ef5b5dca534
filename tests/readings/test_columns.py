from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from readings.blocks import BlockBuilder, blocks
from readings.columns import Columns
from readings.model import Gpu, PointBlock, Reading
from readings.times import INT64_MAX

A, B, C = (Gpu(uuid=f"GPU-{each}", hostname="h", labels={"d": "5"}) for each in "abc")
A_AGAIN = msgspec.structs.replace(A)
A_IN_POD, A_IN_ANOTHER = (msgspec.structs.replace(A, pod=pod, labels={pod: "1"}) for pod in "pq")
Flat = set[tuple[object, ...]]


def by_builder(readings: list[Reading], size: int) -> list[PointBlock]:
    builder = BlockBuilder()
    for reading in readings:
        builder.add(*reading)
    return list(builder.blocks(size))


def flat(found: list[PointBlock]) -> list[tuple[object, ...]]:
    return [
        (msgspec.json.encode(block.gpus[index]), time_ns, name, value)
        for block in found
        for index, time_ns, values in block.points
        for name, value in sorted(zip(block.metric_names, values, strict=True))
        if value is not None
    ]


readings_of = st.lists(
    st.tuples(
        st.sampled_from([A, A_AGAIN, A_IN_POD, A_IN_ANOTHER, B, C]),
        st.sampled_from(["x", "y", "z"]),
        st.integers(0, 4),
        st.floats(-1e6, 1e6),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(readings_of, st.integers(1, 20), st.integers(0, 60))
def test_it_makes_of_readings_what_the_builder_makes(readings: list[Reading], size: int, middle: int) -> None:
    parts = [Columns.of(readings[:middle]), Columns.of(readings[middle:])]
    made, expected = list(blocks(parts, size)), by_builder(readings, size)
    assert flat(made) == flat(expected)
    assert all(block.count() <= size for block in made)
    # Points of pods without a value of their own may come in blocks of their own, and cut the others elsewhere.
    if not any(gpu.share for block in expected for gpu in block.gpus):
        assert [block.count() for block in made] == [block.count() for block in expected]
    for block in made:
        used = {index for index, _, _ in block.points}
        assert used == set(range(len(block.gpus)))
        assert not block.count() or all(
            any(values[at] is not None for _, _, values in block.points) for at in range(len(block.metric_names))
        )


def test_readings_come_back_out_of_columns() -> None:
    readings: list[Reading] = [(A, "x", 1, 2.0), (B, "y", 3, 4.0), (A, "y", 5, 6.0)]
    columns = Columns.of(readings)
    assert list(columns.readings()) == readings
    assert columns.size == 3
    assert Columns.of([]).size == 0


def test_series_count_their_readings() -> None:
    series = Columns.of([(B, "y", 1, 0.0), (A, "x", 1, 0.0), (B, "y", 9, 0.0), (A_IN_POD, "x", 1, 0.0)]).series()
    assert sorted(zip(series.ids, series.counts.tolist(), strict=True)) == [(("GPU-a", "x"), 2), (("GPU-b", "y"), 2)]
    begin = [10 if name == "x" else 20 for _, name in series.ids]
    assert series.numbered(begin).tolist() == [20, 10, 21, 11]


def test_columns_are_shifted_and_sifted() -> None:
    columns = Columns.of([(A, "x", 1, 2.0), (B, "y", INT64_MAX - 5, 4.0)])
    assert columns.shifted(10).time_ns.tolist() == [11, INT64_MAX]
    assert columns.shifted(-1).time_ns.tolist() == [0, INT64_MAX - 6]
    assert list(columns.where(np.array([False, True])).readings()) == [(B, "y", INT64_MAX - 5, 4.0)]


def test_a_table_that_would_be_mostly_empty_is_left_to_the_builder() -> None:
    readings: list[Reading] = [(A, f"metric {number}", number, 1.0) for number in range(2000)]
    assert flat(list(blocks([Columns.of(readings)], 100))) == flat(by_builder(readings, 100))


def test_points_that_have_few_of_the_metrics_are_put_together() -> None:
    gpus = [Gpu(uuid=f"GPU-{number}") for number in range(20)]
    readings: list[Reading] = [
        (gpu, f"m{metric}", 10 * sample + metric // 3, float(metric))
        for sample in range(100)
        for metric in range(10)
        for gpu in gpus[: 20 - metric]
    ]
    made, plain = list(blocks([Columns.of(readings)], 100)), by_builder(readings, 100)
    assert sorted(flat(made)) == sorted(flat(plain))
    assert all(None not in values for block in made for _, _, values in block.points)
    assert sum(len(values) for block in plain for _, _, values in block.points) > 2 * len(readings)
    assert all(block.count() <= 100 for block in made)
    for block in made:
        assert {index for index, _, _ in block.points} == set(range(len(block.gpus)))
        assert [point[:2] for point in block.points] == sorted(point[:2] for point in block.points)
    names = sorted({tuple(block.metric_names) for block in made})
    assert [name for each in names for name in each if name in {"m0", "m3", "m9"}] == [
        "m0",
        "m0",
        "m0",
        "m3",
        "m3",
        "m3",
        "m9",
    ]


def test_where_gpus_would_be_told_too_often_points_stay_in_their_order() -> None:
    gpus = [Gpu(uuid=f"GPU-{number}") for number in range(200)]
    readings: list[Reading] = [(gpu, f"m{metric}", metric // 3, 1.0) for metric in range(10) for gpu in gpus]
    assert flat(list(blocks([Columns.of(readings)], 100))) == flat(by_builder(readings, 100))


def test_many_metrics_are_as_good_as_few() -> None:
    readings: list[Reading] = [(A, f"m{metric:02}", metric % 2, 1.0) for metric in range(90)]
    assert flat(list(blocks([Columns.of(readings)], 100))) == flat(by_builder(readings, 100))
