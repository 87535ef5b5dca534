"""Ports for processes that cannot be told to take a free one by themselves."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
