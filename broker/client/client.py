"""The broker's client: one connection with pipelined publishes and one subscription, and a blocking ``fetch_stats``."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import Any, NamedTuple, cast

from broker.client.other_end import not_this_broker
from broker.client.protocol import (
    MAX_WELCOME,
    SEEN_BYTES,
    ClientProtocol,
    Message,
    Published,
    decode_reply,
    fail,
    reason_of,
)
from broker.errors import BY_CODE, BrokerUnavailable, ConnectionLost, TooLarge, UnknownType, for_code
from broker.log.record import Gap
from broker.protocol import messages
from broker.protocol.frames import PREFIX, FrameReader
from broker.tls import client_context

__all__ = ["BrokerClient", "Gap", "LastMessage", "Message", "Published", "Welcome", "client_context", "fetch_stats"]


class Welcome(NamedTuple):
    """What the broker says about itself: first and next offset, largest frame in bytes, and its fsync mode."""

    oldest: int
    next: int
    max_frame: int
    fsync: str


class LastMessage(NamedTuple):
    """The last message that a subscriber had, and the log it came from. Offset -1: none yet."""

    log: str = ""
    offset: int = -1
    c32: str = ""


class Resumed(NamedTuple):
    """Where delivery starts, and the message before. ``restored``: the log is not the one that the subscriber read before."""

    offset: int
    restored: bool
    last: LastMessage


class BrokerClient:
    """One connection to a broker. Only one task at a time may receive."""

    def __init__(self, protocol: ClientProtocol, welcome: Welcome) -> None:
        self.welcome = welcome
        self._protocol = protocol

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        token: str = "",
        client: str = "",
        timeout: float = 5.0,  # noqa: ASYNC109  # the name callers expect
        tls: ssl.SSLContext | None = None,
    ) -> BrokerClient:
        """Connect and say hello, over TLS if ``tls`` is given (see client_context).

        Raises BrokerUnavailable (retriable) if no broker answers within ``timeout`` seconds, and the broker's own error
        (Unauthorized, Overloaded, …) if it refuses the connection.
        """
        protocol: ClientProtocol | None = None
        where = f"{host}:{port}"
        try:
            async with asyncio.timeout(timeout):
                _, protocol = await asyncio.get_running_loop().create_connection(ClientProtocol, host, port, ssl=tls)
                hello = protocol.request(messages.request_frame("hello", token=token or None, client=client or None))
                reply = await hello
                if reply.type == "error" and reply.code in BY_CODE and reply.code != UnknownType.code:
                    raise for_code(reply.code, reply.error)
                if reply.type != "welcome":
                    raise BrokerUnavailable(not_this_broker(where, protocol.seen))
        except TimeoutError:
            if protocol is not None:
                protocol.drop(ConnectionLost("gave up"))
                if protocol.seen:
                    raise BrokerUnavailable(not_this_broker(where, protocol.seen)) from None
                text = f"what is at {where} is not this broker, or too old, or hangs: no answer to a hello within {timeout:g} s"
                raise BrokerUnavailable(text) from None
            raise BrokerUnavailable(f"no answer from {where} within {timeout:g} s") from None
        except OSError as error:
            raise BrokerUnavailable(f"no broker at {where}: {reason_of(error)}") from None
        except ConnectionLost as error:
            if protocol is not None and protocol.seen:
                raise BrokerUnavailable(not_this_broker(where, protocol.seen)) from None
            raise BrokerUnavailable(
                f"what is at {where} hung up on a hello (not this broker, or too old?): {error}"
            ) from None
        except BaseException:
            if protocol is not None:
                protocol.drop(ConnectionLost("turned away"))
            raise
        protocol.start_heartbeat()
        return cls(protocol, Welcome(reply.oldest, reply.next, reply.max_frame, reply.fsync))

    def publish(self, payload: bytes, *, producer: str = "", sequence: int = 0) -> asyncio.Future[Published]:
        """Send a message without waiting; the future is done once the message is durable. Answers come in order.

        A failed future holds a BrokerError. After ConnectionLost the message may or may not be in the log: with a producer
        (16 hex digits), sending it again with the same sequence is harmless. The caller limits how many are pending.
        """
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        frame = messages.publish_frame(payload, producer, sequence)
        if len(frame) - PREFIX > self.welcome.max_frame:
            text = f"a frame of {len(frame) - PREFIX} bytes: the broker takes at most {self.welcome.max_frame}"
            fail(future, TooLarge(text))
        else:
            self._protocol.publish(frame, future)
        return future

    async def drain(self) -> None:
        """Wait while the broker takes no more bytes. Raises ConnectionLost."""
        await self._protocol.drain()

    async def subscribe(self, subscriber_id: str, offset: int | None = None) -> int:
        """Start delivery; returns the first offset. ``offset``: -2 earliest, -1 latest, None after the committed offset
        (earliest if there is none). Raises SubscriberInUse, OffsetOutOfRange, InvalidRequest, ConnectionLost."""
        frame = messages.request_frame("subscribe", subscriber_id=subscriber_id, offset=offset)
        return (await self._protocol.request(frame)).offset

    async def resume(self, subscriber_id: str, offset: int | None, last: LastMessage) -> Resumed:
        """Like ``subscribe``, and compare the log with the last message from it.

        If the log is another one (restored from an older copy, or a new one), delivery continues after its own commit, or at
        its start, and ``restored`` is set. A broker of an older version does not compare.
        """
        frame = messages.request_frame(
            "subscribe",
            subscriber_id=subscriber_id,
            offset=offset,
            log=last.log,
            last_offset=last.offset if last.c32 else None,
            last_c32=last.c32 or None,
        )
        reply = await self._protocol.request(frame)
        return Resumed(reply.offset, reply.restored, LastMessage(reply.log, reply.last_offset, reply.last_c32))

    async def receive(self) -> list[Message | Gap]:
        """Returns everything that has arrived, at least one. Raises ConnectionLost once all of it was returned."""
        return await self._protocol.receive()

    async def ack(self, offset: int) -> None:
        """Commit everything up to ``offset``; returns once the broker has answered."""
        await self._protocol.request(messages.request_frame("ack", offset=offset))

    async def stats(self) -> dict[str, Any]:
        """Returns the broker's figures (see /stats)."""
        return cast(dict[str, Any], (await self._protocol.request(messages.request_frame("get_stats"))).payload)

    async def close(self) -> None:
        """Close the connection; unanswered requests fail with ConnectionLost. Idempotent."""
        self._protocol.finish()
        await asyncio.shield(self._protocol.closed)


