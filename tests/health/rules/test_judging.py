"""The rules as they come, on the engine: a fleet that is well has no events, and faults have those of their rules."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from health.engine.engine import Engine
from health.rules.loading import load_rules
from readings.catalogue import CATALOGUE, canonical_name
from readings.model import Gpu
from tests.health.engine.building import FleetFeed

COUNTERS = {"TOTAL_ENERGY_CONSUMPTION": 5e6}
WELL = {
    "SM_CLOCK": 1900, "GPU_TEMP": 60, "MEMORY_TEMP": 70, "GPU_TEMP_MARGIN_CELSIUS": 27, "MEM_MAX_OP_TEMP": 95, "POWER_USAGE": 500,
    "ENFORCED_POWER_LIMIT": 700, "GPU_UTIL": 92, "FB_USED": 50_000, "FB_FREE": 30_000, "FB_TOTAL": 80_000, "INFOROM_VALID": 1,
    "PCIE_LINK_GEN": 5, "PCIE_MAX_LINK_GEN": 5, "PCIE_LINK_WIDTH": 16, "PCIE_MAX_LINK_WIDTH": 16, "NVLINK_GET_STATE:nvlink:0": 1,
    "NVLINK_GET_STATE:nvlink:1": 1, "FABRIC_HEALTH_SUMMARY": 1, "ECC_MODE": 1, "PERSISTENCE_MODE": 1, "XID_ERRORS": 0,
    "GPU_RECOVERY_ACTION": 0, "ECC_SBE_VOL_TOTAL": 4, "ECC_DBE_VOL_TOTAL": 0, "UNCORRECTABLE_REMAPPED_ROWS": 1,
    "ROW_REMAP_FAILURE": 0, "ROW_REMAP_PENDING": 0, "PCIE_REPLAY_COUNTER": 40, "THERMAL_VIOLATION": 7e9, "CLOCKS_EVENT_REASONS": 4,
    "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS": 5e9, "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL:nvlink:0": 9,
    "NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:1": 3, "RETIRED_SBE": 0, "RETIRED_DBE": 0, "RETIRED_PENDING": 0,
}  # fmt: skip
GPUS = [
    Gpu(uuid=f"GPU-{number:032d}", hostname=f"node-{number // 4}", gpu_id=number % 4, device=f"nvidia{number % 4}", model_name="NVIDIA H100 80GB HBM3")
    for number in range(12)
]  # fmt: skip


def full(name: str) -> str:
    return next((found for prefix in ("DCGM_FI_DEV_", "DCGM_FI_PROF_", "DCGM_EXP_") if canonical_name(found := prefix + name).partition(":")[0] in CATALOGUE), name)  # fmt: skip


class Fleet:
    """Twelve GPUs that are well, the last of which may have a fault."""

    def __init__(self) -> None:
        self.feed = FleetFeed(Engine(load_rules()))
        self.energy = 1e9

    def run(
        self, seconds: float, fault: Mapping[str, float | None] | None = None, growth: Mapping[str, float] | None = None
    ) -> None:
        until, step = self.feed.at + seconds, 0
        while self.feed.at < until:
            self.energy += COUNTERS["TOTAL_ENERGY_CONSUMPTION"]
            well = WELL | {"TOTAL_ENERGY_CONSUMPTION": self.energy}
            step += 1
            grown = {name: well[name] + by * step for name, by in (growth or {}).items()}
            ill = well | dict(fault or {}) | grown
            points = [
                (each, {full(name): value for name, value in (ill if each is GPUS[-1] else well).items()})
                for each in GPUS
            ]
            self.feed.send(points)
            self.feed.at += self.feed.step

    def opened(self) -> list[tuple[str, str]]:
        return [(each.key.rule, each.severity) for each in self.feed.seen if each.change == "opened"]


def test_a_fleet_that_is_well_has_no_events() -> None:
    fleet = Fleet()
    fleet.run(1200)
    assert fleet.feed.said() == []


FAULTS = [
    ("temp_high", "warning", 330, {"GPU_TEMP": 88, "GPU_TEMP_MARGIN_CELSIUS": 2}, {}),
    ("temp_margin", "critical", 30, {"GPU_TEMP_MARGIN_CELSIUS": -3}, {}),
    ("mem_temp_high", "warning", 310, {"MEMORY_TEMP": 97}, {}),
    ("recovery_action", "critical", 10, {"GPU_RECOVERY_ACTION": 2}, {}),
    ("xid_fatal", "critical", 10, {"XID_ERRORS": 79}, {}),
    ("xid_app", "info", 10, {"XID_ERRORS": 13}, {}),
    ("xid_unknown", "warning", 10, {"XID_ERRORS": 999}, {}),
    ("ecc_dbe", "critical", 10, {"ECC_DBE_VOL_TOTAL": 1}, {}),
    ("ecc_sbe_rate", "warning", 20, {}, {"ECC_SBE_VOL_TOTAL": 1}),
    ("remap_failed", "critical", 10, {"ROW_REMAP_FAILURE": 1}, {}),
    ("remap_pending", "warning", 10, {"ROW_REMAP_PENDING": 1}, {}),
    ("remap_uncorrectable", "warning", 10, {"UNCORRECTABLE_REMAPPED_ROWS": 2}, {}),
    ("pages_retired", "critical", 10, {"RETIRED_DBE": 63}, {}),
    ("hw_power_brake", "critical", 30, {"CLOCKS_EVENT_REASONS": 0x84}, {}),
    ("hw_power_brake", "critical", 30, {"CLOCKS_EVENT_REASONS": 0x4}, {"CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS": 1e9}),
    ("hw_slowdown", "warning", 370, {"CLOCKS_EVENT_REASONS": 0x24}, {}),
    ("thermal_throttle", "warning", 310, {}, {"THERMAL_VIOLATION": 2e9}),
    ("clock_low", "warning", 610, {"SM_CLOCK": 900, "GPU_UTIL": 95}, {}),
    ("power_out_of_range", "warning", 30, {"POWER_USAGE": 850}, {}),
    ("power_unreadable", "warning", 30, {"POWER_USAGE": None}, {}),
    ("pcie_replay", "warning", 30, {}, {"PCIE_REPLAY_COUNTER": 6}),
    ("pcie_downgraded", "warning", 310, {"PCIE_LINK_WIDTH": 8}, {}),
    ("nvlink_errors", "critical", 10, {"NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:1": 4}, {}),
    ("nvlink_errors", "warning", 10, {"NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL:nvlink:0": 10}, {}),
    ("nvlink_inactive", "critical", 30, {"NVLINK_GET_STATE:nvlink:1": 0}, {}),
    ("nvlink_inactive", "critical", 30, {"NVLINK_GET_STATE:nvlink:0": 0, "NVLINK_GET_STATE:nvlink:1": 0}, {}),
    ("fabric_unhealthy", "critical", 30, {"FABRIC_HEALTH_SUMMARY": 2}, {}),
    ("inforom_invalid", "warning", 30, {"INFOROM_VALID": 0}, {}),
    ("energy_stuck", "warning", 620, {"TOTAL_ENERGY_CONSUMPTION": 5e9}, {}),
    ("memory_full", "info", 310, {"FB_USED": 79_000, "FB_FREE": 1000}, {}),
    ("busy_but_cold", "info", 910, {"GPU_UTIL": 99, "POWER_USAGE": 150}, {}),
    ("config_drift", "info", 3700, {"PERSISTENCE_MODE": 0}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "severity", "seconds", "fault", "growth"), FAULTS)
def test_a_fault_opens_the_event_of_its_rule_in_time_and_no_other(
    rule: str, severity: str, seconds: float, fault: Mapping[str, float | None], growth: Mapping[str, float]
) -> None:
    fleet = Fleet()
    fleet.run(300)
    fleet.run(seconds, fault, growth)
    assert fleet.opened() == [(rule, severity)]
    (event,) = [each for each in fleet.feed.seen if each.change == "opened"]
    assert event.key.entity.id == GPUS[-1].id
    assert "?" not in event.text, event.text


def test_a_card_with_bridges_has_links_that_are_off_by_design() -> None:
    feed = FleetFeed(Engine(load_rules()))
    bridged = [msgspec.structs.replace(each, model_name="NVIDIA H100 NVL") for each in GPUS]
    values = {full(name): float(value) for name, value in (WELL | {"NVLINK_GET_STATE:nvlink:1": 0}).items()}
    feed.run(600, [(each, values) for each in bridged])
    assert [event for event in feed.said() if "nvlink" in event[1]] == []
