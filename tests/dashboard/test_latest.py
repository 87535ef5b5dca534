"""dashboard.latest: newest values with their age, and what is absent."""

from __future__ import annotations

import pytest

from dashboard.latest import Newest, is_old, latest_table, newest_of, words_of
from inventory.newest import newest_by_host
from readings.times import SECOND
from tests.inventory.building import POWER, T0, UTIL, block, gpu, save


@pytest.mark.django_db
def test_the_newest_values_of_a_gpu() -> None:
    save(block(gpu("GPU-a"), 0, {UTIL: 10.0, POWER: 100.0}), block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 20.0}))
    save(block(gpu("GPU-a"), 10, {UTIL: 30.0}))
    hosts = newest_by_host(["host-1"])
    assert newest_of(hosts, "GPU-a") == {UTIL: Newest(30.0, T0 + 10 * SECOND), POWER: Newest(100.0, T0)}
    assert newest_of(hosts, "GPU-none") == {}


def test_a_metric_that_stopped_is_old_and_one_that_never_came_is_absent() -> None:
    values = {UTIL: Newest(1.0, T0), POWER: Newest(2.0, T0 - 301 * SECOND)}
    table = latest_table(values, T0, ["DCGM_FI_DEV_FB_USED", UTIL])
    (util,), (power,), (used,) = table["Utilisation"], table["Power and energy"], table["Memory"]
    assert (util.is_old, power.is_old, used.newest) == (False, True, None)
    assert not is_old(Newest(2.0, T0 - 300 * SECOND), T0)


def test_what_no_gpu_of_the_model_sends_is_not_supported() -> None:
    table = latest_table({UTIL: Newest(1.0, T0)}, T0, [UTIL, POWER, "DCGM_FI_DEV_FB_USED"], {UTIL, POWER})
    (power,), (used,) = table["Power and energy"], table["Memory"]
    assert (power.newest, power.is_supported, used.newest, used.is_supported) == (None, True, None, False)


def test_units_are_those_that_people_read() -> None:
    names = ["DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_POWER_VIOLATION"]
    values = dict(zip(names, [Newest(0.25, T0), Newest(7.2e9, T0), Newest(3e9, T0)], strict=True))
    rows = {row.metric_name: row for rows in latest_table(values, T0).values() for row in rows}
    shown = [(each.newest.value, each.unit) for name in names if (each := rows[name]).newest]
    assert shown == [(25.0, "%"), (pytest.approx(2.0), "kWh"), (pytest.approx(3.0), "s")]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 0x44, "power cap, thermal, hardware"),
        ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 0.0, "none"),
        ("DCGM_FI_DEV_PSTATE", 2.0, "P2"),
        ("DCGM_FI_DEV_XID_ERRORS", 79.0, "XID 79"),
        ("DCGM_FI_DEV_XID_ERRORS", 0.0, "none"),
        ("DCGM_FI_DEV_ROW_REMAP_PENDING", 1.0, "yes"),
        (UTIL, 1.0, ""),
    ],
)
def test_codes_are_said_in_words(name: str, value: float, words: str) -> None:
    assert words_of(name, value) == words
