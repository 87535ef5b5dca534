"""Captures in any form (plain, .gz, .zst, standard input) as one stream of bytes that can be peeked at and resumed."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from typing import BinaryIO, cast

import zstandard

STDIN = "-"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
_STEP = 1 << 20
_PACKED_STEP = 4096  # everything that it unpacks to is held in memory
BLOCK_BYTES = 2 << 20  # as much as the caches of a core hold; twice that is slower
_LINE_BYTES = 4096  # more than a line usually has: a few lines need no whole block


class Unpacked(io.RawIOBase):
    """The bytes in a compressed file. Seeking back reads the file again from its start.

    ``truncated`` is set when the compressed data ends too early; everything before that point was returned.
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
        # Both return the bytes before an error first, and raise afterwards.
        if self._magic == _GZIP:
            return gzip.GzipFile(fileobj=self._file, mode="rb").read1
        return _ZstdFrames(self._file).read


class _ZstdFrames:
    """The bytes in consecutive frames of zstd. Unlike the library's reader, it detects that the last frame is cut."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._packed = b""
        self._ready = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Some bytes, none at the end. Raises EOFError if the last frame is cut."""
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


class PeekableFile:
    """A file whose last bytes read can be pushed back, so that looking ahead needs no seeking.

    With ``whole_lines``, a line without its end is held back: it is still being written. A pipe (``is_pipe``) returns what has
    arrived instead of waiting for a full block.
    """

    def __init__(self, file: BinaryIO, *, whole_lines: bool = False, is_pipe: bool = False) -> None:
        self.raw = getattr(file, "raw", None)
        self.whole_lines = whole_lines
        self.is_pipe = is_pipe
        self._file = file
        self._ahead = b""
        self._at = 0  # how much of that was read again
        self._position = 0
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, or less of it only at the end; returns the number of bytes."""
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
        """The bytes that are there at once, up to ``size``; none only at the end."""
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

    def read_lines(self, most: int | None = None) -> memoryview:
        """A block of whole lines, ``most`` at most. Empty at the end, and where one line is larger than a block.

        The view is valid until the next call: there is one buffer, since fresh memory for each block would cost page faults.
        """
        if len(self._buffer) != BLOCK_BYTES:
            self._buffer = bytearray(BLOCK_BYTES)
        buffer = memoryview(self._buffer)
        if most is not None:
            buffer = buffer[: most * _LINE_BYTES]
        size = self._read_arrived_lines(buffer) if self.is_pipe else self.readinto(buffer)
        end = self._buffer.rfind(b"\n", 0, size) + 1 if most is None else self._end_of_line(most, size)
        if not end and size < len(buffer) and not self.whole_lines:
            end = size
        self.push(bytes(buffer[end:size]))
        return buffer[:end]

    def _end_of_line(self, number: int, size: int) -> int:
        """Where line ``number`` of the buffer ends, or the last whole line before it."""
        end = 0
        for _ in range(number):
            after = self._buffer.find(b"\n", end, size) + 1
            if not after:
                break
            end = after
        return end

    def _read_arrived_lines(self, buffer: memoryview) -> int:
        """Read at least one line from a pipe, in however many pieces it arrives, unless the pipe ends."""
        size = 0
        while size < len(buffer):
            some = self.read_some(len(buffer) - size)
            buffer[size : size + len(some)] = some
            size += len(some)
            if not some or b"\n" in some:
                break
        return size

    def _take(self, size: int) -> bytes:
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        self._position += len(data)
        if self._at == len(self._ahead):
            self._ahead, self._at = b"", 0
        return data

    def push(self, data: bytes) -> None:
        """Push back these bytes, which must be the last ones read."""
        if len(data) <= self._at:
            self._at -= len(data)
        else:
            self._ahead, self._at = data + self._ahead[self._at :], 0
        self._position -= len(data)

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, position: int) -> None:
        """Go to a position, counted from the start."""
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
    """Open a capture for reading from its start. Raises OSError."""
    if path == STDIN:
        return sys.stdin.buffer
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    try:
        magic = file.read(4)
        file.seek(0)
        for form in (_GZIP, _ZSTD):
            if magic.startswith(form):
                return cast(BinaryIO, io.BufferedReader(Unpacked(file, form), 1 << 16))
    except BaseException:
        file.close()
        raise
    return file


def is_packed(file: object) -> bool:
    """Whether the file is compressed, so that positions in it are not positions on disk."""
    return isinstance(getattr(file, "raw", None), Unpacked)


def packed_share(file: object) -> float:
    """Compressed bytes per byte of content, on average so far; 1 for a file that is not compressed."""
    raw = getattr(file, "raw", None)
    return raw.packed_position() / max(raw.tell(), 1) if isinstance(raw, Unpacked) else 1.0


def is_truncated(file: object) -> bool:
    """Whether a compressed file ended too early."""
    raw = getattr(file, "raw", None)
    return isinstance(raw, Unpacked) and raw.truncated
