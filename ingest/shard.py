"""Splits a source among several streamers: shard ``i/n`` is the i-th of n, from 1."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32


class Shard(NamedTuple):
    """Shard number ``place`` (from 0) of ``total``."""

    place: int
    total: int

    def has(self, key: str) -> bool:
        """Whether the key belongs to this shard. The answer is the same in every process and never changes."""
        return self.total == 1 or crc32(key.encode("utf-8", "backslashreplace")) % self.total == self.place

    def has_number(self, number: int) -> bool:
        """Whether the row with this number belongs to this shard."""
        return number % self.total == self.place


WHOLE = Shard(0, 1)
