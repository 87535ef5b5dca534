"""``manage.py serve``: the API, its pages and the admin, by gunicorn."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError

from health.rule_table import rules_now
from health.rules.errors import RulesError
from health.usage.prices import PricesError, load_prices
from inventory.migrating import migrate_embedded
from stores.open import describe_store
from telemetry_site.env import Address
from telemetry_site.flags import ServiceCommand

logger = logging.getLogger(__name__)

BACKLOG = 512


class Command(ServiceCommand):
    """Runs the web service until SIGTERM or SIGINT."""

    help = "Serve the API, its documentation and the admin."
    command_name = "serve"

    def handle(self, *args: Any, **options: Any) -> None:
        """Become gunicorn, so that signals reach it. It inherits the listening socket, so a port in use is reported here, once."""
        try:
            rules_now()
        except RulesError as error:
            raise CommandError(f"HEALTH_RULES (--health-rules): {error}") from None
        try:
            load_prices(settings.USAGE_PRICES)
        except PricesError as error:
            raise CommandError(f"USAGE_PRICES (--usage-prices): {error}") from None
        try:
            migrate_embedded()
        except DatabaseError as error:
            raise CommandError(f"the embedded database cannot be migrated: {error}") from error
        listener = listen(Address(settings.HOST, settings.PORT))
        listener.set_inheritable(True)
        logger.info("answering from %s", describe_store())
        argv = [sys.executable, "-m", "gunicorn", "--config", str(settings.BASE_DIR / "gunicorn.conf.py")]
        os.execv(sys.executable, [*argv, "--bind", f"fd://{listener.fileno()}"])  # noqa: S606


def listen(address: Address) -> socket.socket:
    """A socket that listens on the address. Raises CommandError."""
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CommandError(
            f"HOST (--host): {address.host!r} is not an address of this machine: {error.strerror}"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CommandError(
            f"cannot listen on {address}: {error.strerror} (choose another with --port or PORT)"
        ) from None
    return listener
