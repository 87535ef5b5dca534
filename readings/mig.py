"""How the values of MIG instances, or of pods that share a GPU, make the value of the whole board.

Stores, the inventory and its summaries all ask here, so that a board counts once in each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum
from statistics import fmean
from typing import Literal

from readings.catalogue import combine_of

# The metrics that lists and summaries show.
UTILISATION = "DCGM_FI_DEV_GPU_UTIL"
POWER = "DCGM_FI_DEV_POWER_USAGE"
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
MEMORY_USED = "DCGM_FI_DEV_FB_USED"
MEMORY_FREE = "DCGM_FI_DEV_FB_FREE"
MEMORY_RESERVED = "DCGM_FI_DEV_FB_RESERVED"
MEMORY_TOTAL = "DCGM_FI_DEV_FB_TOTAL"

Combination = Literal["once", "add", "average"]


def how_parts_combine(metric_name: str) -> Combination:
    """How a board's value follows from those of its parts (see ``combine`` in catalogue.toml).

    ``once``: one part stands for all, the one with the largest value. ``add``: the sum. ``average``: the mean.
    """
    match combine_of(metric_name):
        case "sum":
            return "add"
        case "mean":
            return "average"
    return "once"


def board_value(metric_name: str, parts: Iterable[float]) -> float:
    """The board's value, from one value of each part."""
    combination = how_parts_combine(metric_name)
    return max(parts) if combination == "once" else fsum(parts) if combination == "add" else fmean(parts)
