"""readings.signals: what the rules of health need."""

from __future__ import annotations

import re
from pathlib import Path

from readings.catalogue import canonical_name, info
from readings.signals import SIGNALS

HEALTH_CSV = Path(__file__).resolve().parents[2] / "deploy" / "dcgm-exporter" / "health.csv"


def test_every_metric_is_in_the_catalogue_and_in_the_list_that_is_shipped() -> None:
    """Commented lines count: the file says which metrics not every exporter has."""
    shipped = {
        canonical_name(name) for name in re.findall(r"^(?:# )?(DCGM_\w+),", HEALTH_CSV.read_text(), re.MULTILINE)
    }
    needed = {alternatives[0] for signal in SIGNALS for alternatives in signal.needs}
    assert {name for name in needed if info(name) is None} == set()
    assert {name for name in needed if canonical_name(name) not in shipped} == set()


def test_rules_have_names_of_their_own() -> None:
    assert len({signal.rule for signal in SIGNALS}) == len(SIGNALS)


def test_what_a_rule_lacks() -> None:
    by_rule = {signal.rule: signal for signal in SIGNALS}
    assert by_rule["idle_held"].missing({"DCGM_FI_DEV_GPU_UTIL"}) == ("DCGM_FI_DEV_FB_USED",)
    # Any of the alternatives does, under any of its names, and so does the metric of one link.
    assert by_rule["nvlink_inactive"].missing({"DCGM_FI_DEV_NVLINK_GET_STATE:nvlink:3"}) == ()
    assert by_rule["temp_margin"].missing({"DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS"}) == ()
    assert by_rule["hw_power_brake"].missing({"DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS"}) == ()
