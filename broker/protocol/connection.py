"""The broker's side of one client's connection, without input or output: bytes in, events out, bytes to send.

Consecutive publishes form one event; any other request is an event of its own. Events are handled in order, and each is
answered exactly once. Publishes are taken with ``take_publishes`` and answered with ``answer_publishes`` once they are
durable; ``respond`` answers anything else at once. Answers leave in the order of the requests: one that is ready before an
earlier publish's answer waits for it. Times are seconds of any monotonic clock.
"""

from __future__ import annotations

import hmac
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from broker.errors import BrokerError, for_code
from broker.log.batch import Entries
from broker.log.record import MAX_SEQUENCE, OVERHEAD, check_producer, key_of
from broker.protocol import messages
from broker.protocol.frames import PREFIX, FrameReader
from broker.protocol.messages import Request

MAX_NAME = 128  # characters of a subscriber_id, a client's name and a log's identity
_C32 = re.compile(r"[0-9a-f]{8}")
# Publishes in one event: they are written, answered and refused together.
MOST_IN_ROW = 512
# Events and frames handled at a time. Refusing a request takes 10 us, finding a frame half a microsecond, and one read from
# the socket can hold 45,000 of the smallest frames.
MOST_EVENTS = 256
MOST_FRAMES = 2048
MAX_OFFSET = 10**16 - 1
EARLIEST, LATEST = -2, -1


class Publish(Entries, gc=False):
    """Append the messages. ``marks`` go into their answers, one each, or are empty. ``owner`` is for the handler."""

    marks: list[bytes] = msgspec.field(default_factory=list)
    owner: Any = None

    def join(self, other: Publish) -> bool:
        """Absorb publishes that came right after these. Returns False if they need an event of their own."""
        if (
            other.producer != self.producer
            or (self.producer and other.sequence != self.sequence + len(self.payloads))
            or bool(other.marks) != bool(self.marks)
            or len(self.payloads) >= MOST_IN_ROW
        ):
            return False
        self.payloads += other.payloads
        self.marks += other.marks
        self.size += other.size
        return True


class Hello(NamedTuple):
    """The client introduces itself: answer with a welcome."""

    client: str


class Subscribe(NamedTuple):
    """Deliver from ``offset``: -2 earliest, -1 latest, None after the committed offset.

    ``log`` is the identity of the log that the subscriber read before, empty if none; None: it does not compare. ``last_offset`` and
    ``last_c32`` are of the last message it had, None if none.
    """

    subscriber_id: str
    offset: int | None
    mark: bytes
    log: str | None = None
    last_offset: int = -1
    last_c32: str | None = None


class Ack(NamedTuple):
    """Commit everything up to ``offset``. None (a plain client's ack of one message) is answered without effect."""

    offset: int | None
    mark: bytes


class Nack(NamedTuple):
    """Deliver again from ``offset``. None is answered without effect."""

    offset: int | None
    mark: bytes


class Unsubscribe(NamedTuple):
    """Stop delivering and free the subscriber id."""

    mark: bytes


class Ping(NamedTuple):
    """Answer, so that the client knows the broker is alive."""

    mark: bytes


class GetStats(NamedTuple):
    """Answer with the broker's figures."""

    mark: bytes


class RefusedRequest(NamedTuple):
    """A request that cannot be served: answer with ``error``. ``fatal`` ends the connection after the answer."""

    error: BrokerError
    mark: bytes
    fatal: bool


