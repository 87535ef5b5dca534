from __future__ import annotations

import msgspec
import pytest

from dashboard.top.feed import Broker, EventNow, Snapshot, StoreNow, Subscriber
from dashboard.top.summary import Attention, HeldByNamespace, Summary
from tests.dashboard.top.snapshots import pipeline, snapshot, summary


def test_lists_have_the_largest_first_and_no_more_than_asked_for() -> None:
    found = summary(snapshot(), rows=3)
    assert [(gpu.hostname, gpu.slot, gpu.utilisation) for gpu in found.busiest] == [
        ("host-003", 7, 31), ("host-003", 6, 30), ("host-003", 5, 29),
    ]  # fmt: skip
    assert [gpu.temperature for gpu in found.hottest] == [61, 60, 59]
    assert [gpu.memory_used_mib for gpu in found.idle_held] == [40_028, 40_020, 40_012]


def test_equal_ones_are_in_the_fleets_order_and_those_without_a_value_in_no_list() -> None:
    none = [None] * 8
    shown = snapshot(1, 8, utilisation=[5] * 4 + none[:4], power=[1.0] * 8, temperature=none)
    found = summary(shown)
    assert [gpu.slot for gpu in found.busiest] == [0, 1, 2, 3]
    assert (found.hottest, found.idle_held) == ([], [])


def test_idle_ones_are_held_from_1_gib_on_and_counted_by_namespace() -> None:
    used = [0, 1024, 1025, 2000, None, 4000, 5000, 6000]
    shown = snapshot(
        1, 8, utilisation=[0, 0, 0, 0, 0, 1, None, 0], memory_used=used, namespace=[-1, 0, 1, 0, 0, 0, 0, 1]
    )
    found = summary(shown)
    assert [gpu.slot for gpu in found.idle_held] == [7, 3, 2]
    assert found.idle_held_by_namespace == [HeldByNamespace("red", 2, 7025), HeldByNamespace("blue", 1, 2000)]


def test_missing_gpus_come_first_then_silent_hosts() -> None:
    state = [1] * 8 + [0, 2, 0, 2, 3, 0, 0, 0] + [2] + [0] * 7
    shown = snapshot(3, 8, state=state, id=[f"GPU-{number}" for number in range(16)] + [""] * 8)
    assert summary(shown).attention == [
        Attention("missing", "host-001", [1, 3], "gpus 1, 3: GPU-9, GPU-11"),
        Attention("missing", "host-002", [0], "gpu 0: no GPU was ever seen there"),
        Attention("stale", "host-000", list(range(8)), "no GPU reports (8 expected)"),
    ]


def test_a_missing_gpu_whose_slot_is_not_known_is_named_by_its_id() -> None:
    shown = snapshot(1, 2, state=[0, 2], slot=[0, -1])
    assert [each.text for each in summary(shown).attention] == ["1 GPU of unknown slot: GPU-00000001"]


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"broker": Broker(False, "refused")}, "broker", "the broker does not answer: refused"),
        ({"subscribers": []}, "collector", "no collector has subscribed"),
        ({"subscribers": [Subscriber("watch", 0, True, True)]}, "collector", "no collector has subscribed"),
        (
            {"subscribers": [Subscriber("one", 0, True), Subscriber("two", 9, False)]},
            "collector",
            "not connected to the broker: two",
        ),
    ],
)
def test_what_is_wrong_with_the_pipeline_comes_first(fields: dict[str, object], kind: str, text: str) -> None:
    shown = snapshot(1, 2, state=[0, 2])
    shown.pipeline = pipeline(**fields)
    first, second = summary(shown).attention
    assert (first.kind, first.text, second.kind) == (kind, text, "missing")


def test_the_pipeline_in_figures() -> None:
    shown = snapshot()
    shown.pipeline = pipeline(
        subscribers=[
            Subscriber("a", 5, True),
            Subscriber("b", 7, False),
            Subscriber("c", None, True),
            Subscriber("w", 99, True, True),
        ]
    )
    found = summary(shown).pipeline
    assert found is not None
    assert (found.collectors, found.collectors_connected, found.lag_messages) == (3, 2, 7)
    assert (found.readings_stored, found.readings_refused, found.refused) == (1_234_567, 7, {"blank": 3, "spike": 4})


def test_a_pipeline_that_is_not_known_is_null_and_said() -> None:
    found = summary(Snapshot(snapshot().fleet, None, "the store is away"))
    assert found.pipeline is None
    assert found.newest_age_seconds is None
    assert found.attention == [Attention("pipeline", "", [], "the store is away")]


def test_it_is_one_json_object_that_reads_back() -> None:
    shown = snapshot()
    shown.pipeline = pipeline(store=StoreNow(None))
    found = summary(shown, rows=2)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Summary) == found


def event(rule: str, severity: str, hostname: str, slot: int | None, opened: str = "2026-11-28T11:03:00Z") -> EventNow:
    return EventNow(rule, rule.capitalize(), severity, hostname, slot, opened, "90 °C")


def test_open_events_come_by_host_and_rule_the_worst_first_and_once() -> None:
    shown = snapshot(3, 8, state=[2] + [0] * 7 + [1] * 8 + [2] + [0] * 7)
    shown.events = [
        event("hot", "warning", "host-002", 5),
        event("gpu_missing", "critical", "host-000", 0),
        event("hot", "critical", "host-002", 1, "2026-11-28T10:00:00Z"),
        event("silent", "warning", "", None),
    ]
    found = [(each.kind, each.hostname, each.text) for each in summary(shown).attention]
    assert found == [
        ("critical", "host-000", "Gpu_missing, gpu 0, since 2026-11-28 11:03: 90 °C"),
        ("critical", "host-002", "Hot, gpus 1, 5, since 2026-11-28 10:00: 90 °C"),
        ("warning", "", "Silent, since 2026-11-28 11:03: 90 °C"),
        ("missing", "host-002", "gpu 0: GPU-00000010"),
        ("stale", "host-001", "no GPU reports (8 expected)"),
    ]


def test_a_gpu_has_the_worst_event_that_is_open() -> None:
    shown = snapshot(1, 4, mark=[0, 3, 2, 1])
    assert [gpu.event for gpu in summary(shown).busiest] == ["critical", "warning", "info", ""]
    assert summary(snapshot(1, 1)).busiest[0].event == ""
