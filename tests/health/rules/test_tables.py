"""The tables of rules and XIDs against facts that were typed from the sources' page, not from the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from health.rules.loading import load_rules
from health.rules.model import ACTIONS, SEVERITIES, Rules
from readings.catalogue import CATALOGUE, canonical_name
from tests.health.rules.views import NAN, PlainView

ROOT = Path(__file__).resolve().parents[3]
MINUTE_NS, HOUR_NS, DAY_NS = 60 * 10**9, 3600 * 10**9, 86_400 * 10**9

NAMES = """gpu_missing host_stale source_silent clock_skew gpu_replaced gpu_reset sample_loss metric_vanished prof_dead
energy_stuck power_unreadable recovery_action xid_fatal xid_warning xid_app xid_nvlink5 xid_unknown xid_repeat_gpu
xid31_same_gpu xid31_many_gpus xid_after_reset lemon_node ecc_dbe ecc_sbe_rate remap_failed remap_pending
remap_uncorrectable remap_spare_gone pages_retired memory_unrepairable inforom_invalid temp_margin temp_high mem_temp_high
temp_ramp thermal_throttle hw_slowdown hw_power_brake power_out_of_range clock_low pcie_replay pcie_downgraded nvlink_errors
nvlink_inactive nvlink_ber fabric_unhealthy dcgm_health idle_held fleet_idle memory_full busy_but_cold config_drift"""


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules()


def test_every_rule_is_there(rules: Rules) -> None:
    assert list(rules) == NAMES.split()


def test_every_rule_can_be_shown(rules: Rules) -> None:
    for rule in rules.values():
        assert rule.title, rule.name
        assert rule.finds.endswith("."), rule.name
        assert rule.says, rule.name
        assert rule.source, rule.name
        assert rule.action in ACTIONS, rule.name
        assert rule.action_text.endswith("."), rule.name
        assert rule.severity in SEVERITIES, rule.name
        assert (rule.judge == "condition") == bool(rule.levels), rule.name
        assert rule.enabled, rule.name


def test_nobody_is_told_of_what_is_info_or_rests_on_our_numbers_alone(rules: Rules) -> None:
    quiet = {rule.name for rule in rules.values() if rule.quiet}
    assert {name for name, rule in rules.items() if rule.severity == "info"} <= quiet
    assert quiet - {name for name, rule in rules.items() if rule.severity == "info"} == {
        "energy_stuck", "mem_temp_high", "clock_low",
    }  # fmt: skip
    assert rules["metric_vanished"].stores_only("info")
    assert not rules["metric_vanished"].stores_only("warning")


SETTINGS: dict[str, dict[str, float]] = {
    "gpu_missing": {"samples": 3, "after_s": 120, "seen_within_s": 21_600},
    "host_stale": {"warning_s": 300, "critical_s": 900},
    "source_silent": {"share": 0.9, "for_s": 120, "clear_share": 0.1},
    "sample_loss": {"share": 0.8, "window_s": 3600, "clear_share": 0.95},
    "metric_vanished": {"share": 0.9, "history_s": 86_400, "absent_s": 900},
    "xid_fatal": {"quiet_s": 3600, "clear_samples": 3},
    "xid_warning": {"quiet_s": 86_400},
    "xid_unknown": {"quiet_s": 86_400},
    "xid_repeat_gpu": {"count": 5, "window_s": 86_400, "burst_s": 180},
    "xid31_same_gpu": {"count": 2, "window_s": 86_400, "quiet_s": 86_400},
    "xid31_many_gpus": {"count": 2, "window_s": 86_400, "quiet_s": 86_400},
    "xid_after_reset": {"resets": 2},
    "lemon_node": {"count": 5, "window_s": 7 * 86_400},
    "xid_nvlink5": {"quiet_s": 86_400, "asked_within_s": 300},
    "fleet_idle": {"share": 0.2, "clear_share": 0.15, "for_s": 900, "idle": 5},
    "config_drift": {"for_s": 3600},
    "temp_ramp": {"degrees_per_minute": 2, "window_s": 300},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_numbers_of_rules_that_code_judges(rules: Rules, name: str) -> None:
    assert {key: rules[name].settings[key] for key in SETTINGS[name]} == SETTINGS[name]


def test_the_engine_asks_for_every_setting_of_the_rules_that_it_judges(rules: Rules) -> None:
    """A number that changes nothing must not look as if it did."""
    engine = "".join(path.read_text() for path in (ROOT / "health" / "engine").glob("*.py"))
    for rule in rules.values():
        in_conditions = {
            name for level in rule.levels for each in (level.when, level.until) if each for name in each.settings
        }
        for name in rule.settings.keys() - in_conditions:
            assert f'"{name}"' in engine, f"{rule.name}: {name}"


# rule, severity: samples, for, clear_samples, clear_for
LEVELS = {
    ("prof_dead", "warning"): (1, 10 * MINUTE_NS, 1, 0),
    ("energy_stuck", "warning"): (1, 10 * MINUTE_NS, 1, 0),
    ("power_unreadable", "warning"): (3, 0, 3, 0),
    ("recovery_action", "critical"): (1, 0, 3, 0),
    ("recovery_action", "warning"): (1, 0, 3, 0),
    ("ecc_dbe", "critical"): (1, 0, 1, HOUR_NS),
    ("ecc_sbe_rate", "warning"): (1, 0, 1, HOUR_NS),
    ("remap_pending", "warning"): (1, 0, 3, 0),
    ("remap_uncorrectable", "warning"): (1, 0, 1, 7 * DAY_NS),
    ("temp_margin", "critical"): (3, 0, 3, 0),
    ("temp_high", "warning"): (1, 5 * MINUTE_NS, 3, 0),
    ("temp_high", "critical"): (1, 2 * MINUTE_NS, 3, 0),
    ("mem_temp_high", "warning"): (1, 5 * MINUTE_NS, 3, 0),
    ("thermal_throttle", "warning"): (1, 5 * MINUTE_NS, 1, 5 * MINUTE_NS),
    ("hw_slowdown", "warning"): (6, 6 * MINUTE_NS, 1, 10 * MINUTE_NS),
    ("hw_power_brake", "critical"): (3, 0, 3, 0),
    ("power_out_of_range", "critical"): (3, 0, 3, 0),
    ("power_out_of_range", "warning"): (3, 0, 3, 0),
    ("clock_low", "warning"): (1, 10 * MINUTE_NS, 1, 0),
    ("pcie_replay", "warning"): (3, 0, 1, 10 * MINUTE_NS),
    ("pcie_downgraded", "warning"): (1, 5 * MINUTE_NS, 3, 0),
    ("nvlink_errors", "critical"): (1, 0, 1, 10 * MINUTE_NS),
    ("nvlink_inactive", "critical"): (3, 0, 3, 0),
    ("nvlink_ber", "warning"): (3, 0, 3, 0),
    ("fabric_unhealthy", "critical"): (3, 0, 3, 0),
    ("dcgm_health", "critical"): (3, 0, 3, 0),
    ("idle_held", "info"): (1, 15 * MINUTE_NS, 3, 0),
    ("memory_full", "info"): (1, 5 * MINUTE_NS, 1, 0),
    ("busy_but_cold", "info"): (1, 15 * MINUTE_NS, 1, 0),
    ("inforom_invalid", "warning"): (3, 0, 1, 0),
}


@pytest.mark.parametrize(("name", "severity"), LEVELS)
def test_how_often_and_how_long_a_condition_must_hold(rules: Rules, name: str, severity: str) -> None:
    (level,) = [level for level in rules[name].levels if level.severity == severity]
    assert (level.samples, level.for_ns, level.clear_samples, level.clear_ns) == LEVELS[name, severity]


# rule, what is there, and the severity whose condition holds (None: unknown, "": none)
CASES = [
    ("prof_dead", {"GPU_UTIL": 90, "GR_ENGINE_ACTIVE": 0}, "warning"),
    ("prof_dead", {"GPU_UTIL": 89, "GR_ENGINE_ACTIVE": 0}, ""),
    ("recovery_action", {"GPU_RECOVERY_ACTION": 1}, "critical"),
    ("recovery_action", {"GPU_RECOVERY_ACTION": 3}, "warning"),
    ("recovery_action", {"GPU_RECOVERY_ACTION": 7}, "critical"),
    ("recovery_action", {"GPU_RECOVERY_ACTION": 0}, ""),
    ("remap_failed", {"ROW_REMAP_FAILURE": 1}, "critical"),
    ("remap_pending", {"ROW_REMAP_PENDING": 1}, "warning"),
    ("remap_spare_gone", {"BANKS_REMAP_ROWS_AVAIL_NONE": 1}, "warning"),
    ("memory_unrepairable", {"MEMORY_UNREPAIRABLE_FLAG": 1}, "critical"),
    ("inforom_invalid", {"INFOROM_VALID": 0}, "warning"),
    ("temp_margin", {"GPU_TEMP_MARGIN_CELSIUS": -3}, "critical"),
    ("temp_margin", {"GPU_TEMP_MARGIN_CELSIUS": -2}, ""),
    ("temp_high", {"GPU_TEMP": 86, "GPU_TEMP_MARGIN_CELSIUS": NAN}, "warning"),
    ("temp_high", {"GPU_TEMP": 85, "GPU_TEMP_MARGIN_CELSIUS": NAN}, ""),
    ("temp_high", {"GPU_TEMP": 96, "GPU_TEMP_MARGIN_CELSIUS": NAN}, "critical"),
    ("temp_high", {"GPU_TEMP": 90, "GPU_TEMP_MARGIN_CELSIUS": 4}, "warning"),
    ("temp_high", {"GPU_TEMP": 96, "GPU_TEMP_MARGIN_CELSIUS": 14}, ""),
    ("mem_temp_high", {"MEMORY_TEMP": 96, "MEM_MAX_OP_TEMP": NAN}, "warning"),
    ("mem_temp_high", {"MEMORY_TEMP": 96, "MEM_MAX_OP_TEMP": 105}, ""),
    ("mem_temp_high", {"MEMORY_TEMP": 91, "MEM_MAX_OP_TEMP": 90}, "warning"),
    ("hw_slowdown", {"CLOCKS_EVENT_REASONS": 0x8}, "warning"),
    ("hw_slowdown", {"CLOCKS_EVENT_REASONS": 0x20}, "warning"),
    ("hw_slowdown", {"CLOCKS_EVENT_REASONS": 0x4 | 0x1 | 0x100}, ""),
    ("power_out_of_range", {"POWER_USAGE": 850, "ENFORCED_POWER_LIMIT": 700}, "warning"),
    ("power_out_of_range", {"POWER_USAGE": 840, "ENFORCED_POWER_LIMIT": 700}, ""),
    ("power_out_of_range", {"POWER_USAGE": 60, "ENFORCED_POWER_LIMIT": NAN}, ""),
    ("nvlink_ber", {"NVLINK_COUNT_EFFECTIVE_BER_FLOAT": 2e-6}, "warning"),
    ("nvlink_ber", {"NVLINK_COUNT_EFFECTIVE_BER_FLOAT": 1e-6}, ""),
    ("fabric_unhealthy", {"FABRIC_HEALTH_SUMMARY": 2}, "critical"),
    ("fabric_unhealthy", {"FABRIC_HEALTH_SUMMARY": 3}, "warning"),
    ("fabric_unhealthy", {"FABRIC_HEALTH_SUMMARY": 0}, ""),
    ("dcgm_health", {"GPU_HEALTH_STATUS": 20}, "critical"),
    ("dcgm_health", {"GPU_HEALTH_STATUS": 10}, "warning"),
    ("memory_full", {"FB_USED": 96, "FB_FREE": 4, "FB_TOTAL": NAN}, "info"),
    ("memory_full", {"FB_USED": 95, "FB_FREE": 5, "FB_TOTAL": 100}, ""),
    ("pcie_downgraded", {"GPU_UTIL": 6, "PCIE_LINK_GEN": 3, "PCIE_MAX_LINK_GEN": 5, "PCIE_LINK_WIDTH": 16, "PCIE_MAX_LINK_WIDTH": 16}, "warning"),
    ("pcie_downgraded", {"GPU_UTIL": 5, "PCIE_LINK_GEN": 1, "PCIE_MAX_LINK_GEN": 5, "PCIE_LINK_WIDTH": 16, "PCIE_MAX_LINK_WIDTH": 16}, ""),
    ("pcie_downgraded", {"GPU_UTIL": 50, "PCIE_LINK_GEN": 5, "PCIE_MAX_LINK_GEN": 5, "PCIE_LINK_WIDTH": 8, "PCIE_MAX_LINK_WIDTH": 16}, "warning"),
    ("busy_but_cold", {"GPU_UTIL": 95, "POWER_USAGE": 200, "ENFORCED_POWER_LIMIT": 700}, "info"),
    ("busy_but_cold", {"GPU_UTIL": 94, "POWER_USAGE": 200, "ENFORCED_POWER_LIMIT": 700}, ""),
    ("busy_but_cold", {"GPU_UTIL": 95, "POWER_USAGE": 211, "ENFORCED_POWER_LIMIT": 700}, ""),
    ("idle_held", {"GPU_UTIL": 4, "FB_USED": 101}, "info"),
    ("idle_held", {"GPU_UTIL": 5, "FB_USED": 101}, ""),
    ("idle_held", {"GPU_UTIL": 4, "FB_USED": 100}, ""),
    ("idle_held", {"GPU_UTIL": NAN, "FB_USED": 101}, None),
]  # fmt: skip


def full(values: dict[str, float]) -> dict[str, list[float]]:
    names = {
        short: canonical_name(prefix + short)
        for short in values
        for prefix in ("DCGM_EXP_", "DCGM_FI_PROF_", "DCGM_FI_DEV_")
        if canonical_name(prefix + short) in CATALOGUE
    }
    return {names[short]: [value] for short, value in values.items()}


@pytest.mark.parametrize(("name", "values", "severity"), CASES)
def test_what_opens_and_what_does_not(rules: Rules, name: str, values: dict[str, float], severity: str | None) -> None:
    rule = rules[name]
    columns = full(values)
    percentile = {"DCGM_FI_DEV_POWER_USAGE": [NAN]}
    view = PlainView(columns, settings=rule.settings, held=[True], model_p90=percentile)
    worst: str | None = None
    for level in rule.levels:
        is_true, is_false = level.when.judge(view)
        if is_true[0]:
            worst = level.severity
        elif is_false[0] and worst is None:
            worst = ""
    assert worst == severity


GROWTHS = [
    ("ecc_dbe", "ECC_DBE_VOL_TOTAL", {"increase": 1}, True),
    ("ecc_dbe", "ECC_DBE_VOL_TOTAL", {"increase": 0}, False),
    ("ecc_sbe_rate", "ECC_SBE_VOL_TOTAL", {"windowed": 2}, True),  # 12 an hour
    ("ecc_sbe_rate", "ECC_SBE_VOL_TOTAL", {"windowed": 1}, False),
    ("remap_uncorrectable", "UNCORRECTABLE_REMAPPED_ROWS", {"increase": 1}, True),
    ("thermal_throttle", "THERMAL_VIOLATION", {"increase": 1.1e9, "seconds": 10}, True),
    ("thermal_throttle", "THERMAL_VIOLATION", {"increase": 1e9, "seconds": 10}, False),
]


@pytest.mark.parametrize(("name", "metric", "growth", "opens"), GROWTHS)
def test_growth_that_opens(rules: Rules, name: str, metric: str, growth: dict[str, float], opens: bool) -> None:
    (level,) = rules[name].levels
    columns = {each: [NAN] for each in level.when.metrics}
    columns["DCGM_FI_DEV_" + metric] = [5.0]
    functions: dict[str, Any] = {
        function: {each: [growth[function] if each.endswith(metric) else NAN] for each in level.when.metrics}
        for function in growth
    }
    view = PlainView(columns, settings=rules[name].settings, **functions)
    is_true, is_false = level.when.judge(view)
    assert (bool(is_true[0]), bool(is_false[0])) == (opens, not opens)


def test_by_model(rules: Rules) -> None:
    margin, power = rules["temp_margin"], rules["power_out_of_range"]
    for model, offset in (
        ("NVIDIA H100 80GB HBM3", -2),
        ("NVIDIA GB200", -2),
        ("NVIDIA L40S", -2),
        ("NVIDIA B200", -3),
    ):
        assert margin.setting("offset", model) == offset
    assert margin.setting("offset", "NVIDIA A100-SXM4-80GB") < -130  # none
    assert [power.setting(name, "NVIDIA GB300") for name in ("at_least", "at_most")] == [65, 1500]
    assert power.setting("at_most", "NVIDIA H100 80GB HBM3") == 10_000


def test_models_that_have_all_links_on(rules: Rules) -> None:
    links = rules["nvlink_inactive"]
    all_on = (
        "NVIDIA H100 80GB HBM3",
        "NVIDIA A100-SXM4-80GB",
        "Tesla V100-SXM2-32GB",
        "NVIDIA H200",
        "NVIDIA B200",
        "NVIDIA GB200",
        "NVIDIA GB300",
    )
    not_all = (
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA L40S",
        "NVIDIA RTX A6000",
    )
    assert {links.setting("all_linked", model) for model in all_on} == {1}
    assert {links.setting("all_linked", model) for model in not_all} == {0}


def test_what_explains_what(rules: Rules) -> None:
    assert set(rules["gpu_missing"].inhibited_by) == {"source_silent", "host_stale", "xid_fatal:79"}
    assert rules["host_stale"].inhibited_by == ("source_silent",)
    assert "source_silent" in rules["metric_vanished"].inhibited_by
    assert rules["xid31_same_gpu"].inhibited_by == ("xid31_many_gpus",)
    assert rules["xid_nvlink5"].inhibited_by == ("recovery_action",)


def test_what_only_a_reset_or_a_person_ends(rules: Rules) -> None:
    assert {name for name, rule in rules.items() if rule.latch == "reset"} == {"xid_fatal", "remap_failed"}
    assert {name for name, rule in rules.items() if rule.latch == "person"} == {
        "xid_repeat_gpu", "xid_after_reset", "lemon_node",
    }  # fmt: skip


CRITICAL = {46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 151, 155, 156, 158, 167, 169, 173}


def test_critical_xids(rules: Rules) -> None:
    assert {code for code, xid in rules.xids.items() if xid.severity == "critical"} == CRITICAL
    assert {code for code, xid in rules.xids.items() if xid.kind == "fatal"} == CRITICAL


def test_codes_that_nvidia_calls_unused_are_not_in_the_table(rules: Rules) -> None:
    spans = "1-7 9-10 12 14-24 26-30 33-36 42 47 49-53 55-59 61 65 73 81 87 90-91 108 111-118 122-125 138"
    unused = set()
    for span in spans.split():
        low, _, high = span.partition("-")
        unused |= set(range(int(low), int(high or low) + 1))
    assert not unused & rules.xids.keys()
    assert unused | rules.xids.keys() == set(range(1, 174))


# NVIDIA's immediate action, as its page has it.
IMMEDIATE = {
    "RESTART_APP": [8, 11, 13, 25, 31, 32, 39, 60, 68, 69, 70, 80, 82, 83, 86, 99, 105, 126, 135, 139],
    "IGNORE": [37, 38, 43, 44, 66, 67, 93, 106, 107, 137, 141, 152, 153, 161],
    "RESET_GPU": [46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158],
}


def test_severity_and_action_follow_from_nvidias_action(rules: Rules) -> None:
    for action, severity, ours in (
        ("RESTART_APP", "info", "restart_app"),
        ("IGNORE", "info", "none"),
        ("RESET_GPU", "critical", "reset_gpu"),
    ):
        for code in IMMEDIATE[action]:
            assert (rules.xid(code).severity, rules.xid(code).action) == (severity, ours), code


def test_exceptions_among_xids(rules: Rules) -> None:
    warning = {code for code, xid in rules.xids.items() if xid.severity == "warning"}
    assert warning == {54, 63, 78, 92, 94, 121, 142, *range(144, 151), 157, 159, 160, 163, 165, 166, 168, 170, 171, 172}
    assert {code for code, xid in rules.xids.items() if xid.kind == "nvlink5"} == set(range(144, 151))
    assert rules.xid(79).action == rules.xid(151).action == "reboot_node"
    assert rules.xid(48).action == "reset_gpu"
    assert rules.xid(142).action == "contact_support"
    repeats = {code for code, xid in rules.xids.items() if xid.repeats_warn}
    assert len(repeats) == 20 + 8 + 7 + 2
    assert {39, 135, 82, 105, 83, 98, 86, 139} <= repeats
    assert not {13, 31, 68} & repeats


MNEMONICS = {
    13: "RC_GR_EXCEPTION", 31: "RC_FIFO_ERROR_MMU_ERR_FLT", 43: "RC_RESETCHANNEL_VERIF_ERROR", 45: "RC_PREEMPTIVE_REMOVAL",
    48: "RC_GPU_ECC_DBE", 54: "SILENT_RUNNING_PWR_REDUCED_CLOCKING", 63: "INFOROM_DRAM_RETIREMENT_EVENT",
    64: "INFOROM_DRAM_RETIREMENT_FAILURE", 74: "NVLINK_ERROR", 79: "RC_GPU_HAS_FALLEN_OFF_THE_BUS",
    92: "EXCESSIVE_SBE_INTERRUPTS", 94: "RC_CONTAINED_ERROR", 95: "RC_UNCONTAINED_ERROR", 119: "GSP_RPC_TIMEOUT", 120: "GSP_ERROR",
    137: "NVLINK_PRIV_ERR", 140: "UNRECOVERABLE_ECC_ERROR_ESCAPE", 149: "NVLINK_NETIR_ERROR", 154: "GPU_RECOVERY_ACTION_CHANGED",
    162: "PSHC_REENGAGED", 171: "UNCORRECTABLE_DRAM_ERROR", 172: "UNCORRECTABLE_SRAM_ERROR",
}  # fmt: skip


def test_mnemonics_are_nvidias_and_titles_our_own(rules: Rules) -> None:
    assert {code: rules.xid(code).mnemonic for code in MNEMONICS} == MNEMONICS
    for xid in rules.xids.values():
        assert xid.title, xid.code
        assert xid.mnemonic.lower() != xid.title.lower()


def test_where_sources_disagree_it_says_so(rules: Rules) -> None:
    assert {32, 38, 44, 63, 69, 94, 109, 160, 162} <= {code for code, xid in rules.xids.items() if xid.disagree}


def test_the_metric_list_for_dcgm_exporter_has_what_every_rule_needs(rules: Rules) -> None:
    lines = (ROOT / "deploy/dcgm-exporter/health.csv").read_text().splitlines()
    # Some fields are not in every DCGM 4, and stand there to be taken in.
    listed = {
        canonical_name(line.lstrip("# ").partition(",")[0]) for line in lines if "DCGM_" in line.partition(",")[0]
    }
    for rule in rules.values():
        assert rule.missing(listed) == (), rule.name
    looked_at = {metric for rule in rules.values() for level in rule.levels for metric in level.when.metrics}
    assert looked_at <= listed
