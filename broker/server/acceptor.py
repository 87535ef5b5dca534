"""Accepts connections on one address. asyncio's own way counts none of them before a TLS handshake, and logs a thousand
tracebacks when the process has no file descriptor left for another.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

from broker.server.bursts import BurstLog
from broker.server.places import ConnectionPlaces, Guest

BACKLOG = 1024
# Accepted in one turn of the loop, so that closed ones free their descriptors in between.
AT_A_TIME = 8
# Connections without a place that are being told so at a time; further ones are closed at once.
MOST_REFUSED = 8
RETRY_S = 0.2

# Makes the protocol for a connection. Without a place (None) it says so and closes.
Factory = Callable[[Guest | None], asyncio.BaseProtocol]


class Acceptor:
    """Listens on one address and gives each connection a place and a protocol."""

    def __init__(
        self,
        factory: Factory,
        places: ConnectionPlaces,
        lines: BurstLog,
        tls: ssl.SSLContext | None,
        handshake_s: float,
    ) -> None:
        self.places = places
        self.refused = 0  # connections that are being told that there is no place
        self._factory = factory
        self._lines = lines
        self._tls = tls
        self._handshake_s = handshake_s if tls else None
        self._sockets: list[socket.socket] = []
        self._starting: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> int:
        """Returns the port. Raises OSError if the address is not available."""
        loop = self._loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                listener = socket.create_server((address[0], address[1]), family=family, backlog=BACKLOG)
            except OSError:
                self.close()
                raise
            listener.setblocking(False)
            self._sockets.append(listener)
        for listener in self._sockets:
            loop.add_reader(listener, self._accept, listener)
        return int(self._sockets[0].getsockname()[1])

    def close(self) -> None:
        """Accept nothing more. Handshakes in progress end. Idempotent."""
        sockets, self._sockets = self._sockets, []
        for listener in sockets:
            self._loop.remove_reader(listener)
            listener.close()
        for task in self._starting:
            task.cancel()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_A_TIME):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Too many open files, here or in the whole system. The clients wait until there is room.
                self._lines.say(logging.WARNING, "cannot accept clients for now: %s", error.strerror or error, most=1)
                self._loop.remove_reader(listener)
                self._loop.call_later(RETRY_S, self._resume, listener)
                return
            guest = self.places.take(str(address[0]))
            if guest is None and self.refused >= MOST_REFUSED:
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._start(connection, guest))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
            if guest is not None:
                guest.leave = partial(_cancel, task)  # until the protocol has the connection

    async def _start(self, connection: socket.socket, guest: Guest | None) -> None:
        self.refused += guest is None
        protocol: asyncio.BaseProtocol | None = None
        try:
            _, protocol = await self._loop.connect_accepted_socket(
                lambda: self._factory(guest), connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
            )
        except (OSError, TimeoutError) as error:
            self._lines.say(logging.DEBUG, "a connection ended before it began: %s", error)
        finally:
            if protocol is None:  # gone before or in its handshake
                connection.close()
                if guest is not None:
                    self.places.free(guest)
                else:
                    self.refused -= 1

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
