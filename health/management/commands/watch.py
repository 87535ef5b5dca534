"""manage.py watch: judge the fleet's health."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from health.rule_table import rules_now
from health.rules.errors import RulesError
from health.watch.config import watch_config
from health.watch.errors import WatchError
from health.watch.watcher import WatchConfig, Watcher
from inventory.migrating import wait_until_migrated
from telemetry_site.flags import ServiceCommand
from telemetry_site.service import CannotListen, stop_signals


class Command(ServiceCommand):
    """Reads the log under WATCH_ID until it is stopped. One judges at a time: a second one waits until the first ends."""

    command_name = "watch"
    help = "Judge the fleet's health by the readings in the broker's log: events, notifications and usage."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the settings' flags and --once."""
        super().add_arguments(parser)
        parser.add_argument("--once", action="store_true", help="end when all is judged that the log holds now")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a stop signal."""
        # It makes many objects and hardly any circle: scanning what it keeps is a waste.
        gc.set_threshold(100_000, 50, 100)
        try:
            config = watch_config(rules_now())
        except RulesError as error:
            raise CommandError(f"HEALTH_RULES (--health-rules): {error}") from error
        try:
            asyncio.run(_run(config, once=options["once"]))
        except (WatchError, CannotListen) as error:
            raise CommandError(str(error)) from error


async def _run(config: WatchConfig, *, once: bool) -> None:
    stop = asyncio.Event()
    watcher = Watcher(config, stop)
    with stop_signals(stop):
        async with AsyncExitStack() as stack:
            if settings.METRICS_ADDR is not None:
                # Imported only if needed: a web server takes memory.
                from health.watch.metrics import MonitoredWatcher
                from telemetry_site.monitor import monitoring

                await stack.enter_async_context(monitoring(settings.METRICS_ADDR, MonitoredWatcher(watcher)))
            if await wait_until_migrated(stop):
                await watcher.run(once=once)
