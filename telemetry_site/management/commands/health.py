"""Ask a service on this machine whether it is well. manage.py answers this one itself, before Django is loaded."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from telemetry_site.health import add_arguments, run


class Command(BaseCommand):
    """``manage.py health SERVICE``, for those who look in the list of commands or call it from code."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """As in ``telemetry_site.health``."""
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit status 1 when it is not well."""
        if status := run(options["service"], ready=options["ready"], timeout=options["timeout"]):
            sys.exit(status)
