"""Runs the broker as a service."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal, cast

from django.conf import settings
from django.core.management.base import CommandError

from broker.errors import ListenError, LogFailed, LogLocked, LogUnusable, TlsUnusable
from broker.log.log import LogConfig
from broker.malloc import keep_memory
from broker.protocol.connection import ConnectionLimits
from broker.server.descriptors import raise_limit, share_out
from broker.server.state import ServerConfig
from broker.tls import server_context
from telemetry_site.flags import ServiceCommand
from telemetry_site.service import stop_signals

logger = logging.getLogger(__name__)

EXIT_LOCKED = 73
EXIT_LOG_FAILED = 74


class Command(ServiceCommand):
    """Serves the log until SIGTERM, SIGINT or SIGHUP."""

    help = "Run the message broker: one durable log on disk, for any number of publishers and subscribers."
    command_name = "runbroker"

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit status: 0 stopped, 1 cannot start, 73 another broker has the log, 74 an fsync failed."""
        _refuse_open_door()
        keep_memory()
        try:
            asyncio.run(_serve())
        except LogLocked as error:
            raise CommandError(str(error), returncode=EXIT_LOCKED) from error
        except LogFailed as error:
            raise CommandError(f"{error}: start again to recover", returncode=EXIT_LOG_FAILED) from error
        except (LogUnusable, ListenError, TlsUnusable) as error:
            raise CommandError(str(error)) from error


async def _serve() -> None:
    from broker.server.server import run  # aiohttp, which only a broker that serves needs

    tcp, http = settings.TCP_ADDR, settings.HTTP_ADDR
    log_config = LogConfig(
        segment_bytes=settings.SEGMENT_BYTES,
        fsync=cast(Literal["always", "interval", "never"], settings.FSYNC),
        buffer_messages=settings.BUFFER_SIZE,
        retention_bytes=settings.RETENTION_BYTES,
        retention_age_s=settings.RETENTION_AGE,
        free_space_reserve=settings.FREE_SPACE_RESERVE,
    )
    cert, key, client_ca = settings.BROKER_TLS_CERT, settings.BROKER_TLS_KEY, settings.BROKER_TLS_CA
    encrypted = bool(cert or key)
    descriptors = share_out(raise_limit(), settings.MAX_CONNECTIONS)
    config = ServerConfig(
        host=tcp.host,
        port=tcp.port,
        http_host=http.host,
        http_port=http.port,
        http_token="" if http.is_loopback else settings.BROKER_TOKEN,
        tls=server_context(cert, key, client_ca) if encrypted else None,
        # Probes have no certificates: /health is open, and the token protects the rest.
        http_tls=server_context(cert, key) if encrypted else None,
        fsync=settings.FSYNC,
        limits=ConnectionLimits(max_frame=settings.MAX_FRAME_BYTES, token=settings.BROKER_TOKEN),
        max_connections=descriptors.clients,
        http_connections=descriptors.http,
    )
    if descriptors.clients < settings.MAX_CONNECTIONS:
        logger.warning(
            "MAX_CONNECTIONS %(asked)d: at most %(limit)d files may be open (ulimit -n), so %(clients)d clients are taken",
            {"asked": settings.MAX_CONNECTIONS, "limit": descriptors.limit, "clients": descriptors.clients},
        )
    stop = asyncio.Event()
    with stop_signals(stop):
        await run(settings.STATE_DIR / "broker", log_config, config, stop)


def _refuse_open_door() -> None:
    """Refuses to open the log to a network by accident."""
    if settings.BROKER_TOKEN or settings.BROKER_ALLOW_ANONYMOUS:
        return
    for name in ("TCP_ADDR", "HTTP_ADDR"):
        address = getattr(settings, name)
        if not address.is_loopback:
            raise CommandError(
                f"{name} {address} can be reached from other machines and no BROKER_TOKEN is set: "
                "set one, listen on the loopback, or allow it with BROKER_ALLOW_ANONYMOUS=true"
            )
