from __future__ import annotations

import json
from typing import Any

import pytest

from readings.batch import DecodedBatch, decode
from readings.model import Gpu

S = 1_000_000_000
T = 1752871354 * S
UTIL = "DCGM_FI_DEV_GPU_UTIL"


def metric(**more: Any) -> dict[str, Any]:
    return {"timestamp": "2025-07-18T20:42:34Z", "metric_name": UTIL, "uuid": "GPU-1", "value": 5, **more}


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in metric().items() if name != field}


def decoded(*metrics: Any) -> DecodedBatch:
    return decode(json.dumps({"metrics": metrics}).encode())


def only_gpu(**more: Any) -> Gpu:
    result = decoded(metric(**more))
    assert result.refusals == []
    (gpu,) = result.block.gpus
    return gpu


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (metric(uuid=""), "no_identity", "uuid is missing"),
        (metric(uuid="  "), "no_identity", "uuid is missing"),
        (metric(uuid=None), "no_identity", "uuid is missing"),
        (metric(uuid=5), "no_identity", "$.uuid"),
        (metric(uuid="<<<NULL>>>"), "no_identity", "names no GPU"),
        (without("uuid"), "no_identity", "uuid is missing"),
        (metric(uuid="G" * 129), "bad_field", "length <= 128"),
        (metric(pod="p" * 256), "bad_field", "length <= 255"),
        (metric(pod="p\0"), "bad_field", "NUL"),
        (metric(metric_name=""), "no_metric", "metric_name is empty"),
        (without("metric_name"), "no_metric", "metric_name is empty"),
        (metric(metric_name=5), "no_metric", "$.metric_name"),
        (metric(metric_name="m" * 256), "bad_field", "over 255"),
        (metric(timestamp="noon"), "bad_timestamp", "bad time 'noon'"),
        (metric(timestamp=-5), "bad_timestamp", "bad time -5"),
        (metric(timestamp="1969-12-31T23:59:59Z"), "bad_timestamp", "before 1970"),
        (metric(timestamp=10**25), "bad_timestamp", "bad time"),
        (metric(timestamp=None), "bad_timestamp", "$.timestamp"),
        (without("timestamp"), "bad_timestamp", "bad time ''"),
        (without("value"), "bad_number", "value is missing"),
        (metric(value=True), "bad_number", "$.value"),
        (metric(value=[]), "bad_number", "$.value"),
        (metric(value="5 W"), "bad_number", "'5 W'"),
        (metric(value="N/A"), "not_available", "'N/A'"),
        (metric(value="nan"), "non_finite", "'nan'"),
        (metric(value="9223372036854775794"), "blank", "9223372036854775794"),
        (metric(gpu_id="one"), "bad_field", "gpu_id 'one' is no whole number"),
        (metric(gpu_id="１"), "bad_field", "no whole number"),
        (metric(gpu_id="9" * 30), "bad_field", "no whole number"),
        (metric(gpu_id=-1), "bad_field", "$.gpu_id"),
        (metric(gpu_id=1.5), "bad_field", "$.gpu_id"),
        (metric(labels={"a": 5}), "bad_field", "$.labels"),
        ("text", "bad_field", "Expected `object`"),
        (None, "bad_field", "Expected `object`"),
    ],
)
def test_one_bad_reading_is_refused_by_itself(bad: Any, reason: str, detail: str) -> None:
    result = decoded(metric(uuid="GPU-0"), bad, metric(uuid="GPU-2"))
    assert [gpu.uuid for gpu in result.block.gpus] == ["GPU-0", "GPU-2"]
    assert result.block.count() == 2
    assert [refusal.reason for refusal in result.refusals] == [reason]
    assert result.refusals[0].detail.startswith("metrics[1]: ")
    assert detail in result.refusals[0].detail


def test_a_number_beyond_all_doubles_is_not_finite() -> None:
    payload = b'{"metrics":[{"uuid":"GPU-1","metric_name":"m","timestamp":5,"value":1e400}]}'
    assert [refusal.reason for refusal in decode(payload).refusals] == ["non_finite"]


def test_null_is_no_reading_and_no_error() -> None:
    result = decoded(metric(value=None), metric(uuid="GPU-2", value=0))
    assert result.refusals == []
    assert [gpu.uuid for gpu in result.block.gpus] == ["GPU-2"]
    assert result.block.points == [(0, T, [0.0])]


@pytest.mark.parametrize(
    "timestamp",
    ["2025-07-18T20:42:34Z", "2025-07-18T22:42:34+02:00", "1752871354", 1752871354, 1752871354000, 1752871354.0, T],
)
def test_the_time_may_be_rfc_3339_or_unix(timestamp: Any) -> None:
    assert decoded(metric(timestamp=timestamp)).block.points == [(0, T, [5.0])]


@pytest.mark.parametrize(("given", "index"), [(3, 3), ("3", 3), (" 3 ", 3), ("", None), (None, None), (0, 0)])
def test_the_gpu_index_may_be_a_number_or_its_digits(given: Any, index: int | None) -> None:
    assert only_gpu(gpu_id=given).gpu_id == index


def test_a_value_may_be_the_text_of_a_number() -> None:
    assert decoded(metric(value="66.781")).block.points == [(0, T, [66.781])]


def test_optional_texts_may_be_null() -> None:
    assert only_gpu(container=None, pod=None, namespace=None, device=None, labels=None) == Gpu(uuid="GPU-1")


def test_labels_keep_what_is_no_column() -> None:
    labels = {"__name__": UTIL, "job": "j", "instance": "i", "UUID": "GPU-1", "DCGM_FI_DRIVER_VERSION": "535", "x": ""}
    gpu = only_gpu(labels=labels)
    assert gpu.labels == {"DCGM_FI_DRIVER_VERSION": "535"}
    assert gpu.driver_version == "535"


def test_labels_fill_in_columns_that_are_not_given() -> None:
    labels = {"UUID": "GPU-9", "gpu": "3", "Hostname": "node", "GPU_I_ID": "7", "GPU_I_PROFILE": "1g.10gb", "pod": "p"}
    gpu = only_gpu(uuid="", pod="mine", labels=labels)
    assert gpu == Gpu(uuid="GPU-9", gpu_id=3, hostname="node", mig_id="7", mig_profile="1g.10gb", pod="mine")
    assert gpu.id == "GPU-9:7"


def test_the_rows_of_a_shared_gpu_are_told_apart() -> None:
    result = decoded(
        metric(metric_name="DCGM_FI_DEV_FB_USED", value=60000),
        metric(metric_name="DCGM_FI_DEV_FB_USED", value=40000, pod="a"),
        metric(metric_name="DCGM_FI_DEV_FB_USED", value=20000, pod="b"),
    )
    assert [(gpu.pod, gpu.share) for gpu in result.block.gpus] == [("", False), ("a", True), ("b", True)]
    assert [values for _, _, values in result.block.points] == [[60000.0], [40000.0], [20000.0]]
