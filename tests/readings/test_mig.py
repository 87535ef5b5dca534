"""How parts of a board make the whole."""

from __future__ import annotations

from readings import mig
from readings.catalogue import CATALOGUE
from readings.mig import BOARD_METRICS, board_value, how_parts_combine


def test_the_metrics_named_here_are_in_the_catalogue() -> None:
    named = {value for name, value in vars(mig).items() if name.isupper() and isinstance(value, str)}
    assert len(named) == 7
    assert set(CATALOGUE) >= BOARD_METRICS | named


def test_every_part_repeats_what_a_board_has_once() -> None:
    assert {how_parts_combine(name) for name in BOARD_METRICS} == {"one"}


def test_amounts_add_up_and_shares_of_time_do_not() -> None:
    assert how_parts_combine("DCGM_FI_DEV_FB_USED") == "add"
    assert how_parts_combine("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:3") == "add"
    assert how_parts_combine("DCGM_FI_DEV_GPU_UTIL") == "average"
    assert how_parts_combine("DCGM_FI_PROF_GR_ENGINE_ACTIVE") == "average"
    assert how_parts_combine("DCGM_FI_DEV_SM_CLOCK") == "average"


def test_what_nobody_knows_adds_up() -> None:
    assert how_parts_combine("my_metric") == "add"


def test_a_boards_value_comes_from_its_parts() -> None:
    assert board_value(mig.POWER, [300.0, 301.0]) == 301.0
    assert board_value(mig.MEMORY_USED, [300.0, 301.0]) == 601.0
    assert board_value(mig.UTILISATION, [30.0, 31.0]) == 30.5
