"""One client's session: its socket, its requests, its subscription."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from typing import cast

import msgspec

from broker.errors import BrokerError, for_code
from broker.protocol import messages
from broker.protocol.connection import (
    Ack,
    Event,
    GetStats,
    Hello,
    Nack,
    Ping,
    Publish,
    RefusedRequest,
    ServerConnection,
    Subscribe,
    Unsubscribe,
)
from broker.server.delivery import Subscription
from broker.server.places import Guest
from broker.server.start import Start, find_start
from broker.server.state import BrokerState

logger = logging.getLogger(__name__)

# Any byte the socket does not take at once pauses a subscription: the transport would copy its buffer twice, and the
# kernel's buffer holds enough to send until the log is read again.
WRITE_HIGH_WATER = 1  # 0 means "always" to the TLS transport
# Above this many unsent bytes the peer is not reading its answers: nothing more is read from it.
UNREAD_ANSWERS = 1 << 20
SEND_BUFFER = 1 << 20
# One client's requests, other than publishes, keep the others waiting for about this long.
TURN_S = 0.005
# How long a peer may take to read its last answer before the connection is closed.
LINGER_S = 1.0


class Session(asyncio.Protocol):
    """Moves bytes between one socket and its ServerConnection, and serves the client's requests."""

    def __init__(self, server: BrokerState[Session], guest: Guest | None) -> None:
        self.server = server
        self._guest = guest
        self.in_flight_messages = 0
        self.in_flight_bytes = 0
        self.client = ""
        self.subscription: Subscription | None = None
        self._subscribed_at = 0  # publishes to be answered before the subscription's response
        self.partial = 0  # bytes of its unfinished frame, and bytes not examined yet
        self.heard = 0.0  # when its last bytes came
        self._waiting: deque[Event] = (
            deque()
        )  # requests that wait for their turn, or for the client to take its answers
        self._scheduled = False
        self._looking = False
        self._start: Start | BaseException | None = None  # what was found for the subscribe request that waits
        self._written = 0  # bytes of answers and messages
        self._taken = 0  # of them, what the socket had taken at the last look,
        self._taken_at = 0.0  # and when that had grown
        self._write_paused = False
        self._read_paused = False
        self._stopped = False
        self._closing = False
        self._tcp_eof = False

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        server = self.server
        self.loop = asyncio.get_running_loop()
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self.connection = ServerConnection(server.config.limits, self.loop.time())
        self.closed: asyncio.Future[None] = self.loop.create_future()
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else "?"
        _set_socket_options(transport.get_extra_info("socket"), server.config.stall_s)
        self._taken_at = self.heard = self.loop.time()
        server.connections.add(self)
        if self._guest is None:
            refusal = f"{server.places.most} clients are connected, the limit"
            server.counters.turned_away += 1
            server.counters.errors["overloaded"] += 1
            server.lines.say(logging.WARNING, "%s turned away: %s", self.peer, refusal)
            self.connection.refuse(for_code("overloaded", refusal), fatal=True)
            self._flush()
            return
        self._guest.leave = self._make_room
        if server.stopping:
            self.say_goodbye()
        else:
            logger.debug("%s connected", self.peer)

    def data_received(self, data: bytes) -> None:
        """Bytes came; asyncio reads at most 256 KiB at a time, so that one client's flood takes turns with the others."""
        if not (self._stopped or self._closing):
            self.heard = self.loop.time()
            self._serve(self.connection.receive_data(data, self.heard))

    def eof_received(self) -> bool:
        """The client sends no more. Its requests are still answered before the connection closes."""
        self._tcp_eof = True
        self.connection.closing = True
        self._unsubscribe()
        self._flush()
        # TLS has no half-closed connections.
        return (bool(self._waiting) or not self.connection.all_answered) and self.transport.get_extra_info(
            "sslcontext"
        ) is None

    def pause_writing(self) -> None:
        """The socket takes no more bytes."""
        self._write_paused = True
        self.server.unread.add(self)
        if self.subscription is not None:
            self.subscription.paused = True

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._write_paused = False
        if self.subscription is not None:
            self.subscription.paused = False
            self.server.delivery.advance(self.subscription)
        self.server.unread.discard(self)
        self._serve_later()
        self._regulate()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. Its unanswered publishes may still be written."""
        self._closing = True
        self._unsubscribe()
        self._note_partial(0)
        self._waiting.clear()
        self.server.unread.discard(self)
        self.server.connections.discard(self)
        if self._guest is not None:
            self.server.places.free(self._guest)
        else:
            self.server.refusal_told()
        if not self.closed.done():
            self.closed.set_result(None)
        logger.debug("%s disconnected%s", self.peer, f": {exc}" if exc else "")

    # Called by the delivery

    def deliver(self, data: bytes | memoryview) -> None:
        """Write whole frames to the subscriber."""
        self._written += len(data)
        self.transport.write(data)

    def fail_delivery(self, error: BaseException) -> None:
        """Drop the subscriber: it reconnects and continues from its commit."""
        self.abort()

    # Called by the server

    def answer(self, publish: Publish, answers: bytes) -> None:
        """Queue the answers to one event's publishes; ``after_answers`` sends them."""
        count = len(publish.payloads)
        self.in_flight_messages -= count
        self.in_flight_bytes -= publish.size
        self.connection.answer_publishes(answers, count)

    def after_answers(self) -> None:
        """Send the queued answers, and continue with what waited for them."""
        if self._closing:
            return
        self._flush()
        self._serve_later()
        self._regulate()

    def check_time(self, now: float) -> None:
        """Check heartbeats and deadlines, and read again if the budget allows. Called about once a second."""
        if not self._takes_answers(now):
            self._drop_dead(f"it took none of its answers for {self.server.config.take_answer_s:g} s")
            return
        if self._closing:
            return
        if self._read_paused and self.in_flight_messages:
            self.connection.reading_resumed(now)  # the disk delays the client, so this is not the client's fault
        if not self.connection.check_time(now):
            self._drop_dead("nothing was heard from it")
            return
        self._flush()
        self._serve_later()
        self._regulate()

    def stop_reading(self) -> None:
        """Read nothing more: the broker is stopping. Incomplete frames are lost."""
        self._stopped = True
        self._unsubscribe()
        self._read_paused = True
        self.transport.pause_reading()

    def say_goodbye(self) -> None:
        """Close once everything written has been sent."""
        if self._closing:
            return
        self._stopped = True
        if self.connection.said_hello:
            self.connection.respond(messages.GOAWAY)
        data = self.connection.data_to_send()
        if data:
            self._write(data)
        self._close_gently()

    def abort(self) -> None:
        """Drop the connection now."""
        self._closing = True
        self._unsubscribe()
        self.transport.abort()

    # Requests

    def _serve(self, events: list[Event]) -> None:
        waiting = self._waiting
        waiting += events
        ends = 0.0
        while waiting:
            event = waiting[0]
            if type(event) is Publish:
                self._publish(event)
            elif self._must_wait(event):
                break
            else:
                self._handle(event)
                now = self.loop.time()
                ends = ends or now + TURN_S
            waiting.popleft()
            if ends and now >= ends:
                break
        self._note_partial(self.connection.partial_bytes)
        self._flush()
        self._regulate()
        self._serve_later()

    def _serve_later(self) -> None:
        """Handle further requests after the other clients, unless the client has to take its answers first."""
        if self._scheduled or self._closing:
            return
        if self._must_wait(self._waiting[0]) if self._waiting else not self.connection.has_more:
            return
        self._scheduled = True
        self.loop.call_soon(self._serve_more)

    def _serve_more(self) -> None:
        self._scheduled = False
        if not (self._stopped or self._closing):
            self._serve([] if self._waiting else self.connection.next_events())

    def _must_wait(self, event: Event) -> bool:
        """Whether a request has to wait: the client must take its answers before it gets another, since memory holds few answers that
        nobody reads; or the log is being looked up."""
        if type(event) is Publish:
            return False
        if type(event) is Subscribe and event.log is not None and self._start is None:
            if not self._looking:
                self._look_up(event)
            return True
        if self.connection.unsent > UNREAD_ANSWERS:
            self._flush()
        unread = self.connection.unsent + (self.transport.get_write_buffer_size() if self._write_paused else 0)
        if unread > UNREAD_ANSWERS:
            return True
        if type(event) is not GetStats:
            return False
        # The largest answer. Many clients must not hold one each.
        sizes = (session.transport.get_write_buffer_size() for session in self.server.unread)
        return unread > 0 or (bool(self.server.unread) and sum(sizes) > self.server.config.unread_bytes)

    def _note_partial(self, size: int) -> None:
        self.server.partial_bytes += size - self.partial
        self.partial = size
        if size and self.server.partial_bytes > self.server.config.partial_bytes:
            drop_partial(self.server)

    def _publish(self, event: Publish) -> None:
        if self._guest is not None and not self._guest.proven:
            self.server.places.prove(self._guest)
        count = len(event.payloads)
        event.owner = self
        self.connection.take_publishes(count)
        self.in_flight_messages += count
        self.in_flight_bytes += event.size
        self.server.committer.add(event)

    def _handle(self, event: Event) -> None:
        connection = self.connection
        if self._guest is not None and not self._guest.proven and type(event) is not RefusedRequest:
            self.server.places.prove(self._guest)
        try:
            match event:
                case Ack():
                    connection.respond(self._ack(event))
                case Nack():
                    connection.respond(self._nack(event))
                case Ping():
                    connection.respond(messages.response(event.mark))
                case GetStats():
                    connection.respond(messages.response(event.mark, payload=msgspec.Raw(self.server.figures.get())))
                case Subscribe():
                    self._subscribe(event)
                case Unsubscribe():
                    self._require_subscription()
                    self._unsubscribe()
                    connection.respond(messages.response(event.mark))
                case Hello():
                    self.client = event.client
                    log, config = self.server.log, self.server.config
                    connection.respond(
                        messages.welcome_frame(
                            log.oldest_offset, log.next_offset, config.limits.max_frame, config.fsync, log.identity.id
                        )
                    )
                case RefusedRequest():
                    self._refuse(event.error, event.mark, fatal=event.fatal)
        except BrokerError as error:
            self._refuse(error, getattr(event, "mark", b""))

    def _refuse(self, error: BrokerError, mark: bytes, *, fatal: bool = False) -> None:
        self.server.counters.bad_requests += 1
        self.server.counters.errors[error.code] += 1
        if fatal:
            self.server.lines.say(logging.INFO, "%s: %s: %s", self.peer, error.code, error)
        else:
            logger.debug("%s: %s: %s", self.peer, error.code, error)
        self.connection.refuse(error, mark, fatal=fatal)

    def _subscribe(self, event: Subscribe) -> None:
        delivery = self.server.delivery
        other = delivery.subscriptions.get(event.subscriber_id)
        if other is not None and other is not self.subscription:
            text = f"subscriber {event.subscriber_id} is connected already: each live subscriber needs an id of its own"
            raise for_code("subscriber_in_use", text)
        start, self._start = self._start, None
        if isinstance(start, BaseException):
            raise start
        if start is None:
            start = find_start(self.server.log, event)
        position = start.position
        if start.restored:
            self._note_restored(event, position)
        self._unsubscribe()
        subscription = self.subscription = Subscription(event.subscriber_id, position, self)
        subscription.paused = self._write_paused
        delivery.add(subscription)
        self._hold_delivery(subscription)
        fields: dict[str, object] = {"offset": max(position, self.server.log.oldest_offset)}
        if event.log is not None:
            fields["log"] = self.server.log.identity.id
            if start.last_c32:
                fields |= {"last_offset": position - 1, "last_c32": start.last_c32}
            if start.restored:
                fields["restored"] = True
        self.connection.respond(messages.response(event.mark, **fields))
        self.server.lines.say(
            logging.INFO,
            "%(peer)s subscribed as %(subscriber_id)s from offset %(offset)d",
            {"peer": self.peer, "subscriber_id": event.subscriber_id, "offset": position},
        )

    def _note_restored(self, event: Subscribe, position: int) -> None:
        server = self.server
        server.counters.restores += 1
        server.log.identity.renew()
        text = "subscriber %s had offset %d of another log: this one was restored from a copy; it reads on from %d"
        server.lines.say(logging.WARNING, text, event.subscriber_id, event.last_offset, position)

    def _look_up(self, event: Subscribe) -> None:
        """Find out on the reader's thread where the subscription starts; the request waits for that."""

        def found(start: Start, error: BaseException | None) -> None:
            self._start = start if error is None else error
            self._looking = False
            self._serve_later()

        self._looking = True
        self.server.reader.submit(lambda: find_start(self.server.log, event), found)

    def _ack(self, event: Ack) -> bytes:
        if event.offset is None:
            return messages.response(event.mark)
        subscription = self._require_subscription()
        self._check_exists(event.offset)
        self.server.log.commits.set(subscription.id, event.offset)
        return messages.response(event.mark, offset=event.offset)

    def _nack(self, event: Nack) -> bytes:
        if event.offset is None:
            return messages.response(event.mark)
        subscription = self._require_subscription()
        self._check_exists(event.offset)
        self.server.delivery.move(subscription, event.offset)
        self._hold_delivery(subscription)
        return messages.response(event.mark, offset=event.offset)

    def _hold_delivery(self, subscription: Subscription) -> None:
        """Deliver nothing until the answer to the current request has been sent."""
        subscription.held = True
        self._subscribed_at = self.connection.published

    def _check_exists(self, offset: int) -> None:
        newest = self.server.log.next_offset - 1
        if offset > newest:
            raise for_code("offset_out_of_range", f"offset {offset} is past the end: the newest message has {newest}")

    def _require_subscription(self) -> Subscription:
        if self.subscription is None:
            raise for_code("not_subscribed", "subscribe first")
        return self.subscription

    def _unsubscribe(self) -> None:
        if self.subscription is not None:
            self.server.delivery.remove(self.subscription)
            self.subscription = None

    # Sending, and when to read

    def _flush(self) -> None:
        if self._closing:
            return
        data = self.connection.data_to_send()
        if data:
            self._write(data)
        if self.connection.closing and self.connection.all_answered and not self._waiting:
            self._close_gently()
            return
        subscription = self.subscription
        if subscription is not None and subscription.held and self.connection.answered >= self._subscribed_at:
            subscription.held = False
            self.server.delivery.advance(subscription)

    def _close_gently(self) -> None:
        """Close so that the peer can still read its last answer: a close with unread bytes would reset the connection."""
        self._closing = True
        self._unsubscribe()
        if self._tcp_eof:
            self.transport.close()
            return
        if self.transport.can_write_eof() and not self.transport.get_write_buffer_size():
            try:
                self.transport.write_eof()
            except OSError:  # the peer was faster
                self.transport.abort()
                return
        self._resume()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self.transport.write(data)

    def _takes_answers(self, now: float) -> bool:
        """Whether the client takes what it is sent. A subscriber may stop for longer: it holds one read of the log."""
        taken = self._written - self.transport.get_write_buffer_size()
        if taken > self._taken or taken == self._written or self.subscription is not None:
            self._taken, self._taken_at = taken, now
        return now - self._taken_at < self.server.config.take_answer_s

    def _drop_dead(self, why: str) -> None:
        name = f" ({self.client})" if self.client else ""
        self.server.lines.say(logging.INFO, "%s%s is dropped: %s", self.peer, name, why)
        self.server.counters.dead += 1
        self.abort()

    def _make_room(self) -> None:
        """Another connection needs the place of this one, which has asked for nothing."""
        self.server.counters.turned_away += 1
        self.drop_overloaded("other clients need its place, and it has not said anything yet")

    def drop_overloaded(self, why: str) -> None:
        """Drop the connection with a word."""
        if self._closing:
            return
        self.server.counters.errors["overloaded"] += 1
        self.server.lines.say(logging.WARNING, "%s is dropped: %s", self.peer, why)
        self._waiting.clear()
        self._unsubscribe()
        self.connection.refuse(for_code("overloaded", why), fatal=True)
        data = self.connection.data_to_send()
        if data:
            self._write(data)
        self._closing = True
        self._note_partial(0)
        self.transport.close()

    def _regulate(self) -> None:
        """Pause or resume reading: TCP slows a client that is ahead of the disk or does not read its answers."""
        if self._closing or self._stopped:
            return
        config = self.server.config
        share = 0.5 if self._read_paused else 1.0
        full = (
            bool(self._waiting)
            or self.connection.has_more
            or self.in_flight_messages > config.in_flight_messages * share
            or self.in_flight_bytes > config.in_flight_bytes * share
            or (self._write_paused and self.transport.get_write_buffer_size() > UNREAD_ANSWERS)
            or (self.in_flight_bytes > 0 and self.server.over_budget())
        )
        if full and not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()
        elif not full and self._read_paused:
            self.connection.reading_resumed(self.loop.time())
            self._resume()

    def _resume(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()


def drop_partial(server: BrokerState[Session]) -> None:
    """Make room for unfinished frames: of the address that holds most of them, the one that was silent longest goes."""
    while server.partial_bytes > server.config.partial_bytes:
        holders: dict[str, list[Session]] = {}
        for session in server.connections:
            if session.partial:
                holders.setdefault(session.peer.rpartition(":")[0], []).append(session)
        crowd = max(holders.values(), key=lambda sessions: sum(session.partial for session in sessions))
        min(crowd, key=lambda session: session.heard).drop_overloaded("unfinished frames take too much memory")


def _set_socket_options(sock: socket.socket, stall_s: float) -> None:
    """Let TCP detect dead plain peers, and keep the kernel from buffering megabytes for each stuck one."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 30),
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
            # Linux also applies it to a live peer that reads nothing, so it must not be short.
            ("TCP_USER_TIMEOUT", int(stall_s * 1000)),
        ):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError as error:
        logger.debug("cannot set socket options: %s", error)
