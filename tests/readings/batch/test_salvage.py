from __future__ import annotations

import json
from typing import Any

import pytest

from readings.batch import DecodedBatch, decode
from readings.checks import Refusal
from readings.model import Gpu, PointBlock

T = 1_752_871_354_000_000_000
UTIL, TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"
GOOD: list[Any] = [0, T, [1, 2]]


def decoded(points: list[Any], gpus: list[Any] | None = None) -> DecodedBatch:
    batch = {"gpus": gpus or [{"uuid": "GPU-1"}, {"uuid": "GPU-2"}], "metric_names": [UTIL, TEMP], "points": points}
    return decode(json.dumps(batch).encode())


@pytest.mark.parametrize(
    ("point", "refused", "detail"),
    [
        ([2, T, [1, 2]], ["no_identity"] * 2, "points[1]: GPU index 2 of 2 GPUs"),
        ([2, T, [1, None]], ["no_identity"], "points[1]: GPU index 2 of 2 GPUs"),
        ([-1, T, [1, 2]], ["no_identity"] * 2, "points[1]: GPU index -1 of 2 GPUs"),
        (["0", T, [1, 2]], ["no_identity"] * 2, "points[1]: Expected `int`, got `str`"),
        ([0, T, [1]], ["short_row"], "points[1]: 1 values for 2 metric names"),
        ([0, T, [1, 2, 3]], ["short_row"] * 3, "points[1]: 3 values for 2 metric names"),
        ([0, T, []], ["short_row"], "points[1]: 0 values for 2 metric names"),
        ([0, -1, [1, 2]], ["bad_timestamp"] * 2, "points[1]: the time is before 1970 or beyond 64 bits"),
        ([0, 1 << 63, [1, 2]], ["bad_timestamp"] * 2, "points[1]: the time is before 1970 or beyond 64 bits"),
        ([0, 1.5, [1, 2]], ["bad_timestamp"] * 2, "points[1]: Expected `int`, got `float`"),
        ([0, None, [1, None]], ["bad_timestamp"], "points[1]: Expected `int`, got `null`"),
        ([0, T], ["bad_field"], "points[1]: 2 parts instead of GPU index, time and values"),
        ([0, T, 5], ["bad_field"], "points[1]: Expected `array`, got `int`"),
        ({"gpu": 0}, ["bad_field"], "points[1]: Expected `array`, got `object`"),
        (None, ["bad_field"], "points[1]: Expected `array`, got `null`"),
    ],
)
def test_a_bad_point_is_refused_by_itself(point: Any, refused: list[str], detail: str) -> None:
    result = decoded([GOOD, point, [1, T, [3, 4]]])
    assert result.block.points == [(0, T, [1.0, 2.0]), (1, T, [3.0, 4.0])]
    assert [refusal.reason for refusal in result.refusals] == refused
    assert {refusal.detail for refusal in result.refusals} == {detail}


def test_a_bad_value_in_a_point_is_refused_by_itself() -> None:
    result = decoded([[0, T, ["5", 2]], [1, T, [True, []]]])
    assert result.block.points == [(0, T, [None, 2.0])]
    assert [each._replace(original=None) for each in result.refusals] == [
        Refusal("bad_number", f"points[0] {UTIL}: Expected `float | null`, got `str`"),
        Refusal("bad_number", f"points[1] {UTIL}: Expected `float | null`, got `bool`"),
        Refusal("bad_number", f"points[1] {TEMP}: Expected `float | null`, got `array`"),
    ]


def test_a_number_beyond_all_doubles_is_no_number() -> None:
    payload = b'{"gpus":[{"uuid":"GPU-1"}],"metric_names":["a","b"],"points":[[0,5,[1e400,1]]]}'
    result = decode(payload)
    assert [each._replace(original=None) for each in result.refusals] == [
        Refusal("non_finite", "points[0] a: Number out of range")
    ]
    assert result.block.points == [(0, 5, [None, 1.0])]


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [
        ({"uuid": ""}, "no_identity"),
        ({"uuid": "00000000-0000-0000-0000-000000000000"}, "no_identity"),
        ({"uuid": "G" * 129}, "bad_field"),
        ({"uuid": 5}, "no_identity"),
        ({}, "no_identity"),
        ({"uuid": "GPU-1\0"}, "bad_field"),
        ({"uuid": "GPU-1", "mig_id": "3" * 65}, "bad_field"),
        ({"uuid": "GPU-1", "share": 1, "pod": "p"}, "bad_field"),
        (None, "bad_field"),
    ],
)
def test_the_readings_of_a_bad_gpu_are_refused_and_those_of_others_stay(gpu: Any, reason: str) -> None:
    result = decoded([[0, T, [1, 2]], [1, T, [3, None]], [0, T + 1, [None, 5]]], [gpu, {"uuid": "GPU-2"}])
    assert result.block == PointBlock([Gpu(uuid="GPU-2")], [UTIL, TEMP], [(0, T, [3.0, None])])
    assert [refusal.reason for refusal in result.refusals] == [reason] * 3
    assert all("gpus[0]" in refusal.detail for refusal in result.refusals)


@pytest.mark.parametrize(
    ("gpu", "kept"),
    [
        ({"hostname": "h" * 256, "device": "d"}, Gpu(uuid="GPU-1", device="d")),
        ({"labels": {"a": 5, "b": "c"}}, Gpu(uuid="GPU-1", labels={"b": "c"})),
        ({"labels": {"a": "\0"}}, Gpu(uuid="GPU-1")),
        ({"labels": []}, Gpu(uuid="GPU-1")),
        ({"gpu_id": -1, "model_name": "m"}, Gpu(uuid="GPU-1", model_name="m")),
        ({"gpu_id": "3", "pod": 5}, Gpu(uuid="GPU-1", gpu_id=3)),
    ],
)
def test_what_only_describes_a_gpu_is_left_out_with_a_remark(gpu: dict[str, Any], kept: Gpu) -> None:
    result = decoded(
        [[0, T, [1, 2]], [1, T, [3, None]], [0, T + 1, [None, 5]]], [{"uuid": "GPU-1", **gpu}, {"uuid": "GPU-2"}]
    )
    assert result.block.gpus == [kept, Gpu(uuid="GPU-2")]
    assert (result.block.count(), result.refusals) == (4, [])
    assert result.remarks == {"bad_label": 3}  # by reading


def test_a_bad_gpu_that_no_point_names_refuses_nothing() -> None:
    result = decoded([[1, T, [3, 4]]], [{"uuid": ""}, {"uuid": "GPU-2"}])
    assert result.refusals == []
    assert result.block.count() == 2


def test_broken_text_in_one_item_does_not_spoil_the_others() -> None:
    payload = (
        b'{"metrics":[{"uuid":"GPU-\xff","metric_name":"m","timestamp":5,"value":1},'
        b'{"uuid":"GPU-1","metric_name":"m","timestamp":5,"value":1}]}'
    )
    result = decode(payload)
    assert [refusal.reason for refusal in result.refusals] == ["bad_field"]
    assert result.refusals[0].detail.startswith("metrics[0]: uuid 'GPU-\ufffd' has a control character, broken text")
    assert result.block.count() == 1
