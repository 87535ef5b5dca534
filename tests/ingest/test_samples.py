from __future__ import annotations

import pytest

from ingest.samples import make_gpu
from readings.checks import Refused


@pytest.mark.parametrize(("text", "index"), [("7", 7), ("", None), ("x", None), ("٣", None), ("1" * 10, None)])
def test_an_index_is_a_small_whole_number_or_nothing(text: str, index: int | None) -> None:
    assert make_gpu({"uuid": "GPU-1", "gpu_id": text}, {}).gpu_id == index


def test_what_is_not_told_is_empty_and_other_labels_are_kept() -> None:
    gpu = make_gpu({"uuid": "GPU-1", "mig_id": "3"}, {"DCGM_FI_DRIVER_VERSION": "535"})
    assert (gpu.id, gpu.hostname, gpu.pod, gpu.driver_version) == ("GPU-1:3", "", "", "535")


def test_what_cannot_be_a_gpu_is_refused() -> None:
    with pytest.raises(Refused, match="bad_field"):
        make_gpu({"uuid": "GPU-1", "hostname": "x" * 300}, {})
