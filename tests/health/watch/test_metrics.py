"""What Prometheus hears of a watch."""

from __future__ import annotations

from health.engine.events import Entity, EntityPlace, Key
from health.rule_table import rules_now
from health.watch.config import watch_config
from health.watch.metrics import MonitoredWatcher
from health.watch.watcher import Watcher


async def test_a_watch_that_waits_for_the_broker_says_so_without_a_lag() -> None:
    watcher = Watcher(watch_config(rules_now()))
    watcher.totals.transitions["opened"] += 2
    for number, severity in enumerate(("warning", "warning", "critical")):
        watcher.engine.book.open(Key("temp_high", Entity("gpu", f"GPU-{number}")), 1, severity, EntityPlace())
    watcher.engine.left_out["too_many_times"] += 7
    monitored = MonitoredWatcher(watcher)
    figures = {metric.name: metric for metric in await monitored.figures()}
    assert "gpu_telemetry_watch_lag_messages" not in figures
    steps = figures["gpu_telemetry_watch_transitions"].samples
    assert [(each.labels, each.value) for each in steps] == [({"kind": "opened"}, 2)]
    events = figures["gpu_telemetry_watch_open_events"].samples
    assert [(each.labels["rule"], each.labels["severity"], each.value) for each in events] == [
        ("temp_high", "critical", 1),
        ("temp_high", "warning", 2),
    ]
    left_out = figures["gpu_telemetry_watch_left_out"].samples
    assert [(each.labels, each.value) for each in left_out] == [({"reason": "too_many_times"}, 7)]
    assert monitored.stuck() == []
