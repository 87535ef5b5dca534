"""GPUs that take another's place, and GPUs that were reset."""

from __future__ import annotations

from readings.model import Gpu
from tests.health.engine.building import ENERGY, UTIL, gpu, start


def points(*gpus: Gpu) -> list[tuple[Gpu, dict[str, float | None]]]:
    return [(each, {UTIL: 50.0}) for each in gpus]


def test_a_gpu_that_takes_anothers_slot_replaces_it() -> None:
    feed = start()
    feed.run(100, points(gpu(0), gpu(1)))
    feed.run(400, points(gpu(0), gpu(1, uuid="GPU-new")))
    assert feed.said("opened") == [("opened", "gpu_replaced", "GPU-new")]
    assert feed.seen[0].values["old"] == "GPU-node-1-1"


def test_two_exporters_that_give_one_slot_to_two_gpus_replace_nothing() -> None:
    feed = start()
    feed.run(100, points(gpu(0), gpu(1)))
    feed.run(400, points(gpu(0), gpu(1), gpu(1, uuid="GPU-other")))
    assert feed.said() == []


def test_a_gpu_that_comes_back_is_missed_again() -> None:
    feed = start()
    feed.run(100, points(gpu(0), gpu(1)))
    feed.run(400, points(gpu(0), gpu(1, uuid="GPU-new")))
    feed.run(100, points(gpu(0), gpu(1)))
    feed.run(300, points(gpu(0)))
    assert ("opened", "gpu_missing", "GPU-node-1-1") in feed.said()


def test_an_energy_counter_that_falls_shows_a_reset() -> None:
    feed = start()
    for energy in (5e6, 6e6, 1e3, 2e3, 3e3):
        feed.run(10, [(gpu(0), {UTIL: 50.0, ENERGY: energy})])
    assert feed.said() == [("opened", "gpu_reset", "GPU-node-1-0"), ("closed", "gpu_reset", "GPU-node-1-0")]


def test_a_reset_whose_counters_come_in_two_messages_is_one() -> None:
    feed = start()
    for energy, errors in ((5e6, 3.0), (1e3, 0.0)):
        feed.send([(gpu(0), {UTIL: 50.0, ENERGY: energy})])
        feed.send([(gpu(0), {"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": errors})])
        feed.at += 10
    assert [(each.change, each.key.rule) for each in feed.seen] == [("opened", "gpu_reset"), ("closed", "gpu_reset")]


def test_a_counter_that_is_a_little_lower_shows_no_reset() -> None:
    feed = start()
    for energy in (5_000_000.0, 5_001_000.0, 5_000_999.0, 5_002_000.0):
        feed.run(10, [(gpu(0), {UTIL: 50.0, ENERGY: energy})])
    assert feed.said() == []
