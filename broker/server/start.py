"""Where a subscription starts, and whether the log is the one that the subscriber read before.

A log that was restored from an older copy gives offsets again to other messages. A subscriber that goes on after the last offset it had
would skip some of them. So it tells the checksum of the last message it had, and the log's identity where that message is gone.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.errors import for_code
from broker.log.log import Log
from broker.protocol.connection import EARLIEST, LATEST, Subscribe


class Start(NamedTuple):
    """The first offset to deliver; ``restored``: the log is another than the subscriber's; the checksum of the message before."""

    position: int
    restored: bool = False
    last_c32: str = ""


def find_start(log: Log, event: Subscribe) -> Start:
    """Returns where the subscription starts. Raises OffsetOutOfRange.

    If the subscriber tells or asks what it had last (``event.log`` is not None), this reads the disk.
    """
    if event.log is None:
        return Start(_position(log, event.subscriber_id, event.offset))
    restored = event.last_c32 is not None and not _has(log, event.last_offset, event.last_c32, event.log)
    position = _position(log, event.subscriber_id, None if restored else event.offset)
    return Start(position, restored, log.checksum_at(position - 1) or "")


def _has(log: Log, offset: int, c32: str, identity: str) -> bool:
    """Whether the log holds, or held, the subscriber's message."""
    if offset >= log.next_offset:
        return False
    found = log.checksum_at(offset)
    return identity == log.identity.id if found is None else found == c32


def _position(log: Log, subscriber_id: str, offset: int | None) -> int:
    if offset is None:
        committed = log.commits.get(subscriber_id)
        return log.oldest_offset if committed is None else min(committed + 1, log.next_offset)
    if offset == EARLIEST:
        return log.oldest_offset
    if offset == LATEST:
        return log.next_offset
    if offset > log.next_offset:
        text = f"offset {offset} is past the end: the next message gets {log.next_offset}"
        raise for_code("offset_out_of_range", text)
    return offset
