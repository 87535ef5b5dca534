from __future__ import annotations

import math
import re

import pytest

from ingest.simulator.faults import (
    APP_XIDS,
    BY_LOT,
    FATAL_XIDS,
    NAMED,
    NVLINK5_XIDS,
    WARNING_XIDS,
    PlannedFault,
    events_of,
    planned_fault,
)
from ingest.simulator.fleet import ALL_METRICS, FAULTS, FleetShape


@pytest.mark.parametrize(
    ("text", "planned"),
    [
        ("xid@3/5+60s", PlannedFault("xid", 79, 3, 5, 60, math.inf)),
        ("xid:48@host-3/5+1m", PlannedFault("xid", 48, 3, 5, 60, math.inf)),
        ("temp_high:97.5@synthetic-002/0+5m+10m", PlannedFault("temp_high", 97.5, 2, 0, 300, 900)),
        ("nvlink_ber:1e-4@1/1+0s", PlannedFault("nvlink_ber", 1e-4, 1, 1, 0, 300)),
        ("silent@4+1h", PlannedFault("silent", 0, 4, None, 3600, 4800)),
        ("source_silent@*+90s", PlannedFault("source_silent", 0, None, None, 90, 690)),
    ],
)
def test_a_fault_is_named_with_its_place_and_time(text: str, planned: PlannedFault) -> None:
    assert planned_fault(text) == planned


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("xid:79@3/5", "is not a fault: write NAME[:NUMBER]@HOST[/GPU]+START[+LENGTH]"),
        ("xdi@3/5+60s", "there is no fault 'xdi': use xid, overheat"),
        ("xid@3+60s", "xid is of one GPU: name it, as @3/0"),
        ("silent@3/1+60s", "silent is of no single GPU: leave out /1"),
        ("silent@*+60s", "silent is of one place"),
        ("source_silent@3+60s", "is of the whole fleet: its place is *"),
        ("xid:1.2.3@3/1+60s", "'1.2.3' is no number"),
        ("xid@3/1+60", "'60' is not a duration"),
        ("xid@3/1+60s+99999d", "is too long: use at most 30d"),
        ("xid@9/1+60s", "there is no host 9: use 1 to 4"),
        ("xid@4/8+60s", "there is no GPU 8: use 0 to 7"),
        ("dcgm_health@4/7+60s", "it needs DCGM_EXP_GPU_HEALTH_STATUS, which is not in this set of metrics"),
    ],
)
def test_a_bad_one_is_refused_with_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        FleetShape(faults=(text,)).planned()


def test_names_that_come_by_chance_are_no_plans() -> None:
    assert FleetShape(faults=FAULTS).planned() == []
    assert set(FAULTS) < set(NAMED)


def test_what_a_fault_needs_is_in_the_catalogue() -> None:
    for name, fault in NAMED.items():
        assert fault.metrics, name
        assert set(fault.metrics) | set(fault.forced) <= set(ALL_METRICS), name
    assert set(BY_LOT) < set(NAMED)


def test_every_xid_is_of_one_class() -> None:
    classes = (FATAL_XIDS, NVLINK5_XIDS, WARNING_XIDS, APP_XIDS)
    assert sum(map(len, classes)) == len(frozenset().union(*classes)) == 110
    assert [event.rule for event in events_of("xid", 79)] == ["xid_fatal", "recovery_action"]
    assert [(event.rule, event.severity) for event in events_of("xid", 31)] == [("xid_app", "info")]
    assert [event.rule for event in events_of("xid", 7)] == ["xid_unknown"]


def test_the_argument_decides_the_severity() -> None:
    assert [event.severity for event in events_of("temp_high", 91)] == ["warning"]
    assert [(event.severity, event.for_s) for event in events_of("temp_high", 97)] == [("critical", 120)]
    assert [event.severity for event in events_of("recovery_action", 3)] == ["warning"]
    assert events_of("recovery_action", 0) == ()
    assert [event.rule for event in events_of("hw_slowdown", 0x80)] == ["hw_power_brake", "hw_slowdown"]
