"""Rules and XIDs as objects."""

from __future__ import annotations

from typing import Any

import pytest

from health.rules.model import ACTION_WORDS, ACTIONS, JUDGES, Rule, Rules, Xid


def rule(name: str = "temp_high", **fields: Any) -> Rule:
    texts: dict[str, Any] = {"title": "Hot", "finds": "Heat.", "entity": "gpu", "severity": "warning", "action": "none"}
    return Rule(name=name, judge="condition", **texts, **fields)


def test_the_longest_part_of_the_models_name_that_has_the_number_wins() -> None:
    hot = rule(
        settings={"limit": 85.0},
        models={"H100": {"limit": 90.0}, "H100 PCIe": {"limit": 80.0}, "NVIDIA H100 PCIe": {"other": 1.0}},
    )
    assert hot.setting("limit") == hot.setting("limit", "NVIDIA A100") == 85.0
    assert hot.setting("limit", "NVIDIA H100 80GB HBM3") == 90.0
    assert hot.setting("limit", "nvidia h100 pcie") == 80.0
    with pytest.raises(KeyError):
        hot.setting("nothing", "NVIDIA H100 80GB HBM3")


def test_a_summary_shows_what_there_is() -> None:
    hot = rule(says="{value:g} °C, limit {limit:.1f}, XID {xid:g}")
    assert hot.summary({"value": 91.0, "limit": 85.0, "xid": "79"}) == "91 °C, limit 85.0, XID 79"
    assert hot.summary({}) == "? °C, limit ?, XID ?"


def test_what_is_missing_is_named_once_for_each_choice() -> None:
    dbe = rule(needs=(("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"), ("DCGM_FI_DEV_GPU_UTIL",)))
    assert dbe.missing([]) == ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "DCGM_FI_DEV_GPU_UTIL")
    assert dbe.missing(["DCGM_FI_DEV_ECC_DBE_AGG_TOTAL:nvlink:3", "dcgm_gpu_utilization"]) == ()


def test_what_is_missing_has_the_name_that_exporters_know() -> None:
    margin = rule(needs=(("DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS",),))
    assert margin.missing([]) == ("DCGM_FI_DEV_GPU_TEMP_LIMIT",)
    assert margin.missing(["DCGM_FI_DEV_GPU_TEMP_LIMIT"]) == ()


def test_what_to_do_is_the_rules_advice_or_the_actions_words() -> None:
    assert rule().action_text == ACTION_WORDS["none"]
    assert rule(advice="Open the window.").action_text == "Open the window."
    assert rule().stores_only("info")
    assert not rule().stores_only("warning")
    assert rule(quiet=True).stores_only("critical")


def test_rules_keep_their_order_and_know_unknown_xids() -> None:
    rules = Rules([rule("b"), rule("a")], [Xid(79, "FALLEN", "Off the bus", "critical", "reboot_node", "fatal")])
    assert list(rules) == ["b", "a"]
    assert len(rules) == 2
    assert rules["a"].name == "a"
    assert rules.xid(79).kind == "fatal"
    assert (rules.xid(999).kind, rules.xid(999).severity, rules.xid(999).code) == ("unknown", "warning", 999)


def test_every_action_has_words() -> None:
    assert ACTIONS == ("none", "restart_app", "run_diag", "reset_gpu", "reboot_node", "contact_support", "replace")
    assert all(words.endswith(".") for words in ACTION_WORDS.values())
    assert len(set(JUDGES)) == 7
