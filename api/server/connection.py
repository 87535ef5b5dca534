"""One client's connection: what it sent, what it is to get, and until when."""

from __future__ import annotations

import socket
import struct
from enum import Enum
from typing import Any

from api.server import limits
from api.server.outgoing import Outgoing
from api.server.requests import Requests

RECEIVE_BYTES = 64 * 1024


class State(Enum):
    """What a connection waits for."""

    READING = "the rest of a request, or the first"
    IDLE = "another request, after an answer"
    WORKING = "a thread, which answers it"
    SENDING = "the client, to take its answer"
    LINGERING = "the client, to close the connection too"


class ClientConnection:
    """A socket that never blocks. In state WORKING it belongs to the thread, else to the worker's loop."""

    __slots__ = (
        "client",
        "deadline",
        "ends",
        "is_broken",
        "is_watched",
        "out",
        "progressed",
        "requests",
        "server",
        "since",
        "sock",
        "state",
        "unsent",
    )

    def __init__(self, sock: socket.socket, client: Any, server: Any, cfg: Any, now: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.client = client
        self.server = server
        self.requests = Requests(cfg, client)
        self.out = Outgoing(sock)
        self.state = State.READING
        self.since = now
        self.deadline = now + limits.REQUEST_SECONDS
        self.progressed = now  # when the client last took a part of its answer
        self.unsent = 0
        self.is_watched = False  # for what it sends
        self.ends = False  # after its answer
        self.is_broken = False  # its answer cannot be completed

    def receive(self) -> bool:
        """Take what came. Returns False when the client sends no more."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        self.requests.feed(data)
        return bool(data)

    def discard(self) -> bool:
        """Throw away what came. Returns False when the client sends no more."""
        try:
            return bool(self.sock.recv(RECEIVE_BYTES))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False

    def wait(self, state: State, now: float, seconds: float) -> None:
        """Enter a state, which the client has to end within that time."""
        # In this order: another thread that sees the state must see its deadline.
        self.since = now
        self.deadline = now + seconds
        self.state = state

    def close(self, *, abort: bool = False) -> None:
        """Close it; ``abort`` also throws away what the client has not taken yet."""
        try:
            if abort:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
        except OSError:
            pass

    def name(self) -> str:
        """The client's address, for the log."""
        return str(self.client[0]) if isinstance(self.client, tuple) else "a Unix socket"
