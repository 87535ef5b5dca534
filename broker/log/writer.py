"""Appending to the active segment: all of a group or nothing of it, and a stop when nobody can know which."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from broker.errors import BrokerError, DiskFull, LogFailed, ReadOnly
from broker.log.clock import Clock
from broker.log.disk import Disk
from broker.server.histogram import Histogram

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_error(error: OSError, what: str) -> BrokerError:
    """What a failed write means: DiskFull and ReadOnly can pass, LogFailed cannot."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFull(text)
    if error.errno in _READ_ONLY:
        return ReadOnly(text)
    return LogFailed(text)


# Set aside on the disk at a time.
RESERVE_BYTES = 8 << 20
# Least that the disk is asked to begin with before a sync is due.
START_SYNC_BYTES = 1 << 20


class SegmentWriter:
    """The end of one segment file. ``position`` is the size of what is whole in it, ``dirty`` whether a sync is due."""

    def __init__(self, disk: Disk, clock: Clock, fsyncs: Histogram, path: Path, position: int, most: int) -> None:
        """Opens the file, making it where it is missing; nothing may lie behind ``position``. It will hold about ``most``
        bytes. Raises OSError."""
        self.path = path
        self.position = position
        self.dirty = False
        self._disk = disk
        self._clock = clock
        self._fsyncs = fsyncs
        self._fd = disk.open(path)
        self._most = most
        self._reserved = position  # up to where there is space set aside
        self._started = position  # up to where the disk was asked to write already

    def append(self, pieces: Sequence[bytes]) -> None:
        """Writes the pieces, in order, behind what is there.

        Raises DiskFull or ReadOnly with nothing of it left in the file, LogFailed when that is not sure.
        """
        end = self.position + sum(map(len, pieces))
        if end > self._reserved:
            self._reserved = max(end, min(end + RESERVE_BYTES, self._most))
            self._disk.reserve(self._fd, self.position, self._reserved - self.position)
        try:
            self._disk.write_all(self._fd, pieces, self.position)
        except OSError as error:
            self._cut_back()
            raise write_error(error, f"writing to {self.path}") from error
        self.position = end
        self.dirty = True

    def start_sync(self) -> None:
        """Has the disk begin with what was appended, a MiB or more at a time, so that the next ``sync`` finds little left.

        A sync of all that came in a second held up publishers for 40 ms, and they were a quarter slower.
        """
        size = self.position - self._started
        if size >= START_SYNC_BYTES:
            self._disk.start_sync(self._fd, self._started, size)
            self._started = self.position

    def sync(self) -> None:
        """Returns when all that was appended is on the disk.

        Raises LogFailed otherwise: after a failed fsync the system may have dropped the data, and a second one lies.
        """
        if not self.dirty:
            return
        started = self._clock.steady()
        try:
            self._disk.sync(self._fd)
        except OSError as error:
            raise LogFailed(f"fsync of {self.path}: {error.strerror or error}") from error
        self._fsyncs.add(self._clock.steady() - started)
        self.dirty = False

    def give_back(self) -> None:
        """Gives back the space that was set aside and not used: nothing more will be written."""
        if self._reserved > self.position:
            with suppress(OSError):  # no harm: a few MiB stay set aside
                self._disk.truncate(self._fd, self.position)
            self._reserved = self.position

    def close(self) -> None:
        """Closes the file; syncs nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _cut_back(self) -> None:
        self._reserved = self.position  # a cut gives back all behind it
        try:
            self._disk.truncate(self._fd, self.position)
        except OSError as error:
            raise LogFailed(f"cutting {self.path} back to its last record: {error.strerror or error}") from error
