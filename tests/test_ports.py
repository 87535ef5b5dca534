"""The ports that tests get for their processes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests import ports

# The first and the last port that the kernel gives to connections and to whoever asks for any.
KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_port_that_is_listened_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
        closed.close()
        monkeypatch.setattr(ports, "_PORTS", (taken.getsockname()[1], free))
        assert {ports.free_port() for _ in range(20)} == {free}


@pytest.mark.skipif(not KERNELS.exists(), reason="only Linux says which ports it gives to connections")
def test_no_connection_takes_one_before_it_is_used() -> None:
    first, _ = map(int, KERNELS.read_text().split())
    if first < 32_768:
        pytest.skip("this machine gives more ports to connections than Linux does by itself")
    assert all(ports.free_port() < first for _ in range(20))
