"""List dead letters, and send repaired ones again."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from broker.client.address import BrokerAddress
from broker.errors import BrokerError
from ingest.capture.form import fields_of, find_separator, recognise
from ingest.capture.opening import rows_under
from ingest.dead_letters import letter_files, read_letters
from ingest.errors import IngestError, SourceError
from ingest.exporter.exposition import Exposition
from ingest.samples import Sample
from readings.batch import BatchError, decode, encode_block
from readings.blocks import BlockBuilder
from readings.checks import REASONS, Refused
from readings.model import Gpu, Point, PointBlock
from readings.text import printable
from readings.times import parse_time
from readings.units import SourceUnits
from telemetry_site.broker_address import broker_address
from telemetry_site.env import time_zone

# More than a row has columns.
MOST_READINGS = 10_000


class Command(BaseCommand):
    """``manage.py rejects list | count | resend FILE``."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """The three actions."""
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="print the dead letters, one JSON object a line")
        listing.add_argument("--reason", default="", help="only those with this reason")
        listing.add_argument("--limit", type=int, default=100, help="at most so many, 0: all [%(default)s]")
        actions.add_parser("count", help="how many there are, by reason and source")
        resend = actions.add_parser("resend", help="publish repaired batches, after all of them are checked")
        resend.add_argument(
            "file",
            type=Path,
            help="repaired letters from the list, or batches, one a line (see the README)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the action."""
        if options["action"] == "resend":
            self._resend(options["file"])
            return
        files = letter_files(settings.STATE_DIR)
        if options["action"] == "count":
            torn: Counter[Path] = Counter()
            letters = read_letters(files, torn=lambda path: torn.update([path]))
            counts = Counter((letter.reason, letter.source) for letter in letters)
            for (reason, source), count in counts.most_common():
                meaning = REASONS.get(reason, "refused")
                self.stdout.write(f"{count:8}  {printable(reason):<14}  {printable(source)}  ({meaning})")
            for path, count in torn.items():
                self.stdout.write(f"{count:8}  lines that are no letters, as after a crash, in {printable(str(path))}")
            self.stdout.write(f"{counts.total():8}  in {len(files)} files under {settings.STATE_DIR / 'dead-letters'}")
            return
        for number, letter in enumerate(read_letters(files, options["reason"])):
            if number == options["limit"] > 0:
                break
            text = json.dumps(letter.fields, ensure_ascii=False)
            self.stdout.write(text if text.isprintable() else json.dumps(letter.fields))

    def _resend(self, path: Path) -> None:
        try:
            batches = list(repaired_batches(path))
            sent = asyncio.run(send(batches, broker_address()))
        except (IngestError, BrokerError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"sent {sent} batches; the collector refuses any reading in them that is still wrong")


def repaired_batches(path: Path) -> Iterator[bytes]:
    """The batches in a file of repaired letters. A line is a JSON batch, or a dead letter whose ``payload`` (of a message),
    ``batch`` (of a reading) or ``raw`` (a row or line of a source) was repaired.

    Raises SourceError, with the line number, for a line that is neither or is still wrong.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{str(path)!r}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            payload = _payload_of(line)
            decoded = decode(payload, now_ns=time.time_ns())
        except Refused as error:
            raise SourceError(f"{str(path)!r} line {number}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError, SourceError, BatchError) as error:
            raise SourceError(f"{str(path)!r} line {number} is not a batch: {error}") from None
        for refusal in decoded.refusals:
            raise SourceError(f"{str(path)!r} line {number}: {refusal.reason}: {refusal.detail}")
        yield payload


def _payload_of(line: str) -> bytes:
    """The batch in one line. Raises ValueError, KeyError, SourceError, or Refused."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or "reason" not in fields:
        return line.encode()
    if "batch" in fields:
        return json.dumps(fields["batch"]).encode()
    if "payload" in fields:
        return str(fields["payload"]).encode()
    if "gpu" in fields and "metric_name" in fields:
        return _stored(fields)
    if "raw" not in fields:
        raise ValueError("a dead letter without payload, batch or raw cannot be sent again")
    builder = BlockBuilder()
    for sample in _samples_of(str(fields["raw"]), fields):
        builder.add(*sample)
    [block] = builder.blocks(MOST_READINGS)
    return encode_block(block, batch_id="", source=str(fields.get("source", "")), collected_at="")


def _stored(fields: dict[str, Any]) -> bytes:
    """A reading that the store refused: its GPU by identity alone."""
    uuid, _, mig_id = str(fields["gpu"]).partition(":")
    point: Point = (0, int(fields["time_ns"]), [float(fields["value"])])
    block = PointBlock([Gpu(uuid=uuid, mig_id=mig_id)], [str(fields["metric_name"])], [point])
    return encode_block(block, batch_id="", source=str(fields.get("source", "")), collected_at="")


def _samples_of(raw: str, letter: dict[str, Any]) -> list[Sample]:
    """The reading in a raw capture row (the letter holds the capture's header) or in an exporter's line."""
    if "header" in letter:
        text = str(letter["header"])
        separator = find_separator(text)
        header = recognise(fields_of(text, separator), needs_timestamp=True, delimiter=separator)
        units = SourceUnits()
        units.note_text(raw)
        rows = rows_under(
            header,
            needs_timestamp=True,
            units=units,
            zone=time_zone(str(letter.get("zone", "UTC"))),
            hostname=str(letter.get("hostname", "")),
        )
        [row] = csv.reader(
            raw.splitlines(keepends=True), delimiter=separator, skipinitialspace=header.dialect.blanks_after
        )
        samples, refused = rows.read_all(row)
        for error in refused:
            raise error
        return samples
    host = urlsplit(str(letter.get("source", ""))).hostname or ""
    scraped = Exposition(host).read(raw, parse_time(str(letter["time"])))
    for row_of in scraped.refused:
        raise Refused(row_of.reason, row_of.detail)
    return scraped.samples


async def send(payloads: Iterable[bytes], broker: BrokerAddress) -> int:
    """Publish the batches; returns how many the broker answered. Raises BrokerError."""
    client = await broker.connect("rejects")
    try:
        count = 0
        for payload in payloads:
            await client.publish(payload)
            count += 1
        return count
    finally:
        await client.close()
