"""manage.py stream: publish a capture to the broker."""

from __future__ import annotations

import asyncio
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from ingest.configured import broker_tls
from ingest.errors import IngestError
from ingest.streamer import StreamConfig, StreamTotals, stream
from telemetry_site.flags import ServiceCommand
from telemetry_site.service import stop_signals


class Command(ServiceCommand):
    """Reads CSV_PATH and ends when every batch is answered; SIGTERM or SIGINT ends it before, and it resumes next time."""

    command_name = "stream"
    help = "Stream a capture of DCGM metrics (CSV_PATH) to the broker; a run that was stopped resumes where it was."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until the end of the capture or a stop signal."""
        config = StreamConfig(
            csv_path=settings.CSV_PATH,
            host=settings.MQ_HOST,
            port=settings.MQ_PORT,
            token=settings.BROKER_TOKEN,
            tls=broker_tls(),
            state_dir=settings.STATE_DIR,
            instance_id=settings.INSTANCE_ID,
            batch_size=settings.BATCH_SIZE,
            collect_interval=settings.COLLECT_INTERVAL,
            rate=settings.RATE,
            loop=settings.LOOP,
            timestamps=settings.TIMESTAMPS,
            retention=settings.RETENTION_PERIOD,
        )
        try:
            asyncio.run(_run(config))
        except IngestError as error:
            raise CommandError(str(error)) from error


async def _run(config: StreamConfig) -> StreamTotals:
    stop = asyncio.Event()
    with stop_signals(stop):
        return await stream(config, stop)
