"""The collector's housekeeping of the inventory: once an hour it forgets old placements and GPUs, and old minutes of the fleet's bands."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, connection

from inventory.expiry import forget, forget_bands
from telemetry_site.outage import one_line

logger = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0


async def run(placements_s: float, gpus_s: float) -> None:
    """A pass at once and every EVERY_SECONDS, until cancelled. Durations in seconds; 0 keeps placements or GPUs for ever."""
    while True:
        try:
            old_placements, old_gpus = await asyncio.to_thread(_pass, placements_s, gpus_s)
        except (DatabaseError, InterfaceError) as error:
            logger.debug("old placements and GPUs are forgotten later: %s", one_line(error))
        else:
            if old_placements or old_gpus:
                logger.info("inventory: forgot %d placements and %d GPUs", old_placements, old_gpus)
        await asyncio.sleep(EVERY_SECONDS)


def _pass(placements_s: float, gpus_s: float) -> tuple[int, int]:
    try:
        forget_bands()
        return forget(placements=timedelta(seconds=placements_s), gpus=timedelta(seconds=gpus_s))
    finally:
        connection.close()  # this thread may not be used again
