"""The version of a log directory's layout, so that an old broker never misreads what a new one wrote."""

from __future__ import annotations

from pathlib import Path

import msgspec

from broker import sidefile
from broker.disk import Disk
from broker.errors import LogUnusable

LAYOUT = 1
FORMAT_NAME = "format"


class _Format(msgspec.Struct):
    format: int


def check_layout(directory: Path, disk: Disk) -> None:
    """Marks a fresh directory. Raises LogUnusable for one of a newer layout, OSError when it cannot be marked."""
    path = directory / FORMAT_NAME
    found = sidefile.load(path, _Format)
    if found is None:
        sidefile.save(disk, path, _Format(LAYOUT))
    elif found.format > LAYOUT:
        raise LogUnusable(f"{directory} is of layout {found.format}; this broker knows layouts up to {LAYOUT}")
