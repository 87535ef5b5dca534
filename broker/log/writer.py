"""Appends to the active segment: a batch goes in whole or not at all, or the log stops if that cannot be known."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import Histogram

from broker.errors import BrokerError, DiskFull, LogFailed, Overloaded, ReadOnly
from broker.log.clock import Clock
from broker.log.disk import Disk

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_error(error: OSError, what: str) -> BrokerError:
    """Returns the error for a failed write: DiskFull, ReadOnly and Overloaded (no file descriptor left) can pass, LogFailed
    cannot."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFull(text)
    if error.errno in _READ_ONLY:
        return ReadOnly(text)
    if error.errno in _NO_DESCRIPTORS:
        return Overloaded(text)
    return LogFailed(text)


# Disk space reserved at a time.
RESERVE_BYTES = 8 << 20


class SegmentWriter:
    """Appends to one segment file. ``position`` is where its whole records end, ``dirty`` whether a sync is due."""

    def __init__(self, disk: Disk, clock: Clock, fsyncs: Histogram, path: Path, position: int, most: int) -> None:
        """Opens or creates the file, which ends at ``position`` and will grow to about ``most`` bytes. Raises OSError."""
        self.path = path
        self.position = position
        self.dirty = False
        self._disk = disk
        self._clock = clock
        self._fsyncs = fsyncs
        self._fd = disk.open(path)
        self._most = most
        self._reserved = position  # where the reserved space ends

    def append(self, pieces: Sequence[bytes]) -> None:
        """Writes the pieces, in order, at the end.

        Raises DiskFull or ReadOnly if nothing of them is left in the file, LogFailed if that is not certain.
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

    def sync(self) -> None:
        """Returns when everything appended is on the disk.

        Raises LogFailed otherwise: after a failed fsync the system may have dropped the data, and a second fsync would
        succeed all the same.
        """
        if not self.dirty:
            return
        started = self._clock.steady()
        try:
            self._disk.sync(self._fd)
        except OSError as error:
            raise LogFailed(f"fsync of {self.path}: {error.strerror or error}") from error
        self._fsyncs.observe(self._clock.steady() - started)
        self.dirty = False

    def give_back(self) -> None:
        """Releases the reserved space that was not used. Nothing more will be written."""
        if self._reserved > self.position:
            with suppress(OSError):  # harmless: a few MiB stay reserved
                self._disk.truncate(self._fd, self.position)
            self._reserved = self.position

    def close(self) -> None:
        """Closes the file without a sync."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _cut_back(self) -> None:
        self._reserved = self.position  # truncating releases everything after it
        try:
            self._disk.truncate(self._fd, self.position)
        except OSError as error:
            raise LogFailed(f"cutting {self.path} back to its last record: {error.strerror or error}") from error
