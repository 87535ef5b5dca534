"""What the settings say to a collector, wherever it runs."""

from __future__ import annotations

from django.conf import settings

from ingest.collector import CollectConfig


def collect_config() -> CollectConfig:
    """The collector's configuration from django.conf.settings."""
    return CollectConfig(
        collector_id=settings.COLLECTOR_ID,
        host=settings.MQ_HOST,
        port=settings.MQ_PORT,
        token=settings.BROKER_TOKEN,
        state_dir=settings.STATE_DIR,
        start_offset=settings.START_OFFSET,
        flush_interval=settings.FLUSH_INTERVAL,
        retention=settings.RETENTION_PERIOD,
    )
