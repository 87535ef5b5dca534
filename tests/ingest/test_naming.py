from __future__ import annotations

import pytest

from ingest import samples
from ingest.samples import Namer, telling
from readings.checks import Refused
from readings.units import SourceUnits


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
