"""Ports for processes that cannot be told to take a free one by themselves."""

from __future__ import annotations

import secrets
import socket

# Below the ports that the kernel gives to connections and to whoever asks for any. So only another call of free_port can
# take one before it is used, or while its service is away.
_PORTS = range(12_000, 30_000)


def free_port() -> int:
    """A port that nobody listens on at 127.0.0.1. Tests that run side by side get different ones, but for a rare chance."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
