from __future__ import annotations

import math

from readings.model import PointBlock
from stores.validate import split_storable
from tests.stores.making import START, gpu, one


def test_what_can_be_kept_stays_as_it_is() -> None:
    block = one(gpu(), START, a=1.0, b=None)
    kept, refused = split_storable([block])
    assert kept == [block]
    assert refused == []


def test_only_the_faulty_reading_of_a_point_is_taken_out() -> None:
    kept, (refused,) = split_storable([one(gpu(1), START, a=1.0, b=math.nan, c=2)])
    assert kept[0].points == [(0, START, [1.0, None, 2.0])]
    assert (refused.gpu, refused.metric_name, refused.time_ns) == ("GPU-0001", "b", START)
    assert refused.reason == "the value is not finite"


def test_a_point_without_readings_is_left_out() -> None:
    kept, refused = split_storable([PointBlock([gpu()], ["a"], [(0, 1 << 70, [None]), (0, START, [1.0])])])
    assert kept[0].points == [(0, START, [1.0])]
    assert refused == []


def test_every_fault_has_its_reason() -> None:
    block = PointBlock(
        [gpu(), gpu(pod="\udc80"), gpu(gpu_id=1 << 63)],
        ["a", "\ud800"],
        [(0, 1 << 63, [1.0, None]), (0, START, [None, 1.0]), (1, START, [1.0, None]), (2, START, [10**400, None])],
    )
    _, refused = split_storable([block])
    assert [each.reason for each in refused] == [
        "the time is beyond 64 bits of nanoseconds",
        "the metric name is not valid Unicode",
        "the GPU's description is not valid Unicode",
        "the GPU's index is beyond 64 bits",
    ]
