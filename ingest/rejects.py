"""Reading dead letters back: what was turned away, by reason and source, and what of it can be sent again once it is repaired."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ingest.capture.header import parse_header
from ingest.capture.rows import RowReader
from ingest.collector.decode import BAD_MESSAGE
from ingest.errors import SourceError
from ingest.exporter.exposition import Exposition
from ingest.reconnect import BrokerAddress
from ingest.samples import Sample
from readings.batch import BatchError, decode, encode_block
from readings.blocks import BlockBuilder
from readings.checks import Refused
from readings.times import parse_time
from readings.units import SourceUnits


class Letter(NamedTuple):
    """One dead letter and the file it is in."""

    file: Path
    fields: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.fields.get("reason", ""))

    @property
    def source(self) -> str:
        return str(self.fields.get("source") or self.fields.get("gpu") or "")


def letter_files(state_dir: Path) -> list[Path]:
    """All files of dead letters, the oldest of each writer first."""
    found = (state_dir / "dead-letters").glob("*.ndjson")
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))


def read_letters(files: Iterable[Path], reason: str = "") -> Iterator[Letter]:
    """Their letters, those with that reason where one is given. A line that is no letter is passed over."""
    for path in files:
        with path.open("rb") as file:
            for line in file:
                try:
                    fields = json.loads(line)
                except ValueError:  # its end was not written
                    continue
                letter = Letter(path, fields) if isinstance(fields, dict) else None
                if letter is not None and (not reason or letter.reason == reason):
                    yield letter


def count_letters(letters: Iterable[Letter]) -> Counter[tuple[str, str]]:
    """How many there are of each reason and source."""
    return Counter((letter.reason, letter.source) for letter in letters)


def repaired_batches(path: Path) -> Iterator[bytes]:
    """The batches in a file of repaired ones. A line is a JSON batch, or a dead letter in which was repaired what it is made of: the
    ``payload`` of a message, the ``batch`` of a reading, or the ``raw`` row or line of a source.

    Raises SourceError, with the line, for what is none of these or still wrong: nothing of the file is to be sent then.
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
        except (ValueError, KeyError, SourceError, BatchError) as error:
            raise SourceError(f"{str(path)!r} line {number} is no batch: {error}") from None
        for refusal in decoded.refusals:
            raise SourceError(f"{str(path)!r} line {number}: {refusal.reason}: {refusal.detail}")
        yield payload


def _payload_of(line: str) -> bytes:
    """The batch that a line is or holds. Raises ValueError, KeyError, SourceError, or Refused."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or "reason" not in fields:
        return line.encode()
    if fields["reason"] == BAD_MESSAGE:
        return str(fields["payload"]).encode()
    if "batch" in fields:
        return json.dumps(fields["batch"]).encode()
    if "raw" not in fields:
        raise ValueError("a dead letter without payload, batch or raw cannot be sent again")
    builder = BlockBuilder()
    for sample in _samples_of(str(fields["raw"]), fields):
        builder.add(*sample)
    [block] = builder.blocks(1)
    return encode_block(block, batch_id="", source=str(fields.get("source", "")), collected_at="")


def _samples_of(raw: str, letter: dict[str, Any]) -> list[Sample]:
    """The reading in a row of a capture, whose header the letter tells, or in a line of an exporter."""
    if "header" in letter:
        [names], [row] = csv.reader([str(letter["header"])]), csv.reader([raw])
        units = SourceUnits()
        units.note_text(raw)
        return [RowReader(parse_header(names, needs_timestamp=True), needs_timestamp=True, units=units).read(row)]
    host = urlsplit(str(letter.get("source", ""))).hostname or ""
    scraped = Exposition(host).read(raw, parse_time(str(letter["time"])))
    for row_of in scraped.refused:
        raise Refused(row_of.reason, row_of.detail)
    return scraped.samples


async def send(payloads: Iterable[bytes], broker: BrokerAddress) -> int:
    """Publish them; how many were answered. Raises BrokerError."""
    client = await broker.connect("rejects")
    try:
        count = 0
        for payload in payloads:
            await client.publish(payload)
            count += 1
        return count
    finally:
        await client.close()
