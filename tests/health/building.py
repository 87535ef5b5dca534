"""Events for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from health.models import Event, EventTransition

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_event(rule: str = "temp_high", **fields: Any) -> Event:
    """An ongoing event of a GPU, with the transition that opened it. ``fields`` replace the defaults."""
    given = {
        "entity_kind": "gpu",
        "entity": "GPU-00000000-0000-0000-0000-000000000001",
        "severity": "warning",
        "hostname": "node-1",
        "slot": 0,
        "model_name": "Synthetic GPU 80GB",
        "opened": NOON,
        "summary": "90 °C, limit 85 °C",
        "details": {"value": 90.0, "limit": 85.0},
        "action": "none",
    } | fields
    given.setdefault("last_seen", given["opened"])
    event = Event.objects.create(rule=rule, **given)
    EventTransition.objects.create(
        event=event,
        kind="opened",
        at=event.opened,
        recorded=event.opened + timedelta(seconds=1),
        severity=event.severity,
        text=event.summary,
    )
    return event
