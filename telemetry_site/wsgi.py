"""The WSGI application that gunicorn serves."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")

application = get_wsgi_application()


def _start_collector() -> None:
    """With memory storage the readings live in this process, so it has to collect them itself.

    gunicorn imports this module in the worker, after the fork: a thread started earlier would not exist there.
    """
    from django.conf import settings

    if settings.STORAGE_TYPE == "memory":
        from ingest.collector.embedded import start_embedded_collector

        start_embedded_collector()


_start_collector()
