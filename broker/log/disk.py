"""What a log needs of the operating system: file calls, side files, the directory's lock and a probe of the disk.

``Disk`` is one small object so that a test can make any call fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import msgspec

from broker.errors import LogLocked

logger = logging.getLogger(__name__)

T = TypeVar("T")

FILE_MODE = 0o640
LOCK_NAME = ".lock"
PROBE_NAME = ".probe"
_BLOCK = 4096
_FALLOC_FL_KEEP_SIZE = 1
# The most buffers in one write; every system accepts this many (IOV_MAX).
_MOST_PIECES = 1024
_TEXT_START = 9

Buffer = bytes | memoryview

_fallocate = None
if sys.platform == "linux":
    # os.posix_fallocate would make the file larger. The first name takes 64-bit offsets everywhere.
    _libc = ctypes.CDLL(None)
    _fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
    if _fallocate is not None:
        _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Disk:
    """Plain system calls. Every method may raise OSError."""

    def open(self, path: Path) -> int:
        """Opens a file for reading and writing, and creates it if it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    def write(self, fd: int, pieces: Sequence[Buffer], position: int) -> int:
        """Writes some of the pieces, in order, at ``position``; returns how many bytes."""
        return os.pwritev(fd, pieces[:_MOST_PIECES], position)

    def reserve(self, fd: int, position: int, size: int) -> None:
        """Reserves space for a later write at ``position`` without changing the file's size. Does nothing on failure.

        An fsync then has no blocks to allocate, which saves a quarter of the system time of a commit. ``truncate``
        gives back the unused part.
        """
        if _fallocate is not None:
            _fallocate(fd, _FALLOC_FL_KEEP_SIZE, position, size)

    def sync(self, fd: int) -> None:
        """Returns when everything written is on the disk."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cuts the file to ``size`` bytes."""
        os.ftruncate(fd, size)

    def read_once(self, fd: int, size: int, position: int) -> bytes:
        """Reads up to ``size`` bytes at ``position``."""
        return os.pread(fd, size, position)

    def read(self, fd: int, size: int, position: int) -> bytes:
        """Reads like ``read_once``, but returns zeros for a block the disk cannot read, to save its neighbours."""
        try:
            return self.read_once(fd, size, position)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        if size > _BLOCK:
            # Cut at the disk's own block boundaries, so that one bad block costs no other.
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
        """Replaces the file's content atomically: after a crash it holds the old or the new content, whole."""
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
        """Writes all of the pieces, in order, at ``position``, in as many calls as it takes."""
        left: list[Buffer] = [piece for piece in pieces if piece]
        while left:
            written = self.write(fd, left, position)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            position += written
            left = _without_first(left, written)

    def free_bytes(self, directory: Path) -> int:
        """Returns how many bytes are free to us on the directory's disk."""
        usage = os.statvfs(directory)
        return usage.f_bavail * usage.f_frsize


def _without_first(pieces: list[Buffer], count: int) -> list[Buffer]:
    """Returns the pieces without their first ``count`` bytes."""
    for number, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[number + 1 :]]
        count -= len(piece)
    return []


def save_side_file(disk: Disk, path: Path, content: object) -> None:
    """Replaces a small file beside the log: one line of JSON after its CRC, ``xxxxxxxx {"…":…}``.

    Losing such a file costs work, never a message. Raises OSError; the old file then stays.
    """
    text = msgspec.json.encode(content)
    disk.replace(path, b"%08x %b\n" % (crc32(text), text))


def load_side_file(path: Path, kind: type[T]) -> T | None:
    """Returns what was saved, or None if the file is missing, damaged or of another kind. Logs damage."""
    try:
        data = path.read_bytes()
        text = data[_TEXT_START:-1]
        if data != b"%08x %b\n" % (crc32(text), text):
            raise ValueError("its checksum is wrong")
        return msgspec.json.decode(text, type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s is not used: %s", path, error)
        return None


class DirectoryLock:
    """Keeps a second broker out of a directory until ``release`` or the end of the process, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Takes the lock. Raises LogLocked, which names the holder, or OSError."""
        self.path = directory / LOCK_NAME
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            os.close(self._fd)
            raise LogLocked(f"{directory} is in use by another broker ({holder})") from None
        # The signature only improves the other broker's message: on a full disk the lock works without it.
        with contextlib.suppress(OSError):
            self._sign()

    def is_ours(self) -> bool:
        """Whether the path still names the locked file. If not, another broker may have the directory."""
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def release(self) -> None:
        """Gives up the lock. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _sign(self) -> None:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        signature = {"pid": os.getpid(), "host": os.uname().nodename, "started": started}
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(signature).encode(), 0)

    def _holder(self) -> str:
        try:
            signature = json.loads(os.pread(self._fd, 4096, 0))
            return f"process {signature['pid']} on {signature['host']} since {signature['started']}"
        except (OSError, ValueError, TypeError, KeyError):
            return "unknown process"


def probe_write(directory: Path, disk: Disk, size: int) -> str:
    """Writes, syncs and removes a file of ``size`` bytes. Returns why that failed, or an empty string."""
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


def probe_space(directory: Path, disk: Disk, reserve: int) -> str:
    """Returns what is wrong with the free space, or an empty string."""
    try:
        free = disk.free_bytes(directory)
    except OSError as error:
        return f"the free space of {directory} is unknown: {error.strerror or error}"
    return f"{free} bytes free in {directory}, the reserve is {reserve}" if free < reserve else ""


def probe_lock(lock: DirectoryLock) -> str:
    """Returns what is wrong with the lock, or an empty string."""
    return "" if lock.is_ours() else f"{lock.path} is gone or replaced: another broker may have the directory"
