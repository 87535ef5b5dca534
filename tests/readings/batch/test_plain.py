from __future__ import annotations

import json
from typing import Any

import pytest

from readings.batch import DecodedBatch, decode, encode_block, encode_plain
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
        (metric(uuid="  "), "no_identity", "names no GPU"),
        (metric(uuid="GPU-00000000-0000-0000-0000-000000000000"), "no_identity", "names no GPU"),
        (metric(uuid=None), "no_identity", "uuid is missing"),
        (metric(uuid=5), "no_identity", "$.uuid"),
        (metric(uuid="<<<NULL>>>"), "no_identity", "names no GPU"),
        (without("uuid"), "no_identity", "uuid is missing"),
        (metric(uuid="G" * 129), "bad_field", "over 128 characters"),
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


@pytest.mark.parametrize(
    ("left_out", "gpu"),
    [
        ({"gpu_id": "one"}, Gpu(uuid="GPU-1")),
        ({"gpu_id": "１"}, Gpu(uuid="GPU-1")),
        ({"gpu_id": "9" * 30}, Gpu(uuid="GPU-1")),
        ({"gpu_id": -1}, Gpu(uuid="GPU-1")),
        ({"gpu_id": 1.5}, Gpu(uuid="GPU-1")),
        ({"gpu_id": {}}, Gpu(uuid="GPU-1")),
        ({"pod": "p" * 256}, Gpu(uuid="GPU-1")),
        ({"pod": "p\0"}, Gpu(uuid="GPU-1")),
        ({"hostname": ["h"], "device": "nvidia0"}, Gpu(uuid="GPU-1", device="nvidia0")),
        ({"labels": "text"}, Gpu(uuid="GPU-1")),
        ({"labels": {"a": [5], "b": "c"}}, Gpu(uuid="GPU-1", labels={"b": "c"})),
        ({"labels": {"a": "\0", "b": "c"}}, Gpu(uuid="GPU-1", labels={"b": "c"})),
        ({"labels": {"a": "x" * 5000, "Hostname": "h"}}, Gpu(uuid="GPU-1", hostname="h")),
    ],
)
def test_a_field_that_a_reading_does_not_need_is_left_out_with_a_remark(left_out: dict[str, Any], gpu: Gpu) -> None:
    result = decoded(metric(uuid="GPU-0"), metric(**left_out), metric(**left_out, metric_name="other"))
    assert result.refusals == []
    assert [each for each in result.block.gpus if each.uuid == "GPU-1"] == [gpu]
    assert result.remarks == {"bad_label": 2}


def test_more_labels_than_fit_refuse_nothing() -> None:
    result = decoded(metric(labels={f"l{number}": "x" for number in range(150)}))
    assert (len(result.block.gpus[0].labels), result.remarks) == (100, {"too_many_labels": 1})


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    payload = json.dumps({"metrics": [metric(hostname="k@ln"), metric(uuid="GPU-@")]}).encode().replace(b"@", b"\xf6")
    result = decode(payload)
    assert [gpu.hostname for gpu in result.block.gpus] == ["k\ufffdln"]
    assert [refusal.reason for refusal in result.refusals] == ["bad_field"]  # an identity is not guessed
    assert result.remarks == {"not_utf8": 1}


def test_labels_of_parts_are_in_the_name_and_of_two_rows_that_nothing_tells_apart_one_is_refused() -> None:
    p2p = "DCGM_EXP_P2P_STATUS"
    result = decoded(
        *[metric(metric_name=p2p, value=peer, labels={"peer_gpu": str(peer)}) for peer in (1, 2)],
        metric(metric_name="other", value=1, labels={"lane": "1"}),
        metric(metric_name="other", value=2, labels={"lane": "2"}),
        metric(metric_name="other", value=3, labels={"lane": "1"}),
    )
    (point,) = result.block.points
    assert dict(zip(result.block.metric_names, point[2], strict=True)) == {
        f"{p2p}:peer_gpu:1": 1.0,
        f"{p2p}:peer_gpu:2": 2.0,
        "other": 3.0,
    }
    assert [refusal.reason for refusal in result.refusals] == ["duplicate_row"]
    assert result.refusals[0].detail.startswith("metrics[3]: other of GPU-1: no label tells it")


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


@pytest.mark.parametrize("metrics", [1, 3])
def test_pods_on_slices_of_a_gpu_are_placed_there_without_a_part_of_it(metrics: int) -> None:
    result = decoded(
        *(
            metric(metric_name=f"m{number}", pod=pod, namespace="ml", labels={"vgpu": str(slice_)})
            for number in range(metrics)
            for slice_, pod in enumerate("aabc")
        )
    )
    assert result.refusals == []
    own, *shares = result.block.points
    assert own == (0, T, [5.0] * metrics)
    assert [(result.block.gpus[gpu].pod, result.block.gpus[gpu].share) for gpu, _, _ in shares] == [
        ("a", True),
        ("b", True),
        ("c", True),
    ]
    assert result.block.count() == metrics
    # On over the wire, in the compact form and in the plain one.
    for encode in (encode_block, encode_plain):
        again = decode(encode(result.block, batch_id="b", source="s", collected_at=""))
        assert again.refusals == []
        assert again.block.count() == metrics
        assert sorted(gpu.pod for gpu in again.block.gpus) == ["", "a", "b", "c"]


def test_the_rows_of_a_shared_gpu_are_told_apart() -> None:
    result = decoded(
        metric(metric_name="DCGM_FI_DEV_FB_USED", value=60000),
        metric(metric_name="DCGM_FI_DEV_FB_USED", value=40000, pod="a"),
        metric(metric_name="DCGM_FI_DEV_FB_USED", value=20000, pod="b"),
    )
    assert [(gpu.pod, gpu.share) for gpu in result.block.gpus] == [("", False), ("a", True), ("b", True)]
    assert [values for _, _, values in result.block.points] == [[60000.0], [40000.0], [20000.0]]


@pytest.mark.parametrize("field", ["hostname", "device", "gpu_id", "labels"])
def test_of_readings_that_differ_in_any_field_of_the_gpu_one_is_refused(field: str) -> None:
    other = {"hostname": "b", "device": "nvidia1", "gpu_id": 1, "labels": {"lane": "1"}}[field]
    result = decoded(metric(), metric(value=6, **{field: other}), metric(uuid="GPU-2", value=7))
    assert [values for *_, values in result.block.points] == [[5.0], [7.0]]
    assert result.refusals.counts == {"duplicate_row": 1}


def test_numbers_of_links_and_instances_may_come_without_quotes() -> None:
    result = decoded(*[metric(labels={"nvlink": link, "GPU_I_ID": 3}) for link in (1, 2)])
    assert {gpu.mig_id for gpu in result.block.gpus} == {"3"}
    assert result.block.metric_names == [f"{UTIL}:nvlink:1", f"{UTIL}:nvlink:2"]


@pytest.mark.parametrize("labels", [{"GPU_I_ID": [3]}, ["GPU_I_ID", 3], {"GPU_I_PROFILE": {}, "a": "b"}])
def test_a_reading_of_an_instance_that_cannot_be_read_does_not_pass_for_the_boards(labels: Any) -> None:
    result = decoded(metric(labels=labels), metric(uuid="GPU-2"))
    assert [gpu.uuid for gpu in result.block.gpus] == ["GPU-2"]
    assert result.refusals.counts == {"bad_field": 1}
