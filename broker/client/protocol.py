"""The socket side of the broker's client: sends requests, matches their answers, and queues what is delivered."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, NamedTuple, cast

import msgspec

from broker.errors import BadFrame, BrokerError, ConnectionLost, CorruptRecord, TooLarge, for_code
from broker.log.record import CRC_END, CRC_START, MESSAGE, Gap, decode_record, payload_checksum
from broker.protocol import messages
from broker.protocol.frames import PREFIX, FrameReader

MAX_WELCOME = 128 << 20  # the largest frame any broker allows; its own limit comes with the welcome
UNREAD_BYTES = 8 << 20
SEEN_BYTES = 400
FLUSH_BYTES = 256 << 10
PING_EVERY_S = 15.0
DEAD_AFTER_S = 45.0


class Message(NamedTuple):
    """One message of the log. ``timestamp_ms`` is Unix milliseconds, ``payload`` raw JSON bytes, ``c32`` its record's checksum."""

    offset: int
    timestamp_ms: int
    message_id: str
    payload: bytes
    c32: str = ""


class Published(NamedTuple):
    """A message's offset in the log; ``duplicate`` if it was published before.

    ``checksum`` is the CRC-32C of a duplicate's payload in the log, in hex; empty if it can no longer be read there.
    """

    offset: int
    duplicate: bool
    checksum: str = ""

    def is_of(self, payload: bytes) -> bool:
        """Whether the log certainly holds this payload. If not, another message was published under its number."""
        return not self.duplicate or self.checksum == payload_checksum(payload)


class BrokerReply(msgspec.Struct, gc=False):
    """Any frame from the broker that is not a message."""

    type: str
    offset: int = 0
    duplicate: bool = False
    payload_c32: str = ""
    payload: Any = None
    error: str = ""
    code: str = ""
    oldest: int = 0
    next: int = 0
    max_frame: int = 0
    fsync: str = ""
    log: str = ""
    last_offset: int = -1
    last_c32: str = ""
    restored: bool = False
    from_: int = msgspec.field(name="from", default=0)
    to: int = 0
    reason: str = ""


decode_reply = msgspec.json.Decoder(BrokerReply).decode


