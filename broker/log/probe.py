"""Trying out whether a log directory could be written now."""

from __future__ import annotations

import os
from pathlib import Path

from broker.log.disk import Disk
from broker.log.lock import DirectoryLock

PROBE_NAME = ".probe"


def try_write(directory: Path, disk: Disk, size: int) -> str:
    """Writes, syncs and removes a file of ``size`` bytes; why that failed, or an empty string."""
    path = directory / PROBE_NAME
    try:
        fd = disk.open(path)
        try:
            disk.write_all(fd, [bytes(size)], 0)
            disk.sync(fd)
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)
    except OSError as error:
        return f"{directory} cannot be written: {error.strerror or error}"
    return ""


def check_space(directory: Path, disk: Disk, reserve: int) -> str:
    """What is wrong with the free space, or an empty string."""
    try:
        free = disk.free_bytes(directory)
    except OSError as error:
        return f"the free space of {directory} is unknown: {error.strerror or error}"
    return f"{free} bytes free in {directory}, the reserve is {reserve}" if free < reserve else ""


def check_lock(lock: DirectoryLock) -> str:
    """What is wrong with the lock, or an empty string."""
    return "" if lock.is_ours() else f"{lock.path} is gone or replaced: another broker may have the directory"
