from __future__ import annotations

import pytest

from ingest import samples
from ingest.samples import Namer, make_gpu, telling
from readings.checks import Refused
from readings.units import SourceUnits


@pytest.mark.parametrize(("text", "index"), [("7", 7), ("", None), ("x", None), ("٣", None), ("1" * 10, None)])
def test_an_index_is_a_small_whole_number_or_nothing(text: str, index: int | None) -> None:
    assert make_gpu({"uuid": "GPU-1", "gpu_id": text}, {}).gpu_id == index


def test_what_is_not_told_is_empty_and_other_labels_are_kept() -> None:
    gpu = make_gpu({"uuid": "GPU-1", "mig_id": "3"}, {"DCGM_FI_DRIVER_VERSION": "535"})
    assert (gpu.id, gpu.hostname, gpu.pod, gpu.driver_version) == ("GPU-1:3", "", "", "535")


def test_what_cannot_be_a_gpu_is_refused() -> None:
    with pytest.raises(Refused, match="bad_field"):
        make_gpu({"uuid": "GPU-1", "hostname": "x" * 300}, {})


def test_only_labels_that_have_a_say_tell() -> None:
    assert telling({"gpu": "0", "nvlink": "3", "DCGM_FI_DRIVER_VERSION": "5"}) == (
        ("nvlink", "3"),
        ("DCGM_FI_DRIVER_VERSION", "5"),
    )


def test_a_name_is_folded_checked_and_told_apart_by_part() -> None:
    namer = Namer(SourceUnits())
    assert namer.name(" dcgm_fb_used", ()).name == "DCGM_FI_DEV_FB_USED"
    assert namer.name("DCGM_EXP_XID_ERRORS_COUNT", (("xid", "79"),)).name == "DCGM_EXP_XID_ERRORS_COUNT:xid:79"
    with pytest.raises(Refused, match="no_metric"):
        namer.name(" ", ())
    with pytest.raises(Refused, match="bad_field"):
        namer.name("x" * 300, ())


def test_names_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_MOST_NAMES", 3)
    namer = Namer(SourceUnits())
    for number in range(10):
        assert namer.name(f"metric_{number}", ()).name == f"metric_{number}"
    assert len(namer._names) <= 3
