from __future__ import annotations

import pytest

from readings.catalogue import CATALOGUE, canonical_name, info, name_of_part, unit_of, whole_of
from readings.checks import problem_of

ON_BY_DEFAULT = [
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEM_CLOCK",
    "DCGM_FI_DEV_MEMORY_TEMP",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_ENC_UTIL",
    "DCGM_FI_DEV_DEC_UTIL",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_RESERVED",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE",
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
    "DCGM_FI_DEV_VGPU_LICENSE_STATUS",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
    "DCGM_FI_PROF_PCIE_TX_BYTES",
    "DCGM_FI_PROF_PCIE_RX_BYTES",
]
ON_REQUEST = [
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",
    "DCGM_FI_DEV_THERMAL_VIOLATION",
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
    "DCGM_FI_DEV_RETIRED_PENDING",
    "DCGM_FI_PROF_SM_OCCUPANCY",
    "DCGM_FI_PROF_PIPE_FP64_ACTIVE",
    "DCGM_EXP_XID_ERRORS_COUNT",
    "DCGM_EXP_CLOCK_EVENTS_COUNT",
    "DCGM_EXP_GPU_HEALTH_STATUS",
]


@pytest.mark.parametrize("name", ON_BY_DEFAULT + ON_REQUEST)
def test_what_dcgm_exporter_can_give_is_known(name: str) -> None:
    assert name in CATALOGUE


def test_no_name_or_alias_means_two_metrics() -> None:
    names = [name for metric in CATALOGUE.values() for name in metric.spellings]
    assert len(names) == len(set(names))


