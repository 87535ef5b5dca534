"""The WSGI application, which gunicorn serves."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from telemetry_site.prefix import below

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")

application = below(settings.PUBLIC_PATH, get_wsgi_application())


def _migrate() -> None:
    """Brings the embedded database up to date, whichever server imports this module."""
    from inventory.migrating import migrate_embedded

    migrate_embedded()


def _start_collector() -> None:
    """Collects inside this process where the store is its memory.

    gunicorn imports this module in the worker, after the fork. A thread started earlier would not exist there.
    """
    if settings.STORAGE_TYPE == "memory":
        from api.views.probes import embedded
        from ingest.collector.embedded import embedded_trouble, start_embedded_collector

        start_embedded_collector()
        embedded.trouble = embedded_trouble


_migrate()
_start_collector()
