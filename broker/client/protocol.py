"""The socket side of the broker's client: sends requests, matches answers to them, keeps what is delivered until asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, NamedTuple, cast

import msgspec

from broker.errors import BadFrame, BrokerError, ConnectionLost, CorruptRecord, TooLarge, for_code
from broker.log.record import HEAD, decode_record
from broker.protocol import messages
from broker.protocol.messages import FrameReader

MAX_WELCOME = 128 << 20  # the largest frame any broker can be set to; its own limit comes with the welcome
UNREAD_BYTES = 8 << 20
FLUSH_BYTES = 256 << 10
PING_EVERY_S = 15.0
DEAD_AFTER_S = 45.0


class Message(NamedTuple):
    """One message of the log. ``timestamp_ms`` is Unix milliseconds, ``payload`` raw JSON bytes."""

    offset: int
    timestamp_ms: int
    message_id: str
    payload: bytes


class Gap(NamedTuple):
    """Offsets from ``first`` to ``last`` (included) that the broker no longer has; ``reason`` retention or corrupt."""

    first: int
    last: int
    reason: str


class Published(NamedTuple):
    """Where a message is in the log; ``duplicate`` when it had been published before."""

    offset: int
    duplicate: bool


class Reply(msgspec.Struct, gc=False):
    """Any frame of the broker that is not a message."""

    type: str
    offset: int = 0
    duplicate: bool = False
    payload: Any = None
    error: str = ""
    code: str = ""
    oldest: int = 0
    next: int = 0
    max_frame: int = 0
    fsync: str = ""
    from_: int = msgspec.field(name="from", default=0)
    to: int = 0
    reason: str = ""


decode_reply = msgspec.json.Decoder(Reply).decode


class ClientProtocol(asyncio.Protocol):
    """The socket side: sends requests, matches answers to them in order, keeps what is delivered until it is asked for."""

    def __init__(self) -> None:
        self._reader = FrameReader(MAX_WELCOME, keep_prefix=True)
        # One entry per request under way, in order: a publish's future, a request's future, or None for our own ping.
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

    # asyncio's calls

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
        head_end = messages.PREFIX + len(HEAD)
        try:
            for frame in self._reader.feed(data):
                if frame[messages.PREFIX : head_end] == HEAD:
                    record = decode_record(frame)
                    self._inbox.append(Message(record.offset, record.timestamp_ms, record.message_id, record.payload))
                    self._unread += len(frame)
                else:
                    self._take_reply(decode_reply(memoryview(frame)[messages.PREFIX :]))
            if self._reader.fault is not None:
                raise self._reader.fault
        except (CorruptRecord, BadFrame, TooLarge, ValueError, RecursionError) as error:
            self.drop(ConnectionLost(f"the broker sent what is no frame of its protocol: {error}"))
            return
        if self._inbox:
            _wake(self._arrival)
        self._regulate()

    def pause_writing(self) -> None:
        """The broker takes no more for now."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The broker takes more."""
        _wake(self._writable)
        self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended: everything that waits fails."""
        reason = reason_of(exc) if isinstance(exc, OSError) else "the broker closed the connection"
        self._fail_all(ConnectionLost(reason))
        if not self.closed.done():
            self.closed.set_result(None)

    # the client's calls

    def publish(self, frame: bytes, future: asyncio.Future[Published]) -> None:
        """Send a publish; ``future`` gets its answer."""
        if self._error is not None:
            fail(future, self._error)
            return
        self._awaited.append((True, future))
        self._send(frame)

    def request(self, frame: bytes) -> asyncio.Future[Reply]:
        """Send any other request."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._error is not None:
            fail(future, self._error)
            return future
        self._awaited.append((False, future))
        self._requests += 1
        self._send(frame)
        self._regulate()  # the answer stands behind what is delivered: read on
        return future

    async def drain(self) -> None:
        """Wait while the transport's buffer is full."""
        self._flush()
        while self._error is None and self._writable is not None:
            await asyncio.shield(self._writable)
        if self._error is not None:
            raise self._error

    async def receive(self) -> list[Message | Gap]:
        """Everything in the inbox, at least one."""
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
        """From now on ping the broker when nothing was sent for a while, and notice when it is dead."""
        self._heartbeat = self._loop.call_later(PING_EVERY_S / 3, self._beat)

    def finish(self) -> None:
        """Close after what was sent has left."""
        if self._error is None:
            self._flush()
            self._fail_all(ConnectionLost("the connection was closed"))
        self._transport.close()

    def drop(self, error: BrokerError) -> None:
        """Give the connection up at once."""
        self._fail_all(error)
        self._transport.abort()

    # inside

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

    def _take_reply(self, reply: Reply) -> None:
        if reply.type == "ping":
            self._send(messages.PONG)
        elif reply.type == "gap":
            self._inbox.append(Gap(reply.from_, reply.to, reply.reason))
        elif reply.type in {"response", "welcome", "error"}:
            self._answer(reply)
        # A goaway needs no action (the broker closes next), and a frame of some newer broker does not concern us.

    def _answer(self, reply: Reply) -> None:
        if not self._awaited:
            # Nobody asked: the broker says why it is about to close.
            self.drop(for_code(reply.code, reply.error) if reply.code else ConnectionLost("an answer nobody asked for"))
            return
        awaited = self._awaited.popleft()
        if awaited is None:
            return
        is_publish, future = awaited
        self._requests -= not is_publish
        if future.done():
            return  # whoever asked stopped waiting
        if reply.type == "error":
            fail(future, for_code(reply.code, reply.error))
        elif is_publish:
            future.set_result(Published(reply.offset, reply.duplicate))
        else:
            future.set_result(reply)

    def _regulate(self) -> None:
        """Stop reading while much lies unread, unless an answer is waited for: it stands behind what is delivered."""
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
            self.drop(ConnectionLost(f"nothing came from the broker for {DEAD_AFTER_S:g} s"))
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
    """Give a future an error that nobody has to look at."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever does not look at it loses nothing by it: no warning at exit


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def reason_of(error: OSError) -> str:
    """Why the system said no, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return error.strerror or str(error) or type(error).__name__
