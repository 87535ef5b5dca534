"""Frames: how a stream of bytes is cut into JSON objects.

+----------------+---------------------------------+
| length (u32be) | length bytes: one JSON object   |
+----------------+---------------------------------+
"""

from __future__ import annotations

import sys
from struct import Struct

from broker.errors import BrokerError, for_code

PREFIX = 4
# Smaller pieces of an unfinished frame go into one buffer, so that a peer that sends single bytes costs no object each.
_SMALL_PIECE = 4096
_GATHERED = 1 << 16

_length = Struct(">I").unpack_from


class FrameReader:
    """Cuts a stream of bytes into frames. Memory follows what has arrived, never what a length announces.

    ``keep_prefix`` leaves the 4 length bytes on the frames: the client checks a record with them.
    """

    def __init__(self, max_frame: int, *, keep_prefix: bool = False) -> None:
        self.max_frame = max_frame
        self.fault: BrokerError | None = None
        self.held = 0  # bytes of the unfinished frame
        self._skip = 0 if keep_prefix else PREFIX
        self._pieces: list[bytes | bytearray] = []
        self._need = PREFIX
        self._rest = b""  # not examined yet; nothing is held then

    @property
    def unread(self) -> int:
        """Bytes not examined yet: call ``find`` again."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the frames that ``data`` completes, in order. See ``find``."""
        return [held[start:stop] for held, start, stop in self.find(data)]

    def find(self, data: bytes = b"", most: int = sys.maxsize) -> list[tuple[bytes, int, int]]:
        """Returns the frames that ``data`` completes, in order: for each, the bytes that hold it, its start and its end.

        Returns at most ``most``; the rest stays ``unread``. A length of 0 or over ``max_frame`` sets ``fault`` (code
        bad_frame or too_large): the stream cannot be followed any further, and the reader ignores everything after it.
        Raises nothing.
        """
        frames: list[tuple[bytes, int, int]] = []
        if self.fault is not None:
            return frames
        position, skip = 0, self._skip
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self.held:
            missing = self._need - self.held
            if len(data) < missing:
                self._keep(data)
                return frames
            if self._need == PREFIX:  # not even the length is complete
                data = b"".join((*self._pieces, data))
            else:
                # Only this frame is joined: the rest may be large and is copied once, frame by frame.
                frames.append((b"".join((*self._pieces, memoryview(data)[:missing])), skip, self._need))
                position = missing
            self._pieces.clear()
            self.held = 0
        end = len(data)
        self._need = PREFIX
        while end - position >= PREFIX and len(frames) < most:
            start = position + PREFIX
            (length,) = _length(data, position)
            if not 0 < length <= self.max_frame:
                if length:
                    text = f"a frame of {length} bytes: at most {self.max_frame} are taken"
                    self.fault = for_code("too_large", text)
                else:
                    self.fault = for_code("bad_frame", "a frame cannot be empty: its length is 0")
                return frames
            stop = start + length
            if stop > end:
                self._need = PREFIX + length
                break
            frames.append((data, position + skip, stop))
            position = stop
        if position < end:
            rest = data[position:] if position else data
            if len(frames) < most:
                self._keep(rest)
            else:
                self._rest = rest
        return frames

    def _keep(self, data: bytes) -> None:
        self.held += len(data)
        if len(data) >= _SMALL_PIECE:
            self._pieces.append(data)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < _GATHERED:
            last += data
        else:
            self._pieces.append(bytearray(data))


def frame(body: bytes) -> bytes:
    """Returns ``body`` with its length in front."""
    return len(body).to_bytes(PREFIX, "big") + body
