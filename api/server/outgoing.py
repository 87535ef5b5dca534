"""The bytes on their way to a client. gunicorn writes an answer to it as to a socket."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from api.server import limits

# The send buffer of a connection whose client cannot tell a broken answer from a whole one, and what it grows to when the
# worker stops: an answer's last line then always has room.
_SMALL_BUFFER, _LARGE_BUFFER = 64 * 1024, 4 * 1024 * 1024
_LOOK_SECONDS = 0.05


class Stop(NamedTuple):
    """When a stopping worker has its exports end, and when it ends itself, by the monotonic clock."""

    exports_at: float
    all_at: float


class ClientGone(Exception):
    """The client is away, or does not take what it asked for."""


class Outgoing:
    """Sends what the client takes at once and keeps the rest. Only one thread at a time may use it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parts: list[bytes] = []
        self._size = 0
        self._rest: memoryview | None = None
        self._has_small_buffer = False

    @property
    def unsent(self) -> int:
        """How many bytes are still here."""
        return self._size + (len(self._rest) if self._rest is not None else 0)

    def sendall(self, data: bytes) -> None:
        """Add data. Sends nothing: flush() and deliver() do."""
        self._parts.append(data)
        self._size += len(data)

    def flush(self) -> bool:
        """Send what the client takes now. Returns whether that was all. Raises ClientGone."""
        while self._rest is not None or self._parts:
            if self._rest is None:
                self._rest = memoryview(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
                self._parts, self._size = [], 0
            try:
                sent = self._sock.send(self._rest)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                raise ClientGone(str(error)) from None
            self._rest = self._rest[sent:] if sent < len(self._rest) else None
        return True

    def deliver(self, stopping: Callable[[], Stop | None]) -> None:
        """Return when the client has taken everything. Raises ClientGone if that takes too long, or the worker ends."""
        if self.flush():
            return
        deadline = time.monotonic() + limits.SEND_SECONDS + self.unsent / limits.MIN_BYTES_PER_SECOND
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        while not self.flush():
            now = time.monotonic()
            stop = stopping()
            if stop is not None:
                deadline = min(deadline, stop.all_at)
                if now > stop.exports_at:
                    self.make_room()
            if now > deadline:
                raise ClientGone("the client does not take its answer")
            if stop is None:
                poll.poll(1000.0)
            else:
                # The system reports room late; some bytes it takes before.
                time.sleep(_LOOK_SECONDS)

    def use_small_buffer(self) -> None:
        """Keep room in reserve for the answer's end."""
        self._has_small_buffer = True
        self._set_buffer(_SMALL_BUFFER)

    def make_room(self) -> None:
        """Use the room that was kept in reserve."""
        if self._has_small_buffer:
            self._has_small_buffer = False
            self._set_buffer(_LARGE_BUFFER)

    def _set_buffer(self, size: int) -> None:
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def drop(self) -> None:
        """Forget what was not sent."""
        self._parts, self._size, self._rest = [], 0, None
