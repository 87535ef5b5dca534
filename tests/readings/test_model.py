from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
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


def test_a_block_gives_its_points_as_arrays() -> None:
    whole = PointBlock([Gpu(uuid="GPU-1"), Gpu(uuid="GPU-2")], ["a", "b"], [(1, 5, [0.5, 1.5]), (0, 6, [2.5, 3.5])])
    assert whole.arrays.gpu.tolist() == [1, 0]
    assert whole.arrays.time_ns.tolist() == [5, 6]
    assert whole.arrays.values.tolist() == [[0.5, 1.5], [2.5, 3.5]]
    assert whole.arrays is whole.arrays
    gaps = PointBlock([Gpu(uuid="GPU-1")], ["a", "b"], [(0, 1, [0.0, None]), (0, 2, [None, None])])
    assert np.array_equal(gaps.arrays.values, [[0.0, np.nan], [np.nan, np.nan]], equal_nan=True)
    assert PointBlock([], ["a", "b"], []).arrays.values.shape == (0, 2)
    assert whole == PointBlock(whole.gpus, ["a", "b"], list(whole.points))


@pytest.mark.parametrize(
    "point", [(0, 1, ["1"]), (0, 1, [{}]), (0, 1, [10**400]), (0, 1 << 70, [1.0]), (0, None, [None])]
)
def test_what_is_no_number_has_no_arrays(point: Any) -> None:
    with pytest.raises(ValueError, match=r"argument|range|integer"):
        _ = PointBlock([Gpu(uuid="GPU-1")], ["a"], [point]).arrays


@pytest.mark.parametrize("values", [[[1.0]], [[1.0, 2.0, 3.0]], [[1.0], [1.0, 2.0, 3.0]]])
def test_points_of_another_width_have_no_arrays(values: list[list[float | None]]) -> None:
    with pytest.raises(ValueError, match="not 2 values"):
        _ = PointBlock([Gpu(uuid="GPU-1")], ["a", "b"], [(0, 1, each) for each in values]).arrays


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
