"""What the settings say to a collector, wherever it runs."""

from __future__ import annotations

import ssl

from django.conf import settings
from django.core.management.base import CommandError

from broker.client import client_context
from broker.errors import TlsUnusable
from ingest.collector import CollectConfig


def broker_tls() -> ssl.SSLContext | None:
    """How to speak to the broker. Raises CommandError for files that do not work: the command cannot start."""
    try:
        return client_context(settings.BROKER_TLS_CA, settings.BROKER_TLS_CERT, settings.BROKER_TLS_KEY)
    except TlsUnusable as error:
        raise CommandError(str(error)) from error


def collect_config() -> CollectConfig:
    """The collector's configuration from django.conf.settings."""
    return CollectConfig(
        collector_id=settings.COLLECTOR_ID,
        host=settings.MQ_HOST,
        port=settings.MQ_PORT,
        token=settings.BROKER_TOKEN,
        tls=broker_tls(),
        state_dir=settings.STATE_DIR,
        start_offset=settings.START_OFFSET,
        flush_interval=settings.FLUSH_INTERVAL,
        retention=settings.RETENTION_PERIOD,
    )
