"""A cache of the newest messages, so that subscribers that keep up never read the disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from threading import Lock

from broker.log.batch import FrameBlock


class RecentMessages:
    """The newest messages, up to a number of messages and of bytes; the oldest blocks are dropped first. Any thread may read."""

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._blocks: list[FrameBlock] = []
        self._bytes = 0
        self._lock = Lock()

    def add(self, blocks: Sequence[FrameBlock]) -> None:
        """Adds the blocks that follow the last one."""
        with self._lock:
            kept = self._blocks
            kept += blocks
            self._bytes += sum(len(block.data) for block in blocks)
            end = kept[-1].next_offset
            surplus = 0
            while surplus < len(kept) and (
                self._bytes > self._most_bytes or end - kept[surplus].first_offset > self._most_messages
            ):
                self._bytes -= len(kept[surplus].data)
                surplus += 1
            del kept[:surplus]

    def read(self, offset: int, stop: int, most: int) -> tuple[bytes, int] | None:
        """Returns whole frames from ``offset`` on, below ``stop``, and the offset after them; None if not cached.

        At most ``most`` bytes, or one frame.
        """
        with self._lock:
            kept = self._blocks
            number = bisect_right(kept, offset, key=lambda block: block.first_offset) - 1
            if number < 0 or offset >= kept[-1].next_offset:
                return None
            found: list[bytes] = []
            while number < len(kept) and offset < stop:
                data, next_offset = _cut(kept[number], offset, most)
                if found and len(data) > most:
                    break
                found.append(data)
                most -= len(data)
                offset = next_offset
                if offset < kept[number].next_offset:
                    break
                number += 1
        return (found[0] if len(found) == 1 else b"".join(found)), offset


def _cut(block: FrameBlock, offset: int, most: int) -> tuple[bytes, int]:
    """Returns the block's frames from ``offset`` on, ``most`` bytes or one frame, and the offset after them."""
    positions = block.positions
    first = offset - block.first_offset
    start = positions[first]
    if len(block.data) - start <= most:
        return block.data[start:], block.next_offset
    # Cut before the last frame that begins within ``most`` bytes.
    last = max(bisect_right(positions, start + most) - 1, first + 1)
    if last >= len(positions):
        return block.data[start:], block.next_offset
    return block.data[start : positions[last]], block.first_offset + last
