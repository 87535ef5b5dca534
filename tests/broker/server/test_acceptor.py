from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from broker.server.acceptor import MOST_REFUSED, Acceptor
from broker.server.bursts import BurstLog
from broker.server.places import ConnectionPlaces, Guest
from broker.tls import client_context, server_context
from tests.broker.certificates import Authority
from tests.broker.harness import wait_until


class Noted(asyncio.Protocol):
    """Notes its connection."""

    def __init__(self, guest: Guest | None, made: list[Noted]) -> None:
        self.guest = guest
        self.transport: asyncio.BaseTransport | None = None
        made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self.guest is not None:
            self.guest.leave = transport.close


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_without_descriptors_it_waits_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Noted] = []
    acceptor = Acceptor(
        lambda guest: Noted(guest, made), ConnectionPlaces(5, 5), BurstLog(logging.getLogger("test")), None, 1.0
    )
    port = await acceptor.listen("127.0.0.1", 0)
    real, failing = socket.socket.accept, True

    def accept(self: socket.socket) -> tuple[socket.socket, object]:
        if failing:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.5)  # several attempts
    assert caplog.messages == ["cannot accept clients for now: Too many open files"]
    failing = False
    await wait_until(lambda: made)
    acceptor.close()
    await hang_up(writer)
    await wait_until(lambda: made[0].transport)
    assert made[0].transport is not None
    made[0].transport.close()


async def test_connections_without_a_place_are_told_so_but_not_all_at_once() -> None:
    made: list[Noted] = []
    places = ConnectionPlaces(1, 1)
    acceptor = Acceptor(lambda guest: Noted(guest, made), places, BurstLog(logging.getLogger("test")), None, 1.0)
    port = await acceptor.listen("127.0.0.1", 0)
    clients = [await asyncio.open_connection("127.0.0.1", port)]
    await wait_until(lambda: made)
    assert made[0].guest is not None
    places.prove(made[0].guest)
    clients += [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_REFUSED + 5)]
    assert await clients[-1][0].read() == b""  # closed at once
    await wait_until(lambda: len(made) == 1 + MOST_REFUSED)
    assert [one.guest for one in made[1:]] == [None] * MOST_REFUSED
    acceptor.close()
    for one in made:
        if one.transport is not None:
            one.transport.close()
    for _, writer in clients:
        await hang_up(writer)


async def test_a_handshake_that_nobody_finishes_makes_room(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = server_context(*authority.sign("broker"))
    made: list[Noted] = []
    places = ConnectionPlaces(2, 2)
    acceptor = Acceptor(lambda guest: Noted(guest, made), places, BurstLog(logging.getLogger("test")), tls, 60.0)
    port = await acceptor.listen("127.0.0.1", 0)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(str(authority.ca)))
    assert len(places) == 2
    assert await silent[0][0].read() == b""
    acceptor.close()
    await hang_up(writer)
    for protocol in made:
        if protocol.transport is not None:
            protocol.transport.close()
    for _, one in silent:
        await hang_up(one)
