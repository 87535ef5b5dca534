"""What ``watch`` runs while it judges: the notifier, the feeds of Alertmanagers, the heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from django.conf import settings

from health.notify import alertmanager, heartbeat


def check_settings() -> None:
    """Raises ChannelError, one line, where NOTIFY_URLS or ALERTMANAGER_TLS_CA cannot be used."""
    if settings.NOTIFY_URLS:
        # Imported only if needed: Apprise takes memory.
        from health.notify.notifier import open_notifier

        open_notifier()
    if settings.ALERTMANAGER_URL:
        alertmanager.open_pool()


async def run_beside(stop: asyncio.Event, is_judging: Callable[[], bool]) -> None:
    """Send until this is cancelled: it is for who judges to say when it is over."""
    await asyncio.gather(_notify(stop), alertmanager.run(stop, is_judging), heartbeat.run(stop, is_judging))
    await asyncio.get_running_loop().create_future()


async def _notify(stop: asyncio.Event) -> None:
    if settings.NOTIFY_URLS:
        from health.notify.notifier import run

        await run(stop)
