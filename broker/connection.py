"""One client's connection as the broker sees it, without input or output: bytes in, events out, bytes to send.

Events are handled in their order, and each is answered exactly once: anything but a publish by ``respond`` at once; a
publish is taken by ``take_publishes`` and answered by ``answer_publish`` when it is durable. The answers leave in the order
of the requests: one that is ready before an earlier publish's is held until that one is given. Times are seconds of any clock that only goes forward.
"""

from __future__ import annotations

import hmac
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from broker import wire
from broker.errors import BrokerError, for_code
from broker.group import Entry
from broker.record import MAX_SEQUENCE, OVERHEAD, check_producer
from broker.wire import FrameReader, Request

MAX_SUBSCRIBER_ID = 128
MAX_OFFSET = 10**16 - 1
EARLIEST, LATEST = -2, -1


class Publish(Entry, gc=False):
    """Append it; ``mark`` goes into the answer. No tuple: there are hundreds of thousands a second, and this is made in a
    third of the time. ``owner`` is for whoever handles it."""

    mark: bytes = b""
    owner: Any = None


class Hello(NamedTuple):
    """The client introduced itself: answer with a welcome."""

    client: str


class Subscribe(NamedTuple):
    """Deliver from ``offset``: -2 earliest, -1 latest, None after the last commit."""

    subscriber_id: str
    offset: int | None
    mark: bytes


class Ack(NamedTuple):
    """Commit all up to ``offset``; None (a plain client's ack of one message) is answered and has no effect."""

    offset: int | None
    mark: bytes


class Nack(NamedTuple):
    """Deliver again from ``offset``; None is answered and has no effect."""

    offset: int | None
    mark: bytes


class Unsubscribe(NamedTuple):
    """Deliver no more and give the subscriber id free."""

    mark: bytes


class Ping(NamedTuple):
    """Answer, so that the client knows the broker lives."""

    mark: bytes


class GetStats(NamedTuple):
    """Answer with the broker's figures."""

    mark: bytes


class Refused(NamedTuple):
    """A request that cannot be met: answer with ``error``. ``fatal`` ends the connection after the answer."""

    error: BrokerError
    mark: bytes
    fatal: bool


