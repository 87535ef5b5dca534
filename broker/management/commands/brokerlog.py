"""Verifies, dumps and repairs the broker's log without the broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from broker.errors import BrokerError
from broker.log import inspect

DAMAGED = 2


class Command(BaseCommand):
    """``manage.py brokerlog verify|dump|repair``."""

    help = "Inspect the broker's log without the broker: verify every record, dump a range, repair what a crash left."
    requires_system_checks = ()  # they belong to parts that this command does not load

    def add_arguments(self, parser: CommandParser) -> None:
        """The action and its arguments."""
        parser.add_argument("--directory", type=Path, help="the log's folder; default: STATE_DIR/broker")
        actions = parser.add_subparsers(dest="action", required=True, metavar="verify|dump|repair")
        actions.add_parser("verify", help="read and check every record; exit status 2 if something is lost or torn")
        dump = actions.add_parser("dump", help="print records, one JSON object a line")
        dump.add_argument("first", type=int, nargs="?", default=0, help="first offset (0)")
        dump.add_argument("last", type=int, nargs="?", default=1 << 61, help="last offset (the newest)")
        actions.add_parser("repair", help="set a torn tail aside and rebuild the indexes; needs the broker stopped")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit status: 0 the log is whole, 1 the command failed, 2 something is lost."""
        directory = options["directory"] or settings.STATE_DIR / "broker"
        try:
            match options["action"]:
                case "verify":
                    self._report(list(inspect.verify(directory)))
                case "repair":
                    self._report(inspect.repair(directory))
                case _:
                    for record in inspect.dump(directory, options["first"], options["last"]):
                        head = {
                            "offset": record.offset,
                            "timestamp": record.timestamp_ms,
                            "message_id": record.message_id,
                        }
                        self.stdout.write(f'{json.dumps(head)[:-1]}, "payload": {record.payload.decode()}}}')
        except (BrokerError, OSError) as error:
            raise CommandError(str(error)) from error

    def _report(self, reports: list[inspect.SegmentReport]) -> None:
        for report in reports:
            self.stdout.write(
                f"{report.path.name}: {report.records} records, offsets {report.first} to {report.next_offset - 1}, "
                f"{report.bytes} bytes"
            )
            for lost_first, lost_last in report.lost:
                self.stdout.write(f"  lost: offsets {lost_first} to {lost_last}")
            if report.torn:
                self.stdout.write(f"  torn: {report.torn} bytes after the last whole record")
            if report.index:
                self.stdout.write(f"  index: {report.index} (a start rebuilds it)")
        lost = sum(last - first + 1 for report in reports for first, last in report.lost)
        torn = sum(report.torn for report in reports)
        records = sum(report.records for report in reports)
        self.stdout.write(f"{records} records in {len(reports)} segments, {lost} lost, {torn} bytes torn")
        if not all(report.whole for report in reports):
            raise CommandError("the log is not whole; the broker still serves its good records", returncode=DAMAGED)
