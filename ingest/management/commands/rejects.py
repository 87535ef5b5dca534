"""See what was turned away, and send it again once it is repaired."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from broker.errors import BrokerError
from ingest.config import broker_address
from ingest.errors import IngestError
from ingest.rejects import count_letters, letter_files, read_letters, repaired_batches, send
from readings.checks import REASONS


class Command(BaseCommand):
    """``manage.py rejects list | count | resend FILE``."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """The three things it does."""
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="print the dead letters, one JSON object a line")
        listing.add_argument("--reason", default="", help="only those with this reason")
        listing.add_argument("--limit", type=int, default=100, help="at most so many, 0: all [%(default)s]")
        actions.add_parser("count", help="how many there are, by reason and source")
        resend = actions.add_parser("resend", help="publish repaired batches, after all of them are checked")
        resend.add_argument(
            "file",
            type=Path,
            help="listed letters in which what was wrong is repaired, or batches, one a line (see the README)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        if options["action"] == "resend":
            self._resend(options["file"])
            return
        files = letter_files(settings.STATE_DIR)
        if options["action"] == "count":
            counts = count_letters(read_letters(files))
            for (reason, source), count in counts.most_common():
                self.stdout.write(f"{count:8}  {reason:<14}  {source}  ({REASONS.get(reason, 'refused')})")
            self.stdout.write(f"{counts.total():8}  in {len(files)} files under {settings.STATE_DIR / 'dead-letters'}")
            return
        for number, letter in enumerate(read_letters(files, options["reason"])):
            if number == options["limit"] > 0:
                break
            self.stdout.write(json.dumps(letter.fields, ensure_ascii=False))

    def _resend(self, path: Path) -> None:
        try:
            batches = list(repaired_batches(path))
            sent = asyncio.run(send(batches, broker_address()))
        except (IngestError, BrokerError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"sent {sent} batches; what is still wrong in them the collector refuses again")
