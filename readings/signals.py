"""Which metrics a judgement of a GPU's health needs, and so what an exporter has to send for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from readings.catalogue import canonical_name, whole_of


class Signal(NamedTuple):
    """A rule, what it finds, and what it needs: one metric of each of ``needs``, named as dcgm-exporter 4 names them."""

    rule: str
    finds: str
    needs: tuple[tuple[str, ...], ...]

    @property
    def metrics(self) -> tuple[tuple[str, ...], ...]:
        """The same under the names of the catalogue."""
        return tuple(tuple(canonical_name(name) for name in alternatives) for alternatives in self.needs)

    def missing(self, metric_names: Iterable[str]) -> tuple[str, ...]:
        """The metrics to add so that the rule has its data. ``metric_names`` are those that there are, parts included."""
        there = {whole_of(name) for name in metric_names}
        return tuple(
            alternatives[0]
            for alternatives in self.needs
            if not any(canonical_name(name) in there for name in alternatives)
        )


_XID = ("DCGM_FI_DEV_XID_ERRORS",)
_UTIL = ("DCGM_FI_DEV_GPU_UTIL",)
_POWER = ("DCGM_FI_DEV_POWER_USAGE",)
_TEMP = ("DCGM_FI_DEV_GPU_TEMP",)
_REASONS = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS",)
_CRC = ("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL")

# In the order in which people look: the driver's word, errors, heat and power, links, use.
SIGNALS = (
    Signal("recovery_action", "The driver asks for a reset or a reboot", (("DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION",),)),
    Signal("xid", "XID errors: fatal ones, warnings, those of applications", (_XID,)),
    Signal("xid_repeat", "The same XID again and again", (("DCGM_EXP_XID_ERRORS_COUNT", "DCGM_EXP_XID_ERRORS_TOTAL"),)),
    Signal("dcgm_health", "DCGM's own health watch", (("DCGM_EXP_GPU_HEALTH_STATUS",),)),
    Signal(
        "ecc_dbe", "Double-bit memory errors", (("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"),)
    ),
    Signal("ecc_sbe_rate", "Single-bit memory errors that come often", (("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",),)),
    Signal("remap_failed", "Rows of memory that could not be remapped", (("DCGM_FI_DEV_ROW_REMAP_FAILURE",),)),
    Signal("remap_pending", "Rows to remap at the next reset", (("DCGM_FI_DEV_ROW_REMAP_PENDING",),)),
    Signal("remap_uncorrectable", "Rows remapped for errors", (("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",),)),
    Signal("remap_spare_gone", "Memory banks without spare rows", (("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_NONE",),)),
    Signal(
        "pages_retired",
        "Retired pages, on GPUs before Ampere",
        (("DCGM_FI_DEV_RETIRED_DBE",), ("DCGM_FI_DEV_RETIRED_SBE",)),
    ),
    Signal("memory_unrepairable", "Memory that cannot be repaired", (("DCGM_FI_DEV_MEMORY_UNREPAIRABLE_FLAG",),)),
    Signal("inforom_invalid", "A damaged InfoROM", (("DCGM_FI_DEV_INFOROM_CONFIG_VALID",),)),
    Signal("temp_high", "A core that is too hot", (_TEMP,)),
    Signal("temp_margin", "Little left to the thermal slowdown", (("DCGM_FI_DEV_GPU_TEMP_LIMIT",),)),
    Signal("mem_temp_high", "Memory that is too hot", (("DCGM_FI_DEV_MEMORY_TEMP",),)),
    Signal("thermal_throttle", "Clocks held down by heat, by its share of time", (("DCGM_FI_DEV_THERMAL_VIOLATION",),)),
    Signal("hw_slowdown", "Clocks held down by the hardware, and why", (_REASONS,)),
    Signal(
        "hw_power_brake",
        "The server's power brake",
        ((*_REASONS, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS"),),
    ),
    Signal("clock_low", "Busy at low clocks", (_UTIL, ("DCGM_FI_DEV_SM_CLOCK",))),
    Signal("power_unreadable", "A power sensor that went silent", (_POWER,)),
    Signal("power_out_of_range", "Power above the limit that holds", (_POWER, ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT",))),
    Signal("energy_stuck", "An energy counter that stands still", (_POWER, ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",))),
    Signal("pcie_replay", "PCIe transfers sent again", (("DCGM_FI_DEV_PCIE_REPLAY_COUNTER",),)),
    Signal(
        "pcie_downgraded",
        "A PCIe link slower than it can be",
        (
            ("DCGM_FI_DEV_PCIE_LINK_GEN",),
            ("DCGM_FI_DEV_PCIE_MAX_LINK_GEN",),
            ("DCGM_FI_DEV_PCIE_LINK_WIDTH",),
            ("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",),
            _UTIL,
        ),
    ),
    Signal(
        "nvlink_errors",
        "NVLink errors",
        (("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",), ("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",), _CRC),
    ),
    Signal("nvlink_inactive", "NVLinks that are off", (("DCGM_FI_DEV_NVLINK_GET_STATE",),)),
    Signal("nvlink_ber", "NVLinks with many bit errors", (("DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER_FLOAT",),)),
    Signal("fabric_unhealthy", "An unhealthy NVLink fabric", (("DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY",),)),
    Signal("prof_dead", "Profiling counters that read 0 on a busy GPU", (_UTIL, ("DCGM_FI_PROF_GR_ENGINE_ACTIVE",))),
    Signal("idle_held", "GPUs that are held and not used", (_UTIL, ("DCGM_FI_DEV_FB_USED",))),
    Signal(
        "memory_full",
        "Memory that is nearly full",
        (("DCGM_FI_DEV_FB_USED",), ("DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_TOTAL")),
    ),
    Signal("busy_but_cold", "Busy at the power of an idle GPU", (_UTIL, _POWER)),
    Signal(
        "config_drift",
        "ECC or persistence mode unlike the others'",
        (("DCGM_FI_DEV_ECC_CURRENT",), ("DCGM_FI_DEV_PERSISTENCE_MODE",)),
    ),
)