def test_every_metric_is_described_whole() -> None:
    for name, metric in CATALOGUE.items():
        assert metric.name == name
        assert metric.title
        assert metric.unit
        assert metric.description.endswith(".")
        assert metric.kind in {"gauge", "counter", "event"}
        assert metric.low is None or metric.high is None or metric.low < metric.high


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("DCGM_FI_DEV_DEC_UTIL ", "DCGM_FI_DEV_DEC_UTIL"),
        ("dcgm_gpu_utilization", "DCGM_FI_DEV_GPU_UTIL"),
        ("dcgm_ecc_dbe_volatile_total", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
        ("dcgm_sync_boost_violation", "DCGM_FI_DEV_SYNC_BOOST_VIOLATION"),
        (" dcgm_fi_prof_gr_engine_active", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
        ("dcgm_nvlink_flit_crc_error_count_total", "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"),
        ("DCGM_FI_DEV_GPU_TEMP_CELSIUS", "DCGM_FI_DEV_GPU_TEMP"),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
        ("dcgm_pcie_replay_counter_total", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
        ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL_total", "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
        ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL_total", "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"),
        ("DCGM_FI_PROF_PCIE_TX_BYTES_total ", "DCGM_FI_PROF_PCIE_TX_BYTES"),
        (
            "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL_total:nvlink:2",
            "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:2",
        ),
        ("dcgm_fi_dev_inforom_config_valid", "DCGM_FI_DEV_INFOROM_VALID"),
        ("dcgm_fi_dev_total_energy_consumption_total", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
        ("DCGM_FI_DEV_GPU_TEMP_total", "DCGM_FI_DEV_GPU_TEMP_total"),
        ("my_own_metric_total", "my_own_metric_total"),
        ("my_own_metric", "my_own_metric"),
        ("", ""),
    ],
)
def test_names_fold_to_one(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical


@pytest.mark.parametrize(
    "name", ["DCGM_FI_DEV_SM_CLOCK_HERTZ", "DCGM_FI_DEV_GPU_UTIL_RATIO", "DCGM_FI_DEV_FB_USED_BYTES"]
)
def test_a_name_whose_unit_depends_on_the_source_is_not_folded(name: str) -> None:
    assert canonical_name(name) == name
    assert info(name) is None


def test_units_are_asked_by_name_or_alias() -> None:
    assert unit_of("DCGM_FI_DEV_POWER_USAGE") == "W"
    assert unit_of("dcgm_fb_used") == "MiB"
    assert unit_of("my_own_metric") == ""


def test_the_throughputs_that_exporters_call_counters_are_rates() -> None:
    for name in ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_EXP_XID_ERRORS_COUNT"):
        assert CATALOGUE[name].kind == "gauge"


def test_parts_of_a_gpu_have_names_of_their_own_and_the_whole_ones_unit() -> None:
    name = name_of_part("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", {"nvlink": "3", "gpu": "0"})
    assert name == "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:3"
    assert canonical_name("dcgm_nvlink_replay_error_count_total:nvlink:3") == name
    assert unit_of(name) == "count"
    assert whole_of(name) == "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"
    assert name_of_part("x", {"clock_event": "sw thermal/2"}) == "x:clock_event:sw_thermal_2"
    assert name_of_part("x", {"gpu": "0"}) == "x"


DEV = "DCGM_FI_DEV_"


@pytest.mark.parametrize(
    ("name", "other_names", "unit", "kind", "combine"),
    [
        ("GPU_RECOVERY_ACTION", "GET_GPU_RECOVERY_ACTION", "code", "gauge", "never"),
        ("ROW_REMAP_PENDING", "", "bool", "gauge", "one"),
        ("CLOCKS_EVENT_REASONS", "CLOCK_THROTTLE_REASONS", "bitmask", "gauge", "never"),
        ("CLOCKS_EVENT_REASON_SW_POWER_CAP_NS", "", "ns", "counter", "one"),
        ("CLOCKS_EVENT_REASON_SYNC_BOOST_NS", "", "ns", "counter", "one"),
        ("CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS", "", "ns", "counter", "one"),
        ("CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS", "", "ns", "counter", "one"),
        ("CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS", "", "ns", "counter", "one"),
        ("GPU_TEMP_MARGIN_CELSIUS", "GPU_TEMP_LIMIT", "°C", "gauge", "one"),
        ("GPU_TEMP_SLOWDOWN_CELSIUS", "SLOWDOWN_TEMP", "°C", "gauge", "one"),
        ("GPU_MAX_OP_TEMP", "GPU_MAX_OP_TEMP_CELSIUS", "°C", "gauge", "one"),
        ("MEM_MAX_OP_TEMP", "MEMORY_MAX_OP_TEMP_CELSIUS", "°C", "gauge", "one"),
        ("ENFORCED_POWER_LIMIT", "BOARD_POWER_LIMIT_ENFORCED_WATTS", "W", "gauge", "one"),
        ("POWER_MGMT_LIMIT", "BOARD_POWER_LIMIT_REQUESTED_WATTS", "W", "gauge", "one"),
        ("POWER_MGMT_LIMIT_DEF", "BOARD_POWER_LIMIT_DEFAULT_WATTS", "W", "gauge", "one"),
        ("PCIE_LINK_GEN", "", "generation", "gauge", "one"),
        ("PCIE_MAX_LINK_WIDTH", "", "lanes", "gauge", "one"),
        ("FABRIC_HEALTH_SUMMARY", "", "state", "gauge", "never"),
        ("BANKS_REMAP_ROWS_AVAIL_MAX", "BANK_REMAP_AVAIL_MAX", "count", "gauge", "one"),
        ("BANKS_REMAP_ROWS_AVAIL_NONE", "BANK_REMAP_AVAIL_NONE", "count", "gauge", "one"),
        ("MEMORY_UNREPAIRABLE_FLAG", "MEMORY_UNREPAIRABLE", "bool", "gauge", "one"),
        ("NVLINK_COUNT_EFFECTIVE_BER_FLOAT", "NVLINK_EFFECTIVE_BER_RATIO", "ratio", "gauge", "max"),
        ("PSTATE", "GPU_PSTATE", "state", "gauge", "never"),
        ("FAN_SPEED", "", "%", "gauge", "one"),
        ("NVLINK_GET_STATE", "", "state", "gauge", "never"),
        ("ECC_MODE", "ECC_CURRENT", "bool", "gauge", "one"),
        ("PERSISTENCE_MODE", "GPU_PERSISTENCE_MODE", "bool", "gauge", "one"),
        ("INFOROM_VALID", "INFOROM_CONFIG_VALID", "bool", "gauge", "one"),
    ],
)
def test_what_health_needs_is_of_the_board_under_one_name(
    name: str, other_names: str, unit: str, kind: str, combine: str
) -> None:
    metric = CATALOGUE[DEV + name]
    assert (metric.scope, metric.unit, metric.kind, metric.combine) == ("board", unit, kind, combine)
    for other in other_names.split():
        assert canonical_name(DEV + other) == DEV + name


@pytest.mark.parametrize(
    ("name", "value"),
    [("GPU_TEMP_MARGIN_CELSIUS", -7.0), ("FAN_SPEED", 104.0), ("PSTATE", 32.0), ("CLOCKS_EVENT_REASONS", 2.0**40)],
)
def test_unusual_values_of_health_are_possible(name: str, value: float) -> None:
    assert problem_of(DEV + name, value) is None
