from __future__ import annotations

import msgspec
import pytest

from readings.model import Gpu, PointBlock


def test_a_gpu_is_its_uuid_and_a_mig_instance_adds_its_number() -> None:
    assert Gpu(uuid="GPU-1", hostname="node").id == "GPU-1"
    assert Gpu(uuid="GPU-1", mig_id="3").id == "GPU-1:3"


def test_the_driver_version_comes_from_the_labels() -> None:
    assert Gpu(uuid="GPU-1", labels={"DCGM_FI_DRIVER_VERSION": "535.129.03"}).driver_version == "535.129.03"
    assert Gpu(uuid="GPU-1").driver_version == ""


def test_a_block_counts_readings_not_places() -> None:
    block = PointBlock([Gpu(uuid="GPU-1")], ["a", "b"], [(0, 1, [0.0, None]), (0, 2, [1.0, 2.0]), (0, 3, [None, None])])
    assert block.count() == 3


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("uuid", 128),
        ("mig_id", 64),
        ("mig_profile", 64),
        ("device", 64),
        ("model_name", 128),
        ("hostname", 255),
        ("pod", 255),
    ],
)
def test_a_text_from_outside_has_a_longest_length(field: str, limit: int) -> None:
    at_limit = {"uuid": "GPU-1", field: "x" * limit}
    assert msgspec.to_builtins(msgspec.convert(at_limit, Gpu)) == at_limit
    with pytest.raises(msgspec.ValidationError, match=rf"length <= {limit} - at `\$\.{field}`"):
        msgspec.convert({**at_limit, field: "x" * (limit + 1)}, Gpu)
