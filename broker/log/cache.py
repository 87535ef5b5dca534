"""The newest messages in memory, so that a subscriber that keeps up costs the disk nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from threading import Lock

from broker.log.batch import Piece


class Tail:
    """At most so many messages and bytes, forgotten a piece at a time. Any thread may read."""

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._pieces: list[Piece] = []
        self._bytes = 0
        self._lock = Lock()

    def add(self, pieces: Sequence[Piece]) -> None:
        """Takes in the pieces that follow the last one."""
        with self._lock:
            kept = self._pieces
            kept += pieces
            self._bytes += sum(len(piece.data) for piece in pieces)
            end = kept[-1].next_offset
            surplus = 0
            while surplus < len(kept) and (
                self._bytes > self._most_bytes or end - kept[surplus].first_offset > self._most_messages
            ):
                self._bytes -= len(kept[surplus].data)
                surplus += 1
            del kept[:surplus]

    def read(self, offset: int, stop: int, most: int) -> tuple[bytes, int] | None:
        """Whole frames from ``offset`` on, below ``stop``, and the offset after them; None when they are not here.

        At most ``most`` bytes, or one frame.
        """
        with self._lock:
            kept = self._pieces
            number = bisect_right(kept, offset, key=lambda piece: piece.first_offset) - 1
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


def _cut(piece: Piece, offset: int, most: int) -> tuple[bytes, int]:
    """The piece's frames from ``offset`` on: ``most`` bytes, or one frame; and the offset after them."""
    positions = piece.positions
    first = offset - piece.first_offset
    start = positions[first]
    if len(piece.data) - start <= most:
        return piece.data[start:], piece.next_offset
    # The last frame that begins within reach ends the cut.
    last = max(bisect_right(positions, start + most) - 1, first + 1)
    if last >= len(positions):
        return piece.data[start:], piece.next_offset
    return piece.data[start : positions[last]], piece.first_offset + last
