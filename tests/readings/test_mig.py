"""How parts of a board make the whole."""

from __future__ import annotations

import pytest

from readings import mig
from readings.catalogue import CATALOGUE, combine_of, is_of_board
from readings.mig import board_value, how_parts_combine


def test_the_metrics_named_here_are_in_the_catalogue() -> None:
    named = {value for name, value in vars(mig).items() if name.isupper() and isinstance(value, str)}
    assert len(named) == 7
    assert set(CATALOGUE) >= named


BOARD = (
    "POWER_USAGE", "TOTAL_ENERGY_CONSUMPTION", "GPU_TEMP", "MEMORY_TEMP", "SM_CLOCK", "MEM_CLOCK", "PCIE_REPLAY_COUNTER",
    "PCIE_TX_THROUGHPUT", "NVLINK_BANDWIDTH_TOTAL", "POWER_VIOLATION", "THERMAL_VIOLATION", "XID_ERRORS", "ECC_DBE_VOL_TOTAL",
    "RETIRED_SBE", "UNCORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_FAILURE", "NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:3",
)  # fmt: skip


@pytest.mark.parametrize("name", BOARD)
def test_what_a_board_has_once_is_taken_once(name: str) -> None:
    assert is_of_board(f"DCGM_FI_DEV_{name}")
    assert how_parts_combine(f"DCGM_FI_DEV_{name}") == "once"
    assert board_value(f"DCGM_FI_DEV_{name}", [4.0, 4.0, 4.0]) == 4.0


def test_memory_adds_up_and_shares_of_time_are_averaged() -> None:
    assert how_parts_combine("DCGM_FI_DEV_FB_USED") == "add"
    assert how_parts_combine("DCGM_FI_DEV_GPU_UTIL") == "average"
    assert how_parts_combine("DCGM_FI_PROF_GR_ENGINE_ACTIVE") == "average"
    assert not is_of_board("DCGM_FI_DEV_FB_USED")


def test_what_nobody_knows_is_taken_once() -> None:
    assert how_parts_combine("my_metric") == "once"
    assert combine_of("my_metric") == "max"
    assert not is_of_board("my_metric")
    assert board_value("my_metric", [3.0, 4.0]) == 4.0


def test_codes_and_states_are_never_added_or_averaged() -> None:
    codes = {metric.name for metric in CATALOGUE.values() if metric.unit in {"code", "state", "bitmask"}}
    assert codes
    assert {combine_of(name) for name in codes} == {"never"}


def test_only_memory_adds_up() -> None:
    assert {name for name in CATALOGUE if combine_of(name) == "sum"} == {
        f"DCGM_FI_DEV_FB_{each}" for each in ("TOTAL", "FREE", "USED", "RESERVED")
    }


def test_a_boards_value_comes_from_its_parts() -> None:
    assert board_value(mig.POWER, [300.0, 301.0]) == 301.0
    assert board_value(mig.MEMORY_USED, [300.0, 301.0]) == 601.0
    assert board_value(mig.UTILISATION, [30.0, 31.0]) == 30.5