class ClientProtocol(asyncio.Protocol):
    """Sends requests, matches their answers in order, and queues what is delivered until it is received."""

    def __init__(self) -> None:
        self._reader = FrameReader(MAX_WELCOME, keep_prefix=True)
        # One entry per pending request, in order: a publish's future, a request's future, or None for our own ping.
        self._awaited: deque[tuple[bool, asyncio.Future[Any]] | None] = deque()
        self._requests = 0
        self._inbox: list[Message | Gap] = []
        self._unread = 0
        self._out: list[bytes] = []
        self._out_size = 0
        self._error: BrokerError | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self.seen = b""  # the first bytes, until the broker has said welcome
        self._is_known = False

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, transport)
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._heard = self._sent = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Frames came."""
        self._heard = self._loop.time()
        if self._error is not None:
            return
        if not self._is_known and len(self.seen) < SEEN_BYTES:
            self.seen = (self.seen + data)[:SEEN_BYTES]
        head_end = PREFIX + len(MESSAGE)
        try:
            for frame in self._reader.feed(data):
                if frame[PREFIX:head_end] == MESSAGE:
                    record = decode_record(frame)
                    c32 = frame[CRC_START:CRC_END].decode()
                    self._inbox.append(
                        Message(record.offset, record.timestamp_ms, record.message_id, record.payload, c32)
                    )
                    self._unread += len(frame)
                else:
                    self._take_reply(decode_reply(memoryview(frame)[PREFIX:]))
            if self._reader.fault is not None:
                raise self._reader.fault
        except (CorruptRecord, BadFrame, TooLarge, ValueError, RecursionError) as error:
            self.drop(ConnectionLost(f"the broker sent an invalid frame: {error}"))
            return
        if self._inbox:
            _wake(self._arrival)
        self._regulate()

    def pause_writing(self) -> None:
        """The broker takes no more bytes for now."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The broker takes bytes again."""
        _wake(self._writable)
        self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended: everything pending fails."""
        reason = reason_of(exc) if isinstance(exc, OSError) else "the broker closed the connection"
        self._fail_all(ConnectionLost(reason))
        if not self.closed.done():
            self.closed.set_result(None)

    # Called by the client

    def publish(self, frame: bytes, future: asyncio.Future[Published]) -> None:
        """Send a publish; ``future`` receives its answer."""
        if self._error is not None:
            fail(future, self._error)
            return
        self._awaited.append((True, future))
        self._send(frame)

    def request(self, frame: bytes) -> asyncio.Future[BrokerReply]:
        """Send any other request; returns the future of its answer."""
        future: asyncio.Future[BrokerReply] = self._loop.create_future()
        if self._error is not None:
            fail(future, self._error)
            return future
        self._awaited.append((False, future))
        self._requests += 1
        self._send(frame)
        self._regulate()  # the answer comes after what is delivered: keep reading
        return future

    async def drain(self) -> None:
        """Wait while the transport's buffer is full."""
        self._flush()
        while self._error is None and self._writable is not None:
            await asyncio.shield(self._writable)
        if self._error is not None:
            raise self._error

    async def receive(self) -> list[Message | Gap]:
        """Returns everything in the inbox, at least one."""
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self._arrival is None or self._arrival.done():
                self._arrival = self._loop.create_future()
            await asyncio.shield(self._arrival)
        arrived, self._inbox = self._inbox, []
        self._unread = 0
        self._regulate()
        return arrived

    def start_heartbeat(self) -> None:
        """Ping the broker when nothing was sent for a while, and detect when it is dead."""
        self._heartbeat = self._loop.call_later(PING_EVERY_S / 3, self._beat)

    def finish(self) -> None:
        """Close once everything sent has left."""
        if self._error is None:
            self._flush()
            self._fail_all(ConnectionLost("the connection was closed"))
        self._transport.close()

    def drop(self, error: BrokerError) -> None:
        """Drop the connection at once."""
        self._fail_all(error)
        self._transport.abort()

    # Internal

    def _send(self, data: bytes) -> None:
        self._sent = self._loop.time()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._out and not self._transport.is_closing():
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()
        self._out_size = 0

    def _take_reply(self, reply: BrokerReply) -> None:
        if reply.type == "welcome":
            self._is_known = True
        if reply.type == "ping":
            self._send(messages.PONG)
        elif reply.type == "gap":
            self._inbox.append(Gap(reply.from_, reply.to, reply.reason))
        elif reply.type in {"response", "welcome", "error"} or not self._is_known:
            self._answer(reply)
        # A goaway needs no action, since the broker closes next. Unknown frames of a newer broker are ignored.

    def _answer(self, reply: BrokerReply) -> None:
        if not self._awaited:
            # No request is pending: the broker says why it is about to close.
            self.drop(
                for_code(reply.code, reply.error)
                if reply.code
                else ConnectionLost("the broker sent an answer without a request")
            )
            return
        awaited = self._awaited.popleft()
        if awaited is None:
            return
        is_publish, future = awaited
        self._requests -= not is_publish
        if future.done():
            return  # the caller stopped waiting
        if reply.type == "error" and self._is_known:
            fail(future, for_code(reply.code, reply.error))
        elif is_publish:
            future.set_result(Published(reply.offset, reply.duplicate, reply.payload_c32))
        else:
            future.set_result(reply)

    def _regulate(self) -> None:
        """Pause reading while much is unread, unless an answer is pending: it comes after what is delivered."""
        pause = self._unread > UNREAD_BYTES and not self._requests
        if pause == self._paused or self._transport.is_closing():
            return
        self._paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._heard = self._loop.time()
            self._transport.resume_reading()

    def _beat(self) -> None:
        if self._error is not None:
            return
        now = self._loop.time()
        if not self._paused and now - self._heard >= DEAD_AFTER_S:
            self.drop(ConnectionLost(f"nothing was heard from the broker for {DEAD_AFTER_S:g} s"))
            return
        if now - self._sent >= PING_EVERY_S or (not self._paused and now - self._heard >= PING_EVERY_S):
            self._awaited.append(None)
            self._send(messages.PING)
        self.start_heartbeat()

    def _fail_all(self, error: BrokerError) -> None:
        if self._error is None:
            self._error = error
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        while self._awaited:
            awaited = self._awaited.popleft()
            if awaited is not None:
                fail(awaited[1], self._error)
        _wake(self._arrival)
        _wake(self._writable)


def fail(future: asyncio.Future[Any], error: BrokerError) -> None:
    """Sets an error on a future without a warning if nobody retrieves it."""
    if not future.done():
        future.set_exception(error)
        future.exception()


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def reason_of(error: OSError) -> str:
    """Returns the system's reason for an error, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return error.strerror or str(error) or type(error).__name__