def fetch_stats(
    host: str, port: int, *, token: str = "", timeout: float = 2.0, tls: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """Returns the broker's figures over a connection of its own; blocks for ``timeout`` seconds at most.

    Raises BrokerUnavailable, or the broker's own error.
    """
    deadline = time.monotonic() + timeout
    try:
        with _connected(host, port, timeout, tls) as sock:
            request = messages.request_frame("hello", token=token) if token else b""
            sock.sendall(request + messages.request_frame("get_stats"))
            reader = FrameReader(MAX_WELCOME)
            seen = b""
            while True:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                data = sock.recv(1 << 16)
                if not data:
                    raise BrokerUnavailable(f"the broker at {host}:{port} hung up")
                seen = (seen + data)[:SEEN_BYTES]
                for body in reader.feed(data):
                    reply = decode_reply(body)
                    if reply.type == "error":
                        raise for_code(reply.code, reply.error)
                    if reply.type == "response" and isinstance(reply.payload, dict):
                        return reply.payload
                if reader.fault is not None:
                    raise BrokerUnavailable(not_this_broker(f"{host}:{port}", seen))
                if time.monotonic() >= deadline:
                    raise TimeoutError
    except TimeoutError:
        raise BrokerUnavailable(f"no answer from a broker at {host}:{port} within {timeout:g} s") from None
    except OSError as error:
        raise BrokerUnavailable(f"no broker at {host}:{port}: {reason_of(error)}") from None
    except ValueError as error:
        raise BrokerUnavailable(f"what is at {host}:{port} is no broker: {error}") from None


def _connected(host: str, port: int, timeout: float, tls: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection((host, port), timeout)
    if tls is None:
        return sock
    try:
        return tls.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise
