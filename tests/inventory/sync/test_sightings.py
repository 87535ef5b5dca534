"""inventory.sync.sightings: what a flush says, gathered without Django."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.sync import sightings as sightings_module
from inventory.sync.sightings import Origin, Sighting, Sightings, Span
from readings.model import Point, PointBlock
from tests.inventory.building import POWER, T0, TEMP, UTIL, block, gpu, seen


def only(*blocks: PointBlock) -> Sighting:
    [(_, sighting)] = seen(*blocks).gpus()
    return sighting


def test_nothing_seen_is_false_and_empty() -> None:
    sightings = seen()
    assert not sightings
    assert len(sightings) == 0


def test_one_entry_per_gpu_not_per_reading() -> None:
    sightings = seen(*(block(gpu(), n, {UTIL: n, POWER: 2.0}) for n in range(10)), block(gpu("GPU-b"), 0, {UTIL: 1.0}))
    assert sightings
    assert len(sightings) == 2


def test_the_newest_value_of_each_metric_counts_whatever_the_order() -> None:
    points = [(T0 + n, n) for n in range(50)]
    for seed in range(5):
        random.Random(seed).shuffle(points)
        block_ = PointBlock([gpu()], [UTIL, POWER], [(0, time, [float(n), float(-n)]) for time, n in points])
        assert only(block_).latest() == {UTIL: (49.0, T0 + 49), POWER: (-49.0, T0 + 49)}


def test_values_with_gaps_are_kept_per_metric_with_their_own_times() -> None:
    names = [UTIL, POWER, TEMP]
    points: list[Point] = [(0, T0 + 2, [None, 7.0, None]), (0, T0 + 1, [1.0, None, None]), (0, T0, [0.0, 0.0, 30.0])]
    expected = {UTIL: (1.0, T0 + 1), POWER: (7.0, T0 + 2), TEMP: (30.0, T0)}
    for order in (points, points[::-1]):
        assert only(PointBlock([gpu()], names, order)).latest() == expected


def test_many_points_with_gaps_come_to_the_same_as_reading_them_one_by_one() -> None:
    choose = random.Random(7)
    names = [f"M{n}" for n in range(100)]
    points: list[Point] = []
    expected: dict[str, tuple[float, int]] = {}
    for number in range(2000):
        values: list[float | None] = [None] * len(names)
        time_ns = T0 + choose.randrange(10_000)
        for column in choose.sample(range(len(names)), choose.choice((1, 2, 100))):
            values[column] = float(number)
            known = expected.get(names[column])
            if known is None or time_ns > known[1]:
                expected[names[column]] = (float(number), time_ns)
        points.append((0, time_ns, values))
    latest = only(PointBlock([gpu()], names, points)).latest()
    assert {name: time for name, (_, time) in latest.items()} == {name: time for name, (_, time) in expected.items()}
    one_reading_each = {name for name, (_, time) in expected.items() if sum(p[1] == time for p in points) == 1}
    assert {name: latest[name] for name in one_reading_each} == {name: expected[name] for name in one_reading_each}


@pytest.mark.parametrize("whole_first", [True, False])
def test_of_equal_times_the_one_added_last_counts(whole_first: bool) -> None:
    whole: Point = (0, T0, [1.0, 1.0])
    gap: Point = (0, T0, [2.0, None])
    points: list[Point] = [whole, gap] if whole_first else [gap, whole]
    assert only(PointBlock([gpu()], [UTIL, POWER], points)).latest()[UTIL][0] == (2.0 if whole_first else 1.0)


def test_different_lists_of_metric_names_join() -> None:
    sighting = only(
        block(gpu(), 1, {UTIL: 1.0}), block(gpu(), 0, {POWER: 2.0}), block(gpu(), 2, {UTIL: 3.0, TEMP: 4.0})
    )
    assert {name: value for name, (value, _) in sighting.latest().items()} == {UTIL: 3.0, POWER: 2.0, TEMP: 4.0}


def test_a_value_that_json_cannot_hold_is_left_out() -> None:
    assert only(block(gpu(), 0, {UTIL: float("nan"), POWER: float("inf"), TEMP: 30.0})).latest().keys() == {TEMP}


def test_a_point_without_any_value_is_no_sighting() -> None:
    assert not seen(block(gpu(), 0, {UTIL: None, POWER: None}))


def test_spans_follow_the_descriptions_and_their_times() -> None:
    train, serve = gpu(pod="train"), gpu(pod="serve")
    sighting = only(block(train, 0, {UTIL: 1.0}), block(train, 5, {UTIL: 1.0}), block(serve, 9, {UTIL: 1.0}))
    assert [(span.gpu.pod, span.first_ns - T0, span.last_ns - T0) for span in sighting.spans()] == [
        ("train", 0, 5_000_000_000),
        ("serve", 9_000_000_000, 9_000_000_000),
    ]


def test_endless_changes_of_description_stay_bounded_and_keep_what_is_known() -> None:
    blocks = [
        block(gpu(pod=f"pod-{n % 3}", labels={"n": str(n)}, model_name="H100" if n == 0 else ""), n, {UTIL: 1.0})
        for n in range(1000)
    ]
    spans = only(*blocks).spans()
    assert len(spans) <= 100
    assert {span.gpu.pod for span in spans} == {"pod-0", "pod-1", "pod-2"}
    assert min(span.first_ns for span in spans) == T0
    assert spans[-1].last_ns == T0 + 999_000_000_000
    assert "H100" in {span.gpu.model_name for span in spans}


def test_shares_are_kept_apart_from_the_gpu() -> None:
    sightings = seen(
        block(gpu(), 0, {UTIL: 50.0}),
        block(gpu(pod="a", share=True), 0, {UTIL: 30.0}),
        block(gpu(pod="b", share=True), 0, {UTIL: 20.0}),
        block(gpu(pod="b", share=True), 1, {UTIL: 20.0}),
    )
    assert len(sightings) == 3
    assert [sighting.latest()[UTIL][0] for _, sighting in sightings.gpus()] == [50.0]
    assert sorted((span.gpu.pod, span.last_ns - T0) for span in sightings.shares()) == [("a", 0), ("b", 1_000_000_000)]


def test_instances_are_gpus_of_their_own() -> None:
    sightings = seen(*(block(gpu(mig_id=str(n)), 0, {UTIL: 1.0}) for n in range(3)))
    assert [gpu_id for gpu_id, _ in sightings.gpus()] == ["GPU-a:0", "GPU-a:1", "GPU-a:2"]


def test_parts_hold_a_board_with_its_instances_and_shares_and_are_all_of_it() -> None:
    whole = seen(
        *(block(gpu(f"G{n}"), 0, {UTIL: 1.0}) for n in range(10)),
        *(block(gpu(f"G{n}", mig_id=str(m)), 0, {UTIL: 1.0}) for m in range(3) for n in range(10)),
        *(block(gpu(f"G{n}", pod=f"p{m}", share=True), 0, {UTIL: 1.0}) for m in range(2) for n in range(10)),
    )
    assert list(whole.parts(60)) == [whole]
    parts = list(whole.parts(12))
    assert [len(part) for part in parts] == [12] * 5
    ids = [gpu_id for part in parts for gpu_id, _ in part.gpus()]
    assert sorted(ids) == sorted(gpu_id for gpu_id, _ in whole.gpus())
    for part in parts:
        boards = {gpu_id.partition(":")[0] for gpu_id, _ in part.gpus()}
        assert len(boards) == 2
        assert {span.gpu.uuid for span in part.shares()} == boards


DESCRIBED = [
    gpu(),
    gpu(pod="train"),
    gpu("GPU-b"),
    gpu("GPU-c", labels={}),
    gpu(mig_id="1"),
    gpu(pod="a", share=True),
    gpu("GPU-b", pod="b", share=True),
]


@st.composite
def blocks_of_few_gpus(draw: st.DrawFn) -> PointBlock:
    """About as large as arrays are made for: whole points, and others with gaps; some GPUs described twice, and shares."""
    gpus = draw(st.lists(st.sampled_from(DESCRIBED), min_size=1, max_size=6))
    names = draw(st.sampled_from([[UTIL], [UTIL, POWER, TEMP], [TEMP, UTIL], []]))
    with_gaps = draw(st.sets(st.integers(0, len(gpus) - 1)))
    odd: list[float | None] = draw(
        st.sampled_from([[None], [None, float("nan")], [None, float("inf")], [None, 10**400]])
    )
    choose = draw(st.randoms(use_true_random=False))
    points: list[Point] = []
    for number in range(draw(st.sampled_from([0, 3, 63, 64, 90]))):
        index = choose.randrange(len(gpus))
        values: list[float | None] = [float(number * 10 + column) for column in range(len(names))]
        if index in with_gaps:
            values = [choose.choice([value, *odd]) for value in values]
        points.append((index, T0 + choose.randrange(choose.choice([1, 5, 1000])), values))
    return PointBlock(gpus, names, points)


def all_of(sightings: Sightings) -> object:
    """Everything that a save reads."""

    def told(span: Span) -> object:
        return span.gpu, span.first_ns, span.last_ns, span.origin

    return (
        {
            gpu_id: (
                [told(span) for span in sighting.spans()],
                {
                    each.names: repr((each.whole_ns, each.whole, each.partial_ns, each.partial))  # NaN equals nothing
                    for each in sighting.values()
                },
            )
            for gpu_id, sighting in sightings.gpus()
        },
        {(span.gpu.id, span.gpu.pod): told(span) for span in sightings.shares()},
    )


@given(st.lists(blocks_of_few_gpus(), max_size=4))
def test_arrays_come_to_the_same_as_point_by_point(blocks: list[PointBlock]) -> None:
    found, expected = Sightings(), Sightings()
    for number, each in enumerate(blocks):
        found.add(each, Origin(f"s{number}", number % 2 == 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sightings_module, "_FEWEST_FOR_ARRAYS", 1_000_000)
        for number, each in enumerate(blocks):
            expected.add(each, Origin(f"s{number}", number % 2 == 0))
    assert all_of(found) == all_of(expected)
