"""Which part of the work is ours, where several streamers share a source: ``i/n``, the i-th of n from 1."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32


class Shard(NamedTuple):
    """Part number ``place`` of ``total``, from 0."""

    place: int
    total: int

    def has(self, key: str) -> bool:
        """Whether what has this key is ours: the same answer in every process, today and tomorrow."""
        return self.total == 1 or crc32(key.encode("utf-8", "backslashreplace")) % self.total == self.place

    def has_number(self, number: int) -> bool:
        """Whether the row with this number is ours."""
        return number % self.total == self.place


WHOLE = Shard(0, 1)
