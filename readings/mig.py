"""A physical GPU (a board) that is cut into MIG instances or shared by pods: how the parts make the whole."""

from __future__ import annotations

from typing import Literal

from readings.catalogue import unit_of

# dcgm-exporter repeats these on each MIG instance, though they are the board's.
BOARD_METRICS = frozenset(
    {
        "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_GPU_TEMP",
        "DCGM_FI_DEV_MEMORY_TEMP",
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    }
)
_AMOUNTS = frozenset({"MiB", "W", "mJ", "count", "ns", "KB/s", "MB/s", "B/s", ""})

Combination = Literal["one", "add", "average"]


def how_parts_combine(metric_name: str) -> Combination:
    """What the parts' values make of their board: any ``one`` of them, since each tells of the whole; their sum (memory,
    counts; also metrics that nobody knows); or their mean (shares of time, clocks, states)."""
    if metric_name in BOARD_METRICS:
        return "one"
    return "add" if unit_of(metric_name) in _AMOUNTS else "average"
