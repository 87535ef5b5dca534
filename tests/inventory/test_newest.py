"""inventory.newest: the newest readings of the fleet, host by host."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_django import Settings

from inventory.newest import newest_by_host, stale_mask
from tests.inventory.building import POWER, SECOND, T0, UTIL, block, gpu, save

pytestmark = pytest.mark.django_db


def test_each_host_has_its_gpus_and_nan_where_there_is_no_reading() -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 10.0, POWER: 100.5}),
        block(gpu("GPU-b", gpu_id=1), 2, {UTIL: 40.0}),
        block(gpu("GPU-c", hostname="host-0"), 1, {UTIL: 0.0}),
    )
    newest = newest_by_host()
    assert sorted(newest) == ["host-0", "host-1"]
    host = newest["host-1"]
    power, util = (host.metric_names.index(name) for name in (POWER, UTIL))
    assert host.gpu_ids == ("GPU-a", "GPU-b")
    assert host.values[:, util].tolist() == [10.0, 40.0]
    assert host.values[0, power] == 100.5
    assert np.isnan(host.values[1, power])
    assert host.times_ns[1, power] == 0
    assert host.last_seen_ns.tolist() == [T0, T0 + 2_000_000_000]
    assert list(newest_by_host(["host-0", "nowhere"])) == ["host-0"]


def stale_at(now_s: int, *gpus: tuple[int, bool, str]) -> list[bool]:
    """Staleness at T0 + ``now_s`` of GPUs given as (last seen in seconds after T0, live, source)."""
    seconds, live, sources = zip(*gpus, strict=True)
    last_seen = T0 + np.array(seconds, np.int64) * SECOND
    return list(stale_mask(last_seen, np.array(live, np.bool_), sources, T0 + now_s * SECOND))


def test_live_gpus_age_by_the_clock_and_captures_by_their_own_newest_reading(settings: Settings) -> None:
    settings.STALE_AFTER = 300.0
    live = [(700, True, "a"), (699, True, "a"), (0, True, "b")]
    captures = [(0, False, "c"), (-300, False, "c"), (-301, False, "c"), (-9000, False, "d")]
    assert stale_at(1000, *live, *captures) == [False, True, True, False, False, True, False]
    assert stale_at(1000, *live) == [False, True, True]


def test_a_clock_that_is_ahead_makes_nobody_else_stale(settings: Settings) -> None:
    settings.STALE_AFTER = 300.0
    assert stale_at(10, (100_000, True, "a"), (10, True, "a"), (10, True, "a")) == [False, False, False]
    assert stale_mask(np.zeros(0, np.int64), np.zeros(0, np.bool_), (), T0).tolist() == []
