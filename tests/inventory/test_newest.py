"""inventory.newest: the newest readings of the fleet, host by host."""

from __future__ import annotations

import numpy as np
import pytest

from inventory.newest import newest_by_host
from tests.inventory.building import POWER, T0, UTIL, block, gpu, save

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
