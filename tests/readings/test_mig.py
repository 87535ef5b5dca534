"""How parts of a board make the whole."""

from __future__ import annotations

from readings.catalogue import CATALOGUE
from readings.mig import BOARD_METRICS, how_parts_combine


def test_what_a_whole_board_has_is_told_by_any_part() -> None:
    assert set(CATALOGUE) >= BOARD_METRICS
    assert {how_parts_combine(name) for name in BOARD_METRICS} == {"one"}


def test_amounts_add_up_and_shares_of_time_do_not() -> None:
    assert how_parts_combine("DCGM_FI_DEV_FB_USED") == "add"
    assert how_parts_combine("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:3") == "add"
    assert how_parts_combine("DCGM_FI_DEV_GPU_UTIL") == "average"
    assert how_parts_combine("DCGM_FI_PROF_GR_ENGINE_ACTIVE") == "average"
    assert how_parts_combine("DCGM_FI_DEV_SM_CLOCK") == "average"


def test_what_nobody_knows_adds_up() -> None:
    assert how_parts_combine("my_metric") == "add"
