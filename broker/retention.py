"""Which of the oldest segments are to go: whole ones, by size and by age, and never the active one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from broker.segment import Segment


class Drop(NamedTuple):
    """What was deleted: the offsets from ``first`` up to ``next_offset``, ``bytes`` in ``segments`` files."""

    first: int
    next_offset: int
    bytes: int
    segments: int


def count_expired(segments: Sequence[Segment], most_bytes: int, oldest_ms: int, last_timestamp: int) -> int:
    """How many of the segments, oldest first, are to be deleted.

    A segment goes while all of them have more than ``most_bytes`` (0: no limit), and when its newest record is from
    before ``oldest_ms`` (Unix milliseconds; 0: no limit). ``last_timestamp`` is that of the log's newest record.
    """
    total = sum(segment.size for segment in segments)
    count = 0
    for segment, following in pairwise(segments):
        too_many = most_bytes and total > most_bytes
        # The next segment's first record is no older than this one's last. One without records was just begun.
        newest_ms = following.first_timestamp
        too_old = (last_timestamp if newest_ms is None else newest_ms) < oldest_ms
        if not (too_many or too_old):
            break
        total -= segment.size
        count += 1
    return count
