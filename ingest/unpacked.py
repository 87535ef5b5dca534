"""Captures as they lie around: plain, .gz, .zst, or standard input, read as one stream of bytes that knows its place."""

from __future__ import annotations

import glob
import gzip
import io
import os
import sys
import zlib
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
        self._stream = self._begin()

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
            data = self._stream.read(len(view))
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
            self._stream = self._begin()
        while self._position < position:
            data = bytearray(min(_STEP, position - self._position))
            if not self.readinto(data):
                break
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _begin(self) -> BinaryIO:
        if self._magic == _GZIP:
            return cast(BinaryIO, gzip.GzipFile(fileobj=self._file, mode="rb"))
        return cast(BinaryIO, _Frames(self._file))


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


class Piped(io.RawIOBase):
    """Standard input, or a pipe: what was read first is kept, so that a look at the beginning can be taken back."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._head = b""
        self._position = 0
        self._limit = 16 << 20

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        at = self._position
        if at < len(self._head):
            data = self._head[at : at + len(view)]
        else:
            data = (
                self._file.read1(len(view)) if isinstance(self._file, io.BufferedReader) else self._file.read(len(view))
            )
            if at == len(self._head) and at < self._limit:
                self._head += data
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position > len(self._head) or self._position > len(self._head):
            raise io.UnsupportedOperation("standard input cannot be read again")
        self._position = position
        return position


def open_capture(path: str) -> BinaryIO:
    """A capture, opened for reading from its start. Raises OSError, SourceError."""
    if path == STDIN:
        return cast(BinaryIO, io.BufferedReader(Piped(sys.stdin.buffer), 1 << 16))
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


def is_packed(file: BinaryIO) -> bool:
    """Whether positions in it are not positions in a file."""
    return isinstance(getattr(file, "raw", None), Unpacked | Piped)


def is_truncated(file: BinaryIO) -> bool:
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
