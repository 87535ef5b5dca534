"""How the values of MIG instances, or of pods that share a GPU, make the value of the whole board.

Stores, the inventory and its summaries all ask here, so that a board counts once in each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum
from statistics import fmean
from typing import Literal

from readings.catalogue import unit_of

# The metrics that lists and summaries show.
UTILISATION = "DCGM_FI_DEV_GPU_UTIL"
POWER = "DCGM_FI_DEV_POWER_USAGE"
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
MEMORY_USED = "DCGM_FI_DEV_FB_USED"
MEMORY_FREE = "DCGM_FI_DEV_FB_FREE"
MEMORY_RESERVED = "DCGM_FI_DEV_FB_RESERVED"
MEMORY_TOTAL = "DCGM_FI_DEV_FB_TOTAL"

# dcgm-exporter repeats the board's value of these metrics on each MIG instance.
BOARD_METRICS = frozenset({POWER, TEMPERATURE, "DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"})
_AMOUNTS = frozenset({"MiB", "W", "mJ", "count", "ns", "KB/s", "MB/s", "B/s", ""})

Combination = Literal["one", "add", "average"]


def how_parts_combine(metric_name: str) -> Combination:
    """How a board's value follows from those of its parts.

    ``one``: each part repeats the board's value. ``add``: amounts, such as memory and counts, and unknown metrics.
    ``average``: shares of time, clocks and states.
    """
    if metric_name in BOARD_METRICS:
        return "one"
    return "add" if unit_of(metric_name) in _AMOUNTS else "average"


def board_value(metric_name: str, parts: Iterable[float]) -> float:
    """The board's value, from one value of each part; the largest where each part repeats the board's."""
    combination = how_parts_combine(metric_name)
    return max(parts) if combination == "one" else fsum(parts) if combination == "add" else fmean(parts)
