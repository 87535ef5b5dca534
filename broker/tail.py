"""The newest groups in memory, so that a subscriber that keeps up costs the disk nothing."""

from __future__ import annotations

from bisect import bisect_right
from threading import Lock

from broker.group import Group


class Tail:
    """At most so many messages and bytes, forgotten a group at a time. Any thread may read."""

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._groups: list[Group] = []
        self._bytes = 0
        self._lock = Lock()

    def add(self, group: Group) -> None:
        """Takes in the group that follows the last one."""
        with self._lock:
            self._groups.append(group)
            self._bytes += len(group.blob)
            surplus = 0
            while surplus < len(self._groups) and (
                self._bytes > self._most_bytes
                or group.next_offset - self._groups[surplus].first_offset > self._most_messages
            ):
                self._bytes -= len(self._groups[surplus].blob)
                surplus += 1
            del self._groups[:surplus]

    def read(self, offset: int, stop: int, most: int) -> tuple[bytes, int] | None:
        """Whole frames from ``offset`` on, below ``stop``, and the offset after them; None when they are not here.

        At most ``most`` bytes, or one frame.
        """
        with self._lock:
            groups = self._groups
            number = bisect_right(groups, offset, key=lambda group: group.first_offset) - 1
            if number < 0 or offset >= groups[-1].next_offset:
                return None
            pieces: list[bytes] = []
            while number < len(groups) and offset < stop:
                piece, next_offset = _cut(groups[number], offset, most)
                if pieces and len(piece) > most:
                    break
                pieces.append(piece)
                most -= len(piece)
                offset = next_offset
                if offset < groups[number].next_offset:
                    break
                number += 1
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), offset


def _cut(group: Group, offset: int, most: int) -> tuple[bytes, int]:
    """The group's frames from ``offset`` on: ``most`` bytes, or one frame; and the offset after them."""
    first = offset - group.first_offset
    start = group.positions[first]
    if len(group.blob) - start <= most:
        return group.blob[start:], group.next_offset
    # The last frame that begins within reach ends the cut.
    last = max(bisect_right(group.positions, start + most) - 1, first + 1)
    if last >= len(group.positions):
        return group.blob[start:], group.next_offset
    return group.blob[start : group.positions[last]], group.first_offset + last
