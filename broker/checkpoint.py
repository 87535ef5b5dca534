"""The checkpoint: up to where the log is surely on the disk, so that a start reads only what came after.

It also tells a torn tail from damage: what is broken below it was once whole and answered.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from broker import sidefile
from broker.disk import Disk
from broker.producers import ProducerRow

CHECKPOINT_NAME = "checkpoint"


class Checkpoint(msgspec.Struct, forbid_unknown_fields=True):
    """``segment`` (its first offset) is on the disk up to ``position``, where ``next_offset`` would begin.

    ``clean``: nothing was written after it.
    """

    segment: int
    position: int
    next_offset: int
    last_timestamp: int
    clean: bool
    # Of that segment, as in its index when it is sealed.
    marks: list[tuple[int, int, int]]
    gaps: list[tuple[int, int]]
    # All producers, the one heard longest ago first.
    producers: list[ProducerRow]

    @classmethod
    def load(cls, directory: Path) -> Checkpoint | None:
        """The directory's checkpoint, or None when there is none that can be trusted."""
        return sidefile.load(directory / CHECKPOINT_NAME, cls)

    def save(self, disk: Disk, directory: Path) -> None:
        """Puts it in the place of the last one. Raises OSError; the last one then stands."""
        sidefile.save(disk, directory / CHECKPOINT_NAME, self)
