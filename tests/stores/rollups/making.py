"""Short ways to make windows and to read them back in tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stores.rollups.windows import STEP_NS, Level, RollupStore, Tier, WindowKey, WindowTable

HOUR = STEP_NS["1h"]
BEGIN = 1_752_868_800_000_000_000  # 2025-07-18T20:00:00Z, in ns
UTIL, TEMP, ENERGY = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"

# The statistics of a window: metric -> statistic -> value.
Stats = Mapping[str, Mapping[str, float]]


def table(tier: Tier, level: Level, rows: Sequence[tuple[WindowKey, int, Stats]]) -> WindowTable:
    """A table from rows of key, start and statistics."""
    keys = list(dict.fromkeys(key for key, _, _ in rows))
    names = list(dict.fromkeys(name for _, _, metrics in rows for name in metrics))
    stats = dict.fromkeys(stat for _, _, metrics in rows for values in metrics.values() for stat in values)
    return WindowTable(
        tier,
        level,
        keys,
        names,
        np.array([keys.index(key) for key, _, _ in rows], dtype=np.int64),
        np.array([start for _, start, _ in rows], dtype=np.int64),
        {
            stat: np.array(
                [[metrics.get(name, {}).get(stat, math.nan) for name in names] for _, _, metrics in rows],
                dtype=np.float64,
            ).reshape(len(rows), len(names))
            for stat in stats
        },
    )


def host(name: str, model: str = "NVIDIA H100 80GB HBM3") -> WindowKey:
    """A key of the level of hosts."""
    return WindowKey(hostname=name, model=model)


def gpu(number: int, **fields: str) -> WindowKey:
    """A key of the level of GPUs, eight to a host."""
    found = WindowKey(f"GPU-{number:04d}", "", f"host-{number // 8:03d}", "NVIDIA H100 80GB HBM3")
    return found._replace(**fields)


# Key and start of a window -> its statistics.
Found = dict[tuple[WindowKey, int], dict[str, float]]


def windows(rollups: RollupStore, tier: Tier, level: Level, metric: str, stats: Sequence[str], **asked: Any) -> Found:
    """What read() finds, from BEGIN on for a year unless told otherwise."""
    start, end = asked.pop("start_ns", BEGIN), asked.pop("end_ns", BEGIN + 365 * 24 * HOUR)
    answer = rollups.read(tier, level, metric, stats, start, end, **asked)
    assert (answer.tier, answer.level, list(answer.names)) == (tier, level, [metric])
    assert list(answer.stats) == list(stats)
    assert np.all(np.diff(answer.starts_ns) >= 0)
    found: Found = {}
    for row, (place, start) in enumerate(zip(answer.places.tolist(), answer.starts_ns.tolist(), strict=True)):
        values = {stat: float(column[row, 0]) for stat, column in answer.stats.items()}
        key = (answer.keys[place], start)
        assert key not in found
        found[key] = {stat: value for stat, value in values.items() if not math.isnan(value)}
    return found
