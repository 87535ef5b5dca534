"""Show the fleet in this terminal: what reports, what is busiest, hottest or idle, and what needs attention."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from rich.console import Console

from dashboard.top.feed import ApiFeed, Feed, FeedError, LocalFeed
from dashboard.top.frame import frame
from dashboard.top.live import show_live
from dashboard.top.summary import Summary, summarise
from telemetry_site.flags import ServiceCommand

_MOST_ROWS = 1000


class Command(ServiceCommand):
    """``manage.py top``. It is live on a terminal, and prints one frame elsewhere."""

    help = __doc__
    command_name = "top"

    def add_arguments(self, parser: CommandParser) -> None:
        """The flags that are no settings."""
        super().add_arguments(parser)
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--once", action="store_true", help="print one frame and end, as without a terminal")
        form.add_argument("--json", action="store_true", help="print one JSON object and end")
        parser.add_argument(
            "--rows", type=_number(1, _MOST_ROWS), default=10, help="GPUs in each list, where they fit [%(default)s]"
        )
        parser.add_argument(
            "--every", type=_number(1, 3600), default=2, help="seconds between two frames [%(default)s]"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Show frames until a key ends it, or one."""
        is_live = not (options["once"] or options["json"]) and sys.stdin.isatty() and sys.stdout.isatty()
        console = Console(highlight=False)
        try:
            feed: Feed = LocalFeed()
            if settings.API_URL:
                feed = ApiFeed(settings.API_URL, settings.API_TOKEN, settings.API_TLS_CA)
            if is_live:
                # As many rows as the terminal has lines.
                show_live(lambda: _summary(feed, _MOST_ROWS), options["every"], console)
                return
            summary = _summary(feed, options["rows"])
        except FeedError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            return
        if options["json"]:
            self.stdout.write(msgspec.json.format(msgspec.json.encode(summary), indent=2).decode())
        else:
            console.print(frame(summary, width=console.width, height=None))


def _summary(feed: Feed, rows: int) -> Summary:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return summarise(feed.read(), time=now, source=feed.name, rows=rows)


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse
