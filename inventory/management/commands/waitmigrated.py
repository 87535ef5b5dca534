"""manage.py waitmigrated: what runs before a service whose database somebody else migrates."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from inventory.migrating import HOW, wait_until_migrated
from telemetry_site.service import stop_signals


class Command(BaseCommand):
    """Ends once the database has every migration of this version. Says why it waits, at the start and whenever that changes."""

    help = "Wait until the database has every migration of this version."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError if a stop signal comes first."""
        if not asyncio.run(_wait()):
            raise CommandError(f"stopped before the database was migrated: {HOW}")


async def _wait() -> bool:
    stop = asyncio.Event()
    with stop_signals(stop):
        return await wait_until_migrated(stop)
