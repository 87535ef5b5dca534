from __future__ import annotations

import pytest

from readings.units import Folded, SourceUnits

UTIL, RATIO = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL_RATIO"
OLD, NEW = "DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION"


def stored(units: SourceUnits, name: str, value: float, *labels: str) -> tuple[str, float]:
    folded = units.fold(name, labels)
    return folded.name, value if folded.convert is None else folded.convert(value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DCGM_FI_DEV_SM_CLOCK_HERTZ", 1_980_000_000, ("DCGM_FI_DEV_SM_CLOCK", 1980.0)),
        ("DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", 2_619_000_000, ("DCGM_FI_DEV_MEM_CLOCK", 2619.0)),
        ("DCGM_FI_DEV_FB_CAPACITY_BYTES", 85_520_809_984, ("DCGM_FI_DEV_FB_TOTAL", 81_559.0)),
        ("DCGM_FI_DEV_FB_USED_BYTES", 1_048_576, ("DCGM_FI_DEV_FB_USED", 1.0)),
        ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 1.1, ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1100.0)),
        ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 67384926.393, ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 67384926393.0)),
        ("DCGM_FI_DEV_MEMORY_UTIL_RATIO", 0.29, ("DCGM_FI_DEV_MEM_COPY_UTIL", 29.0)),
        (
            "DCGM_FI_DEV_GPU_LIMIT_THROTTLE_SECONDS_TOTAL",
            1.000000003,
            ("DCGM_FI_DEV_BOARD_LIMIT_VIOLATION", 1000000003.0),
        ),
        ("DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND", 4.1e9, ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", 4100.0)),
        ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL_total", 1.1, ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1100.0)),
        ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER_total", 3, ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", 3)),
        (" DCGM_FI_DEV_SM_CLOCK_HERTZ ", 345e6, ("DCGM_FI_DEV_SM_CLOCK", 345.0)),
        ("dcgm_gpu_utilization", 87, (UTIL, 87.0)),
        ("of_my_own", 5, ("of_my_own", 5)),
    ],
)
def test_names_that_tell_their_unit_need_nothing_else(name: str, value: float, expected: tuple[str, float]) -> None:
    assert stored(SourceUnits(), name, value) == expected


@pytest.mark.parametrize("value", [0.0, 0.29, 0.57, 0.87, 1.0])
def test_a_ratio_of_4_9_is_a_percentage_and_a_ratio_of_4_6_is_one_already(value: float) -> None:
    assert stored(SourceUnits(), RATIO, value, NEW) == (UTIL, round(value * 100))
    assert stored(SourceUnits(), RATIO, value, OLD) == (UTIL, value)


def test_the_help_decides_before_anything_else() -> None:
    for text, expected in (("GPU utilization (in %).", 1.0), ("GPU utilization ratio (0-1).", 100.0)):
        units = SourceUnits()
        units.note_help(RATIO, text)
        units.note_text(f"DCGM_FI_DEV_FB_USED_BYTES {NEW}")
        assert stored(units, RATIO, 1, OLD) == (UTIL, expected)


def test_metrics_in_bytes_show_base_units() -> None:
    units = SourceUnits()
    units.note_text("DCGM_FI_DEV_FB_USED_BYTES")
    assert units.base_units is True
    assert stored(units, RATIO, 0.5) == (UTIL, 50.0)
    assert stored(units, "DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL", 2e6) == ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", 2.0)


def test_a_source_that_tells_nothing_or_both_keeps_the_name_and_the_value() -> None:
    units = SourceUnits()
    assert units.fold(RATIO) == Folded(RATIO, None)
    units.note_text(f"{OLD} {NEW}")
    assert units.base_units is None
    assert units.fold(RATIO) == Folded(RATIO, None)
    assert stored(units, RATIO, 1, NEW) == (UTIL, 100.0)
    assert units.fold(RATIO, (OLD, NEW)) == Folded(RATIO, None)


def test_help_of_other_metrics_and_without_a_word_on_units_tells_nothing() -> None:
    units = SourceUnits()
    units.note_help("DCGM_FI_DEV_FB_USED_BYTES", "in %")
    units.note_help(RATIO, "GPU utilization.")
    assert units.fold(RATIO).name == RATIO
