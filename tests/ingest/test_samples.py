from __future__ import annotations

import pytest

from ingest import samples
from ingest.samples import make_gpu, metric_namer, naming_labels
from readings.checks import Refused
from readings.units import SourceUnits


@pytest.mark.parametrize(("text", "index"), [("7", 7), ("", None), ("x", None), ("٣", None), ("1" * 11, None)])
def test_an_index_is_a_small_whole_number_or_nothing(text: str, index: int | None) -> None:
    gpu, remarks = make_gpu({"uuid": "GPU-1", "gpu_id": text}, {})
    assert gpu.gpu_id == index
    assert bool(remarks) == (index is None and text != "")


def test_what_is_not_told_is_empty_and_other_labels_are_kept() -> None:
    gpu, remarks = make_gpu({"uuid": "GPU-1", "mig_id": "3"}, {"DCGM_FI_DRIVER_VERSION": "535"})
    assert remarks == []
    assert (gpu.id, gpu.hostname, gpu.pod, gpu.driver_version) == ("GPU-1:3", "", "", "535")


def test_what_cannot_be_a_gpu_is_refused() -> None:
    with pytest.raises(Refused, match="bad_field"):
        make_gpu({"uuid": "x" * 300}, {})


def test_only_some_labels_decide_a_name() -> None:
    assert naming_labels({"gpu": "0", "nvlink": "3", "DCGM_FI_DRIVER_VERSION": "5"}) == (
        ("nvlink", "3"),
        ("DCGM_FI_DRIVER_VERSION", "5"),
    )


def test_a_name_is_folded_checked_and_told_apart_by_part() -> None:
    stored_name = metric_namer(SourceUnits())
    assert stored_name(" dcgm_fb_used", ()).name == "DCGM_FI_DEV_FB_USED"
    assert stored_name("DCGM_EXP_XID_ERRORS_COUNT", (("xid", "79"),)).name == "DCGM_EXP_XID_ERRORS_COUNT:xid:79"
    with pytest.raises(Refused, match="no_metric"):
        stored_name(" ", ())
    with pytest.raises(Refused, match="bad_field"):
        stored_name("x" * 300, ())


def test_names_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_MAX_CACHED_NAMES", 3)
    stored_name = metric_namer(SourceUnits())
    for number in range(10):
        assert stored_name(f"metric_{number}", ()).name == f"metric_{number}"
    assert stored_name.cache_info().currsize <= 3  # type: ignore[attr-defined]
