"""A process of its own: posts events (post N), or sends what is due until it is stopped (run). `python -m tests.health.notify.sender`."""

from __future__ import annotations

import asyncio
import os
import sys

import django


def post_events(count: int) -> None:
    """Events of so many rules open now."""
    from django.utils import timezone

    from health.models import Event
    from health.notify.outbox import post

    now = timezone.now()
    for number in range(count):
        event = Event.objects.create(
            rule=f"rule_{number}", entity_kind="host", entity=f"node-1/{number}", hostname="node-1", severity="critical", opened=now, last_seen=now
        )  # fmt: skip
        step = event.transitions.create(kind="opened", at=now, recorded=now, severity="critical")
        post([(event, step)], now)


async def run_notifier() -> None:
    """Until a signal."""
    from health.notify.notifier import run
    from telemetry_site.service import stop_signals

    stop = asyncio.Event()
    with stop_signals(stop):
        await run(stop)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    django.setup()
    if sys.argv[1] == "post":
        post_events(int(sys.argv[2]))
    else:
        asyncio.run(run_notifier())
