"""Captures as they lie around: plain, .gz, .zst, or standard input, read as one stream of bytes that knows its place."""

from __future__ import annotations

import glob
import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable
from typing import BinaryIO, cast

import zstandard

from ingest.errors import SourceError

STDIN = "-"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
_STEP = 1 << 20
_PACKED_STEP = 4096  # what it unpacks to is held in memory


class Unpacked(io.RawIOBase):
    """The bytes in a compressed file. Seeking back begins again from the start of the file.

    ``truncated`` says that it ended where it should not have; what came before was given.
    """

    def __init__(self, file: BinaryIO, magic: bytes) -> None:
        super().__init__()
        self.truncated = False
        self._file = file
        self._magic = magic
        self._position = 0
        self._unpack = self._begin()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def tell(self) -> int:
        return self._position

    def packed_position(self) -> int:
        """How far the compressed file has been read."""
        return self._file.tell()

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        if self.truncated:
            return 0
        try:
            data = self._unpack(len(view))
        except _BROKEN:
            self.truncated = True
            return 0
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0:
            raise io.UnsupportedOperation("only from the start")
        if position < self._position:
            self._file.seek(0)
            self._position, self.truncated = 0, False
            self._unpack = self._begin()
        while self._position < position:
            data = bytearray(min(_STEP, position - self._position))
            if not self.readinto(data):
                break
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _begin(self) -> Callable[[int], bytes]:
        # Both give what they have rather than lose it to an error further on.
        if self._magic == _GZIP:
            return gzip.GzipFile(fileobj=self._file, mode="rb").read1
        return _Frames(self._file).read


class _Frames:
    """The bytes in frames of zstd, one after the other. Unlike the library's own reader it knows when the last one is cut."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._packed = b""
        self._ready = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Some bytes, none at the end. Raises EOFError where the file is cut."""
        while self._at == len(self._ready):
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._begun = False
            packed = self._packed or self._file.read(_PACKED_STEP)
            self._packed = b""
            if not packed:
                if self._begun:
                    raise EOFError
                return b""
            self._begun = True
            self._ready, self._at = self._frame.decompress(packed), 0
        data = self._ready[self._at : self._at + size]
        self._at += len(data)
        return data


class Ahead:
    """A file, and what was read of it too early: that is given again first. So a look ahead needs no seeking back."""

    def __init__(self, file: BinaryIO, *, whole_lines: bool = False) -> None:
        self.raw = getattr(file, "raw", None)
        self.whole_lines = whole_lines  # a line without its end is still being written: it is given when it is whole
        self._file = file
        self._ahead = b""
        self._at = 0  # how much of that was given again
        self._position = 0

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        data = self._take(size)
        if len(data) < size:
            rest = self._file.read(size - len(data))
            self._position += len(rest)
            data += rest
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, or less of it only at the end; says how much."""
        data = self._take(len(buffer))
        size = len(data)
        buffer[:size] = data
        while size < len(buffer):
            count = self._file.readinto(buffer[size:])  # type: ignore[attr-defined]
            if not count:
                break
            self._position += count
            size += count
        return size

    def read_some(self, size: int) -> bytes:
        """What there is at once, up to ``size`` bytes; nothing only at the end."""
        data = self._take(size)
        if not data:
            data = self._file.read1(size) if isinstance(self._file, io.BufferedReader) else self._file.read(size)
            self._position += len(data)
        return data

    def readline(self, limit: int) -> bytes:
        """One line, of ``limit`` bytes at most."""
        if self._at < len(self._ahead):
            end = self._ahead.find(b"\n", self._at, self._at + limit) + 1
            line = self._take(end - self._at if end else limit)
        else:
            line = b""
        if not line.endswith(b"\n") and len(line) < limit:
            rest = self._file.readline(limit - len(line))
            self._position += len(rest)
            line += rest
        if self.whole_lines and not line.endswith(b"\n") and len(line) < limit:
            self.push(line)
            return b""
        return line

    def _take(self, size: int) -> bytes:
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        self._position += len(data)
        if self._at == len(self._ahead):
            self._ahead, self._at = b"", 0
        return data

    def push(self, data: bytes) -> None:
        """Give these bytes again, which were the last ones given."""
        if len(data) <= self._at:
            self._at -= len(data)
        else:
            self._ahead, self._at = data + self._ahead[self._at :], 0
        self._position -= len(data)

    def tell(self) -> int:
        """Where the next byte is."""
        return self._position

    def seek(self, position: int) -> None:
        """Go on there."""
        if position == self._position:
            return
        self._ahead, self._at = b"", 0
        self._file.seek(position)
        self._position = position

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_capture(path: str) -> BinaryIO:
    """A capture, opened for reading from its start. Raises OSError, SourceError."""
    if path == STDIN:
        return sys.stdin.buffer
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    try:
        magic = file.read(4)
        file.seek(0)
        for known in (_GZIP, _ZSTD):
            if magic.startswith(known):
                return cast(BinaryIO, io.BufferedReader(Unpacked(file, known), 1 << 16))
    except BaseException:
        file.close()
        raise
    return file


def is_packed(file: object) -> bool:
    """Whether positions in it are not positions in a file."""
    return isinstance(getattr(file, "raw", None), Unpacked)


def packed_share(file: object) -> float:
    """How many bytes of its file a byte of what it holds takes, on average so far; 1 where it is not compressed."""
    raw = getattr(file, "raw", None)
    return raw.packed_position() / max(raw.tell(), 1) if isinstance(raw, Unpacked) else 1.0


def is_truncated(file: object) -> bool:
    """Whether a compressed file ended where it should not have."""
    raw = getattr(file, "raw", None)
    return isinstance(raw, Unpacked) and raw.truncated


def find_captures(pattern: str) -> list[str]:
    """The files that CSV_PATH names, in the order of their names: a file, all captures in a folder, or a pattern.

    Raises SourceError when there is none.
    """
    if pattern == STDIN or not pattern:
        return [pattern]
    if os.path.isdir(pattern):
        found = sorted(
            entry.path
            for entry in os.scandir(pattern)
            if entry.is_file() and entry.name.endswith((".csv", ".csv.gz", ".csv.zst"))
        )
        if not found:
            raise SourceError(f"{pattern!r}: holds no .csv, .csv.gz or .csv.zst file")
        return found
    if not os.path.lexists(pattern) and any(sign in pattern for sign in "*?["):
        found = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        if not found:
            raise SourceError(f"{pattern!r}: no file is named so")
        return found
    return [pattern]
