"""Reading dead letters back: what was turned away, by reason and source, and what of it can be sent again once it is repaired."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ingest.broker_address import BrokerAddress
from ingest.errors import SourceError
from ingest.intake import BAD_MESSAGE
from readings.codec import BatchError, decode_batch


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
    """The batches in a file of repaired ones: one JSON batch a line, or dead letters whose ``payload`` was repaired.

    Raises SourceError, with the line, for what is no batch: nothing of the file is to be sent then.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{str(path)!r}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            payload = line.encode()
            if isinstance(fields, dict) and fields.get("reason") == BAD_MESSAGE:
                payload = str(fields["payload"]).encode()
            decoded = decode_batch(payload)
        except (ValueError, KeyError, BatchError) as error:
            raise SourceError(f"{str(path)!r} line {number} is no batch: {error}") from None
        if decoded.refusals:
            raise SourceError(
                f"{str(path)!r} line {number}: {decoded.refusals[0].reason}: {decoded.refusals[0].detail}"
            )
        yield payload


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