Event = Publish | Hello | Subscribe | Ack | Nack | Unsubscribe | Ping | GetStats | RefusedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits of one connection, in seconds and bytes."""

    max_frame: int = 8 << 20
    token: str = ""
    before_hello: int = 4096  # most bytes held for a peer that has not sent the token
    hello_s: float = 5.0
    partial_frame_s: float = 30.0
    ping_after_s: float = 15.0
    dead_after_s: float = 45.0

    @property
    def max_payload(self) -> int:
        """The largest payload whose record still fits a frame, so that what a client may publish can be delivered to any."""
        return self.max_frame - OVERHEAD + PREFIX


class ServerConnection:
    """The state of one connection."""

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self.limits = limits
        self.authorized = not limits.token
        self.said_hello = False
        self.closing = False  # read nothing more; close once everything is sent
        self.published = 0
        self.answered = 0
        self.unsent = 0  # bytes of answers, other than to publishes, that have not been taken with data_to_send
        self._reader = FrameReader(limits.max_frame)
        self._frames: list[tuple[bytes, int, int]] = []  # received, not parsed yet
        self._max_payload = limits.max_payload
        # The last publish's producer, known to be valid, and its key; the sequence that follows; and how the next publish
        # begins if it has both and our client's layout. An empty head means that no such publish is expected.
        self._producer, self._key, self._sequence, self._head = "", "", 0, b""
        self._out: list[bytes] = []
        self._held: deque[tuple[int, bytes]] = deque()
        self._opened = self._heard = self._pinged = now
        self._partial_since: float | None = None

    # Bytes in

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Returns the requests that ``data`` completes, in order. If there are very many, ``has_more`` is set and
        ``next_events`` returns the rest. Raises nothing: errors are RefusedRequest events."""
        self._heard = now
        if self.closing:
            return []
        self._find(data)
        return self.next_events()

    @property
    def has_more(self) -> bool:
        """Whether received requests wait for ``next_events``."""
        return (bool(self._frames) or self._reader.unread > 0) and not self.closing

    def next_events(self) -> list[Event]:
        """Returns the next received requests, few enough that other clients wait only a few milliseconds."""
        if self.closing:
            return []
        events: list[Event] = []
        if not self._frames and self._reader.unread:
            self._find()
        frames, done = self._frames, 0
        while done < len(frames) and len(events) < MOST_EVENTS:
            held, start, stop = frames[done]
            if self._head and held.startswith(self._head, start, stop):
                expected = self._expected_publishes(frames[done : done + MOST_IN_ROW])
                if expected is not None:
                    done += len(expected.payloads)
                    events.append(expected)
                    continue
            done += 1
            event = self._parse(held[start:stop])
            if type(event) is Publish and events and type(last := events[-1]) is Publish and last.join(event):
                continue
            if event is not None:
                events.append(event)
                if type(event) is RefusedRequest and event.fatal:
                    self.closing = True
                    return events
        del frames[:done]
        if self.has_more:
            return events
        fault = self._reader.fault
        if fault is None and not self.authorized and self._reader.held > self.limits.before_hello:
            fault = for_code("too_large", f"at most {self.limits.before_hello} bytes are taken before a hello")
        if fault is not None:
            self.closing = True
            events.append(RefusedRequest(fault, b"", fatal=True))
        return events

    @property
    def partial_bytes(self) -> int:
        """Bytes of the incomplete frame and bytes not examined yet."""
        return self._reader.held + self._reader.unread

    def reading_resumed(self, now: float) -> None:
        """The broker itself had paused reading: do not count that time against the client."""
        self._heard = now
        if self._partial_since is not None:
            self._partial_since = now

    # Answers out

    def take_publishes(self, count: int) -> None:
        """Count publishes in progress: the answers to later requests wait for theirs."""
        self.published += count

    def respond(self, answer: bytes) -> None:
        """Answer a request that is not a publish, after all publishes taken before it."""
        self.unsent += len(answer)
        if self.published == self.answered:
            self._out.append(answer)
        else:
            self._held.append((self.published, answer))

    def answer_publishes(self, answers: bytes, count: int) -> None:
        """Answer the oldest unanswered Publish event, and release the answers held behind it."""
        self._out.append(answers)
        self.answered += count
        held = self._held
        while held and held[0][0] <= self.answered:
            self._out.append(held.popleft()[1])

    def refuse(self, error: BrokerError, mark: bytes = b"", *, fatal: bool = False) -> None:
        """Answer a request with an error. If ``fatal``, read nothing more and close once everything is answered."""
        self.respond(messages.error_frame(error, mark))
        self.closing = self.closing or fatal

    def data_to_send(self) -> bytes:
        """Returns the bytes to write now, possibly none."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if not self._held:
            self.unsent = 0
        return data

    @property
    def all_answered(self) -> bool:
        """Whether every request so far has been answered."""
        return self.published == self.answered

    # Time

    def check_time(self, now: float) -> bool:
        """Send a ping if one is due, and refuse what took too long. Returns False if the peer is dead and must be dropped."""
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
                self._out.append(messages.PING)
        return True

    def _find(self, data: bytes = b"") -> None:
        frames = self._reader.find(data, MOST_FRAMES)
        if not self._reader.held:
            self._partial_since = None
        elif frames or self._partial_since is None:
            self._partial_since = self._heard
        self._frames += frames

    # One request

    def _expected_publishes(self, frames: Sequence[tuple[bytes, int, int]]) -> Publish | None:
        """Returns the leading publishes if they continue the last one and are valid; None if the first needs a closer
        look."""
        payloads = messages.quick_payloads(frames, self._producer, self._sequence, self._max_payload)
        if not payloads:
            return None
        publish = Publish(payloads, self._key, self._sequence)
        self._expect(publish.sequence + len(payloads))
        return publish

    def _expect(self, sequence: int) -> None:
        self._sequence = sequence
        self._head = messages.publish_head(self._producer, sequence)

    def _parse(self, body: bytes) -> Event | None:
        try:
            request = messages.decode_request(body)
        except BrokerError as error:
            return RefusedRequest(error, b"", fatal=not self.authorized)
        mark = bytes(request.message_id)
        if len(mark) > messages.MAX_MARK_BYTES:
            text = f"message_id takes {len(mark)} bytes: at most {messages.MAX_MARK_BYTES} are taken"
            return RefusedRequest(for_code("bad_request", text), b"", fatal=False)
        if not self.authorized and request.type != "hello":
            return RefusedRequest(for_code("unauthorized", "say hello with the token first"), mark, fatal=True)
        try:
            event = self._event(request, mark)
        except BrokerError as error:
            return RefusedRequest(error, mark, fatal=error.code == "unauthorized")
        if type(event) is Publish:
            self._expect(event.sequence + 1)
            if not body.startswith(messages.publish_head(self._producer, event.sequence)) or mark:
                self._head = b""  # of another layout, like probably the next ones
        return event

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
                return None  # the answer to our ping
            case "subscribe":
                return _subscribe(request, mark)
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
            self._producer = self._key = ""
            return Publish([payload], marks=[mark] if mark else [])
        if not isinstance(producer, str):
            raise for_code("bad_request", f"publish: producer must be 16 hex digits, not {_shown(producer)}")
        if producer != self._producer or not producer:
            try:
                check_producer(producer)
            except ValueError as error:
                raise for_code("bad_request", f"publish: {error}") from None
            self._producer, self._key, self._head = producer, key_of(producer), b""
        sequence = request.sequence
        if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
            text = f"publish: sequence must be a whole number from 0 to {MAX_SEQUENCE}, not {_shown(sequence)}"
            raise for_code("bad_request", text)
        return Publish([payload], self._key, sequence, marks=[mark] if mark else [])

    def _hello(self, request: Request) -> Hello:
        if not self.authorized:
            token = request.token if isinstance(request.token, str) else ""
            if not hmac.compare_digest(token.encode("utf-8", "replace"), self.limits.token.encode()):
                raise for_code("unauthorized", "the token is wrong" if token else "a token is needed")
            self.authorized = True
        if request.client is not None and not _is_name(request.client):
            text = f"hello: client must be at most {MAX_NAME} printable characters, not {_shown(request.client)}"
            raise for_code("bad_request", text)
        self.said_hello = True
        return Hello(request.client or "")


def _subscribe(request: Request, mark: bytes) -> Subscribe:
    subscriber_id = _subscriber_id(request.subscriber_id)
    offset = _offset(request.offset, "subscribe", -2)
    if request.log is None:
        return Subscribe(subscriber_id, offset, mark)
    if not isinstance(request.log, str) or len(request.log) > MAX_NAME:
        raise for_code(
            "bad_request", f"subscribe: log must be text of at most {MAX_NAME} characters, not {_shown(request.log)}"
        )
    if request.last_offset is None and request.last_c32 is None:
        return Subscribe(subscriber_id, offset, mark, request.log)
    last_offset = _offset(request.last_offset, "subscribe", 0, "last_offset")
    if last_offset is None or not isinstance(request.last_c32, str) or not _C32.fullmatch(request.last_c32):
        text = f"subscribe: last_offset comes with last_c32, 8 lower-case hex digits, not {_shown(request.last_c32)}"
        raise for_code("bad_request", text)
    return Subscribe(subscriber_id, offset, mark, request.log, last_offset, request.last_c32)


def _offset(value: Any, kind: str, least: int, name: str = "offset") -> int | None:
    if value is None:
        return None
    if type(value) is not int or not least <= value <= MAX_OFFSET:
        raise for_code("bad_request", f"{kind}: {name} must be a whole number from {least}, not {_shown(value)}")
    return value


def _subscriber_id(value: Any) -> str:
    if value == "" or not _is_name(value):
        text = f"subscribe: subscriber_id must be 1 to {MAX_NAME} printable characters, not {_shown(value)}"
        raise for_code("bad_request", text)
    return str(value)


def _is_name(value: Any) -> bool:
    """Whether it is text that can be shown: no control characters, nor any that change the direction of what follows."""
    return isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable()


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
    return text if len(text) <= 60 else text[:60] + "…"
