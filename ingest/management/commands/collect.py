"""manage.py collect: store the readings that the broker delivers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from ingest.collector.collector import Collector
from ingest.config import collect_config
from ingest.errors import IngestError
from inventory.migrating import wait_until_migrated
from stores.base import Store, StoreError
from stores.open import describe_store, get_store, reset_store
from telemetry_site.flags import ServiceCommand
from telemetry_site.service import CannotListen, collect_garbage_rarely, stop_signals

logger = logging.getLogger(__name__)


class Command(ServiceCommand):
    """Reads the log under COLLECTOR_ID until it is stopped. Commits the offset after the readings are stored."""

    command_name = "collect"
    help = (
        "Store the readings that the broker delivers, keep the inventory, then commit; resumes after the last commit."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the settings' flags and --once."""
        super().add_arguments(parser)
        parser.add_argument("--once", action="store_true", help="end when all is stored that the log holds now")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a stop signal."""
        if settings.STORAGE_TYPE == "memory":
            raise CommandError(
                "STORAGE_TYPE (--storage-type): memory lives in the web process, which then collects by itself: "
                "run manage.py serve alone, or use sqlite"
            )
        collect_garbage_rarely()
        logger.info("storing to %s", describe_store())
        try:
            asyncio.run(_run(get_store(), once=options["once"]))
        except (IngestError, StoreError, CannotListen) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"the embedded database cannot be migrated: {error}") from error
        finally:
            reset_store()


async def _run(store: Store, *, once: bool) -> None:
    stop = asyncio.Event()
    collector = Collector(collect_config(), store, stop)
    with stop_signals(stop):
        async with AsyncExitStack() as stack:
            if settings.METRICS_ADDR is not None:
                # Imported only if needed: a web server takes memory.
                from ingest.collector.metrics import MonitoredCollector
                from telemetry_site.monitor import monitoring

                await stack.enter_async_context(monitoring(settings.METRICS_ADDR, MonitoredCollector(collector)))
            if await wait_until_migrated(stop):
                await collector.run(once=once)
