"""What a log asks of the operating system, in one small object, so that a test can make any of it fail."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

FILE_MODE = 0o640
_BLOCK = 4096
_FALLOC_FL_KEEP_SIZE = 1
_SYNC_FILE_RANGE_WRITE = 2
# Of one call: what systems take at least (IOV_MAX).
_MOST_PIECES = 1024

Buffer = bytes | memoryview

_fallocate = _sync_file_range = None
if sys.platform == "linux":
    # Python's own call, os.posix_fallocate, makes the file larger. The first name is the one with 64-bit offsets everywhere.
    _libc = ctypes.CDLL(None)
    _fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
    if _fallocate is not None:
        _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    _sync_file_range = getattr(_libc, "sync_file_range", None)
    if _sync_file_range is not None:
        _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Disk:
    """Plain system calls. Every method may raise OSError."""

    def open(self, path: Path) -> int:
        """Opens a file for reading and writing, making it where it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    def write(self, fd: int, pieces: Sequence[Buffer], position: int) -> int:
        """Writes some of the pieces, in order, at ``position``; says how many bytes."""
        return os.pwritev(fd, pieces[:_MOST_PIECES], position)

    def reserve(self, fd: int, position: int, size: int) -> None:
        """Sets space aside for what will be written at ``position``; the file's size stays. Where that cannot be done,
        nothing happens.

        An fsync then has no blocks to find: a quarter less of the system's time for a group. ``truncate`` gives back what
        was not used.
        """
        if _fallocate is not None:
            _fallocate(fd, _FALLOC_FL_KEEP_SIZE, position, size)

    def start_sync(self, fd: int, position: int, size: int) -> None:
        """Has the system begin to write those bytes to the disk, and waits for nothing. What fails is told by ``sync``
        (``man 2 sync_file_range``: it promises nothing of its own). Where that cannot be done, nothing happens.
        """
        if _sync_file_range is not None:
            _sync_file_range(fd, position, size, _SYNC_FILE_RANGE_WRITE)

    def sync(self, fd: int) -> None:
        """Returns when what was written is on the disk."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cuts the file to ``size`` bytes."""
        os.ftruncate(fd, size)

    def read_once(self, fd: int, size: int, position: int) -> bytes:
        """Up to ``size`` bytes at ``position``."""
        return os.pread(fd, size, position)

    def read(self, fd: int, size: int, position: int) -> bytes:
        """As ``read_once``; a block that the disk cannot read comes as zeros, for its neighbours' sake."""
        try:
            return self.read_once(fd, size, position)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        if size > _BLOCK:
            # At the disk's own boundaries, so that one bad block costs no other.
            cuts = [position, *range(position // _BLOCK * _BLOCK + _BLOCK, position + size, _BLOCK), position + size]
            return b"".join(self.read(fd, end - start, start) for start, end in pairwise(cuts))
        return bytes(size)

    def sync_directory(self, directory: Path) -> None:
        """Returns when the directory's new, renamed and removed names are on the disk."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes) -> None:
        """Puts ``data`` in the place of the file at once: after a crash it is the old one or the new one, whole."""
        fresh = path.with_name(path.name + ".tmp")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            self.write_all(fd, [data], 0)
            self.sync(fd)
        finally:
            os.close(fd)
        os.replace(fresh, path)
        self.sync_directory(path.parent)

    def write_all(self, fd: int, pieces: Sequence[bytes], position: int) -> None:
        """Writes all of the pieces, in order, at ``position``, however many calls it takes."""
        left: list[Buffer] = [piece for piece in pieces if piece]
        while left:
            written = self.write(fd, left, position)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            position += written
            left = _without_first(left, written)

    def free_bytes(self, directory: Path) -> int:
        """The bytes that are free for us on the directory's disk."""
        told = os.statvfs(directory)
        return told.f_bavail * told.f_frsize


def _without_first(pieces: list[Buffer], count: int) -> list[Buffer]:
    """The pieces without their first ``count`` bytes."""
    for number, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[number + 1 :]]
        count -= len(piece)
    return []
