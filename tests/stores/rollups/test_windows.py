"""Which statistics roll-ups keep of a metric."""

from __future__ import annotations

import pytest

from stores.rollups.windows import LEVELS, STEP_NS, stats_of

UTIL, ENERGY, XID = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_XID_ERRORS"


def test_each_tier_has_a_step_and_levels() -> None:
    assert STEP_NS.keys() == LEVELS.keys()
    assert all(levels[-1] == "fleet" for levels in LEVELS.values())


@pytest.mark.parametrize("level", LEVELS["1h"])
def test_a_code_keeps_its_last_reading_alone(level: str) -> None:
    assert stats_of(XID, level) == ("last",)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", LEVELS["1h"])
def test_only_counters_keep_their_increase(level: str) -> None:
    assert {"increase", "carried"} <= set(stats_of(ENERGY, level))  # type: ignore[arg-type]
    assert "increase" not in stats_of(UTIL, level)  # type: ignore[arg-type]


def test_the_sum_of_means_follows_from_the_total_of_one_gpu() -> None:
    assert "means" not in stats_of(UTIL, "gpu")
    assert "means" in stats_of(UTIL, "host")


def test_percentiles_are_over_the_fleet() -> None:
    assert {"p5", "p50", "p95"} <= set(stats_of(UTIL, "fleet"))
    assert "p50" not in stats_of(UTIL, "model")
