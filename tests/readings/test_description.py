from __future__ import annotations

from typing import Any

import pytest

from readings.checks import Refused
from readings.description import describe_gpu
from readings.model import Gpu

GOOD = {"uuid": "GPU-1", "hostname": "h", "gpu_id": 3, "pod": "p", "labels": {"a": "b"}}
ZEROS = "00000000-0000-0000-0000-000000000000"


def test_a_good_gpu_is_taken_whole_at_the_limits() -> None:
    fields = {**GOOD, "uuid": "G" * 128, "hostname": "h" * 255, "model_name": "m" * 128, "mig_id": "7"}
    gpu, remarks = describe_gpu(fields)
    assert gpu == Gpu(**fields)  # type: ignore[arg-type]
    assert remarks == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "no_identity"),
        ({"uuid": None}, "no_identity"),
        ({"uuid": 5}, "no_identity"),
        *[
            ({"uuid": uuid}, "no_identity")
            for uuid in (
                "",
                "   ",
                "<<<NULL>>>",
                "N/A",
                "[N/A]",
                "unknown",
                ZEROS,
                "GPU-" + ZEROS,
                "MIG-" + ZEROS,
                "GPU-",
            )
        ],
        ({"uuid": "G" * 129}, "bad_field"),
        ({"uuid": "GPU-1\0"}, "bad_field"),
        ({"uuid": "GPU-\ufffd"}, "bad_field"),
        ({"uuid": "GPU-1", "mig_id": "7" * 65}, "bad_field"),
        ({"uuid": "GPU-1", "mig_id": "7\0"}, "bad_field"),
        ({"uuid": "GPU-1", "mig_id": 7}, "no_identity"),
        ({"uuid": "GPU-1", "share": True}, "bad_field"),
        ({"uuid": "GPU-1", "share": "yes", "pod": "p"}, "bad_field"),
        ({"uuid": "GPU-1", "share": True, "pod": "p" * 256}, "bad_field"),
    ],
)
def test_without_an_identity_there_is_no_gpu(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        describe_gpu(fields)
    assert caught.value.reason == reason
    assert caught.value.refusal.reason == reason


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        ("hostname", "h" * 256, ""),
        ("hostname", 5, ""),
        ("pod", "p\0", ""),
        ("gpu_id", -1, None),
        ("gpu_id", 1.5, None),
        ("gpu_id", True, None),
        ("gpu_id", "x", None),
        ("gpu_id", "９", None),
        ("gpu_id", "9" * 30, None),
        ("gpu_id", 1 << 31, None),
        ("labels", "text", {}),
        ("labels", {"a": "\0"}, {}),
        ("labels", {"a": 5}, {}),
        ("labels", {"a": "x" * 4097}, {}),
        ("labels", {"x" * 256: "a"}, {}),
    ],
)
def test_what_describes_and_cannot_be_read_is_left_out_with_a_remark(name: str, value: Any, left: Any) -> None:
    gpu, remarks = describe_gpu({**GOOD, name: value})
    assert getattr(gpu, name) == left
    assert [remark.reason for remark in remarks] == ["bad_label"]
    assert len(remarks[0].detail) < 200
    assert gpu.uuid == "GPU-1"


@pytest.mark.parametrize("value", [None, "", 0, " 3 "])
def test_what_is_not_given_needs_no_remark(value: Any) -> None:
    _, remarks = describe_gpu({**GOOD, "gpu_id": value})
    assert remarks == []


def test_of_more_labels_than_fit_the_first_are_kept() -> None:
    gpu, remarks = describe_gpu({**GOOD, "labels": {str(number): "x" for number in range(150)}})
    assert list(gpu.labels) == [str(number) for number in range(100)]
    assert [remark.reason for remark in remarks] == ["too_many_labels"]
