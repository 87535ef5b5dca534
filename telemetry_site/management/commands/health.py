"""Ask a service on this machine whether it is well. manage.py runs this itself, before it loads Django."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from telemetry_site.health import add_arguments, run


class Command(BaseCommand):
    """``manage.py health SERVICE``: puts the command on Django's list and lets code call it."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """Adds the arguments of ``telemetry_site.health``."""
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Exits with status 1 when the service is not well."""
        if status := run(options["service"], ready=options["ready"], timeout=options["timeout"]):
            sys.exit(status)
