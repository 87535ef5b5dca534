"""What only the whole fleet shows."""

from __future__ import annotations

from tests.health.engine.building import TEMP, UTIL, gpu, level, rule, start

CLOCK, ECC = "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_ECC_MODE"
SLOW = rule(
    "clock_low",
    "condition",
    level("warning", "GPU_UTIL >= 90 and SM_CLOCK < 0.6 * model_median(SM_CLOCK)", samples=3),
)


def test_a_busy_gpu_is_slow_by_what_is_usual_for_its_model() -> None:
    feed = start(SLOW)
    fleet = [(gpu(number), {UTIL: 95.0, CLOCK: 1900.0}) for number in range(8)]
    feed.run(120, fleet)
    feed.run(120, [*fleet[1:], (gpu(0), {UTIL: 95.0, CLOCK: 1000.0})])
    assert feed.said() == [("opened", "clock_low", "GPU-node-1-0")]
    alone = start(SLOW)  # too few of its model to say what is usual
    alone.run(240, [(gpu(0), {UTIL: 95.0, CLOCK: 100.0})])
    assert alone.said() == []


def test_an_idle_fleet_is_said_after_a_quarter_of_an_hour() -> None:
    feed = start(step=30)
    fleet = [gpu(number) for number in range(10)]
    feed.run(1200, [(each, {UTIL: 0.0 if number < 2 else 50.0}) for number, each in enumerate(fleet)])
    assert feed.said() == []
    idle = [(each, {UTIL: 0.0 if number < 3 else 50.0}) for number, each in enumerate(fleet)]
    feed.run(840, idle)
    assert feed.said() == []
    feed.run(240, idle)
    assert feed.said() == [("opened", "fleet_idle", "")]
    feed.run(120, [(each, {UTIL: 50.0}) for each in fleet])
    assert feed.said()[1:] == [("closed", "fleet_idle", "")]


def test_a_gpu_whose_configuration_is_not_the_others_is_said_after_an_hour() -> None:
    feed = start(step=60)
    drifted = [(gpu(number), {UTIL: 50.0, ECC: 0.0 if number == 3 else 1.0}) for number in range(10)]
    feed.run(3500, drifted)
    assert feed.said() == []
    feed.run(300, drifted)
    assert feed.said() == [("opened", "config_drift", "GPU-node-1-3")]
    assert feed.seen[0].key.subject == ECC
    feed.run(120, [(each, {UTIL: 50.0, ECC: 1.0}) for each, _ in drifted])
    assert feed.said()[1:] == [("closed", "config_drift", "GPU-node-1-3")]


def test_a_core_that_grows_hotter_at_the_same_load_is_said() -> None:
    feed = start(step=30)
    for hotter, expected in ((0.5, []), (1.5, [("opened", "temp_ramp", "GPU-node-1-0")])):
        temperature = 40.0
        for _ in range(16):
            feed.run(30, [(gpu(0), {UTIL: 50.0, TEMP: temperature})])
            temperature += hotter
        assert feed.said() == expected
    feed.run(600, [(gpu(0), {UTIL: 50.0, TEMP: 70.0})])
    assert feed.said()[1:] == [("closed", "temp_ramp", "GPU-node-1-0")]
