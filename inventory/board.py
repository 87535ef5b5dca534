"""Metrics of a whole board, and the few that lists show."""

from __future__ import annotations

UTILISATION = "DCGM_FI_DEV_GPU_UTIL"
POWER = "DCGM_FI_DEV_POWER_USAGE"
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
MEMORY_USED = "DCGM_FI_DEV_FB_USED"
MEMORY_FREE = "DCGM_FI_DEV_FB_FREE"
MEMORY_RESERVED = "DCGM_FI_DEV_FB_RESERVED"
MEMORY_TOTAL = "DCGM_FI_DEV_FB_TOTAL"

# dcgm-exporter repeats these on each MIG instance, though they are the board's: kept once, on the physical GPU's row.
BOARD_METRICS = frozenset(
    {
        POWER,
        TEMPERATURE,
        "DCGM_FI_DEV_MEMORY_TEMP",
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    }
)