Event = Publish | Hello | Subscribe | Ack | Nack | Unsubscribe | Ping | GetStats | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may do. Seconds and bytes."""

    max_frame: int = 8 << 20
    token: str = ""
    before_hello: int = 4096  # most bytes kept of a peer that has not said the token
    hello_s: float = 5.0
    partial_frame_s: float = 30.0
    ping_after_s: float = 15.0
    dead_after_s: float = 45.0

    @property
    def max_payload(self) -> int:
        """The largest payload whose record still fits a frame, so that every client can be sent what it may publish."""
        return self.max_frame - OVERHEAD + wire.PREFIX


class ServerConnection:
    """The state of one connection."""

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self.limits = limits
        self.authorized = not limits.token
        self.said_hello = False
        self.closing = False  # nothing more is read; close once everything is sent
        self.published = 0
        self.answered = 0
        self._reader = FrameReader(limits.max_frame)
        self._max_payload = limits.max_payload
        # The publish that is expected: the last one's producer, known to be good, the sequence that follows, and how it then
        # begins; empty where none is expected.
        self._producer, self._sequence, self._head = "", 0, b""
        self._layout = b""  # of the producer's publishes
        self._out: list[bytes] = []
        self._held: deque[tuple[int, bytes]] = deque()
        self._opened = self._heard = self._pinged = now
        self._partial_since: float | None = None

    # bytes in

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """The requests that ``data`` completes, in order. Raises nothing: what is wrong is a Refused event."""
        self._heard = now
        if self.closing:
            return []
        events: list[Event] = []
        frames = self._reader.find(data)
        for held, start, stop in frames:
            event = self._expected_publish(held, start, stop) or self._parse(held[start:stop])
            if event is not None:
                events.append(event)
                if type(event) is Refused and event.fatal:
                    self.closing = True
                    return events
        fault = self._reader.fault
        if fault is None and not self.authorized and self._reader.held > self.limits.before_hello:
            fault = for_code("too_large", f"at most {self.limits.before_hello} bytes are taken before a hello")
        if fault is not None:
            self.closing = True
            events.append(Refused(fault, b"", fatal=True))
        if not self._reader.held:
            self._partial_since = None
        elif frames or self._partial_since is None:
            self._partial_since = now
        return events

    @property
    def partial_bytes(self) -> int:
        """Bytes of the frame that is not complete yet."""
        return self._reader.held

    def reading_resumed(self, now: float) -> None:
        """The broker itself had stopped reading: that time is not the client's delay."""
        self._heard = now
        if self._partial_since is not None:
            self._partial_since = now

    # answers out

    def take_publishes(self, count: int) -> None:
        """So many Publish events are being handled: answers to what comes after them wait for theirs."""
        self.published += count

    def respond(self, answer: bytes) -> None:
        """Answer a request that is not a publish, after the answers of all publishes taken before it."""
        if self.published == self.answered:
            self._out.append(answer)
        else:
            self._held.append((self.published, answer))

    def answer_publish(self, answer: bytes) -> None:
        """Answer the oldest unanswered publish, and with it what was held behind it."""
        self._out.append(answer)
        self.answered += 1
        held = self._held
        while held and held[0][0] <= self.answered:
            self._out.append(held.popleft()[1])

    def answer_publishes(self, answers: list[bytes]) -> None:
        """Answer the oldest unanswered publishes, as many as there are answers."""
        if self._held:
            for answer in answers:
                self.answer_publish(answer)
        else:
            self._out += answers
            self.answered += len(answers)

    def refuse(self, error: BrokerError, mark: bytes = b"", *, fatal: bool = False) -> None:
        """Answer a request with an error; ``fatal`` reads nothing more and closes once all is answered."""
        self.respond(wire.error_frame(error, mark))
        self.closing = self.closing or fatal

    def data_to_send(self) -> bytes:
        """What is to be written now, in one piece; empty when nothing is."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    @property
    def all_answered(self) -> bool:
        """Whether every request so far has its answer in what was or is to be sent."""
        return self.published == self.answered

    # time

    def check_time(self, now: float) -> bool:
        """Send a ping where one is due and refuse what took too long. False: the peer is dead, drop it."""
        limits = self.limits
        if self.closing:
            return True
        if not self.authorized and now - self._opened >= limits.hello_s:
            self.refuse(for_code("unauthorized", f"no hello with the token within {limits.hello_s:g} s"), fatal=True)
        elif self._partial_since is not None and now - self._partial_since >= limits.partial_frame_s:
            text = f"a frame was not complete after {limits.partial_frame_s:g} s"
            self.refuse(for_code("bad_frame", text), fatal=True)
        elif self.said_hello:
            if now - self._heard >= limits.dead_after_s:
                return False
            if now - max(self._heard, self._pinged) >= limits.ping_after_s:
                self._pinged = now
                self._out.append(wire.PING)
        return True

    # one request

    def _expected_publish(self, data: bytes, start: int, stop: int) -> Publish | None:
        """The publish in a frame, where it follows the last one and leaves nothing to be said; None: look closer."""
        head = self._head
        payload = wire.quick_payload(data, start, stop, head) if head else None
        if payload is None or len(payload) > self._max_payload:
            return None
        producer, sequence = self._producer, self._sequence
        if producer:
            self._sequence = sequence + 1
            self._head = self._layout % (sequence + 1) if sequence < MAX_SEQUENCE else b""
        return Publish(payload, producer, sequence)

    def _expect(self, producer: str, sequence: int) -> None:
        """Expect the next publish to be this one: where it is, nothing but its payload needs a look."""
        self._producer, self._sequence = producer, sequence
        self._layout = wire.publish_layout(producer)
        self._head = wire.publish_head(producer, sequence) if sequence <= MAX_SEQUENCE else b""

    def _parse(self, body: bytes) -> Event | None:
        try:
            request = wire.decode_request(body)
        except BrokerError as error:
            return Refused(error, b"", fatal=not self.authorized)
        mark = bytes(request.message_id)
        if len(mark) > wire.MAX_MARK_BYTES:
            text = f"message_id takes {len(mark)} bytes: at most {wire.MAX_MARK_BYTES} are taken"
            return Refused(for_code("bad_request", text), b"", fatal=False)
        if not self.authorized and request.type != "hello":
            return Refused(for_code("unauthorized", "say hello with the token first"), mark, fatal=True)
        try:
            return self._event(request, mark)
        except BrokerError as error:
            return Refused(error, mark, fatal=error.code == "unauthorized")

    def _event(self, request: Request, mark: bytes) -> Event | None:
        match request.type:
            case "publish":
                return self._publish(request, mark)
            case "ack":
                return Ack(_offset(request.offset, "ack", 0), mark)
            case "nack":
                return Nack(_offset(request.offset, "nack", 0), mark)
            case "ping":
                return Ping(mark)
            case "pong" if self.said_hello:
                return None  # the answer to our ping: that it came is all it says
            case "subscribe":
                return Subscribe(_subscriber_id(request.subscriber_id), _offset(request.offset, "subscribe", -2), mark)
            case "unsubscribe":
                return Unsubscribe(mark)
            case "get_stats":
                return GetStats(mark)
            case "hello":
                return self._hello(request)
        raise for_code("unknown_type", f"unknown type {_shown(request.type)}")

    def _publish(self, request: Request, mark: bytes) -> Publish:
        payload = bytes(request.payload)
        if not payload:
            raise for_code("bad_request", "publish: payload is missing")
        if len(payload) > self._max_payload:
            text = f"publish: a payload of {len(payload)} bytes: at most {self._max_payload} are taken"
            raise for_code("too_large", text)
        producer = request.producer
        if producer is None:
            self._expect("", 0)
            return Publish(payload, "", 0, mark)
        if not isinstance(producer, str):
            raise for_code("bad_request", f"publish: producer must be 16 hex digits, not {_shown(producer)}")
        if producer != self._producer or not producer:
            try:
                check_producer(producer)
            except ValueError as error:
                raise for_code("bad_request", f"publish: {error}") from None
        sequence = request.sequence
        if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
            text = f"publish: sequence must be a whole number from 0 to {MAX_SEQUENCE}, not {_shown(sequence)}"
            raise for_code("bad_request", text)
        self._expect(producer, sequence + 1)
        return Publish(payload, producer, sequence, mark)

    def _hello(self, request: Request) -> Hello:
        if not self.authorized:
            said = request.token if isinstance(request.token, str) else ""
            if not hmac.compare_digest(said.encode("utf-8", "replace"), self.limits.token.encode()):
                raise for_code("unauthorized", "the token is wrong" if said else "a token is needed")
            self.authorized = True
        self.said_hello = True
        return Hello(request.client if isinstance(request.client, str) else "")


def _offset(value: Any, kind: str, least: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not least <= value <= MAX_OFFSET:
        raise for_code("bad_request", f"{kind}: offset must be a whole number from {least}, not {_shown(value)}")
    return value


def _subscriber_id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBSCRIBER_ID or not value.isprintable():
        text = f"subscribe: subscriber_id must be 1 to {MAX_SUBSCRIBER_ID} printable characters, not {_shown(value)}"
        raise for_code("bad_request", text)
    return value


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
    return text if len(text) <= 60 else text[:60] + "…"
