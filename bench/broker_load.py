"""One run against one broker: pipelining publishers and counting subscribers on raw sockets, all in one process."""

from __future__ import annotations

import selectors
import time
from collections import deque
from dataclasses import dataclass

from bench.broker_peers import Peer, Subscriber

DRAIN_S = 60.0
SENT_TOGETHER = 64 << 10


@dataclass(frozen=True)
class Load:
    """``connections`` publishers with up to ``window`` unanswered messages each."""

    name: str
    payloads: tuple[bytes, ...]
    connections: int
    window: int

    @property
    def size(self) -> int:
        """Bytes of a payload; all have the same."""
        return len(self.payloads[0])

    @property
    def least(self) -> int:
        """Messages that are sent together: 64 KiB of them, or half a window where that is less."""
        return max(1, min(self.window // 2, SENT_TOGETHER // self.size))


@dataclass(frozen=True)
class Outcome:
    """Rates per second; times in ms; memory in MiB. ``delivered_mb_s`` is of all subscribers together, until the last
    one had everything; ``cut``: subscribers the broker gave up or that never got everything."""

    messages_s: float
    mb_s: float
    p50_ms: float
    p99_ms: float
    memory_mib: float
    delivered_mb_s: float
    cut: int


class Publisher:
    """One connection that keeps its window full."""

    def __init__(self, peer: Peer, load: Load, number: int) -> None:
        self.peer, self.load, self.number = peer, load, number
        self.sock = peer.connect()
        peer.greet(self.sock, number)
        self.sock.setblocking(False)
        self.answered = 0
        self.waits: list[float] = []
        self.sent_at: deque[float] = deque()
        self._sequence = 0
        self._out = b""
        self._rest = b""

    def fill(self, *, more: bool) -> bool:
        """Send; whether the socket took everything."""
        if not self._out and more:
            room = self.load.window - len(self.sent_at)
            # So much at a time that small messages do not cost a system call each.
            if room >= self.load.least:
                now = time.perf_counter()
                payloads, first = self.load.payloads, self._sequence
                kinds = len(payloads)
                self._out = b"".join(
                    self.peer.request(self.number, one, payloads[one % kinds]) for one in range(first, first + room)
                )
                self._sequence += room
                self.sent_at.extend([now] * room)
        while self._out:
            try:
                sent = self.sock.send(self._out)
            except BlockingIOError:
                return False
            self._out = self._out[sent:]
        return True

    def on_readable(self) -> None:
        """Count the answers. Raises RuntimeError for a refusal."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise RuntimeError("the broker closed a publisher's connection")
        answer = self.peer.answer
        data = self._rest + data
        if self.peer.trouble in data:
            raise RuntimeError(f"{self.peer.name} refused a message: {data[:300]!r}")
        count = data.count(answer)
        # Kept: less than one answer, enough to see one that is cut in two.
        rest = data[data.rfind(answer) + len(answer) :] if count else data
        self._rest = rest[-(len(answer) - 1) :] if len(answer) > 1 else b""
        now = time.perf_counter()
        waits, sent_at = self.waits, self.sent_at
        for _ in range(count):
            waits.append(now - sent_at.popleft())
        self.answered += count


def run(peer: Peer, load: Load, subscribers: int, seconds: float) -> Outcome:
    """Publish for ``seconds``, wait for the last answer and until every subscriber has everything."""
    selector = selectors.DefaultSelector()
    readers = []
    for number in range(subscribers):
        reader = peer.subscribe(peer.connect(), number)
        readers.append(reader)
        selector.register(reader.sock, selectors.EVENT_READ, reader)
    publishers = [Publisher(peer, load, number) for number in range(load.connections)]
    started = time.perf_counter()
    deadline = started + seconds
    for publisher in publishers:
        selector.register(publisher.sock, selectors.EVENT_READ, publisher)
        _pump(selector, publisher, more=True)
    cut = 0
    while any(publisher.sent_at for publisher in publishers):
        more = time.perf_counter() < deadline
        for key, events in selector.select(5):
            cut += _serve(selector, key.data, events, more=more)
        if time.perf_counter() > deadline + DRAIN_S:
            raise RuntimeError(f"{peer.name} left messages unanswered")
    published_s = time.perf_counter() - started
    count = sum(publisher.answered for publisher in publishers)
    target = peer.delivered_bytes(count, load.size)
    give_up = time.perf_counter() + DRAIN_S
    while any(reader.bytes < target for reader in readers) and cut < len(readers) and time.perf_counter() < give_up:
        for key, events in selector.select(0.5):
            cut += _serve(selector, key.data, events, more=False)
    delivered_s = time.perf_counter() - started
    late = sum(reader.bytes < target for reader in readers)
    delivered = sum(min(reader.bytes, target) for reader in readers) / max(target, 1) * count * load.size
    waits = sorted(wait for publisher in publishers for wait in publisher.waits)
    for sock in [reader.sock for reader in readers] + [publisher.sock for publisher in publishers]:
        sock.close()
    selector.close()
    return Outcome(
        messages_s=count / published_s,
        mb_s=count * load.size / published_s / 1e6,
        p50_ms=waits[len(waits) // 2] * 1e3,
        p99_ms=waits[len(waits) * 99 // 100] * 1e3,
        memory_mib=peer.memory(),
        delivered_mb_s=delivered / delivered_s / 1e6,
        cut=late,
    )


def _serve(selector: selectors.BaseSelector, one: Publisher | Subscriber, events: int, *, more: bool) -> int:
    """One socket's turn; 1 when a subscriber was cut off."""
    if isinstance(one, Subscriber):
        try:
            one.on_readable()
        except (TimeoutError, ConnectionError):
            selector.unregister(one.sock)
            return 1
        return 0
    if events & selectors.EVENT_READ:
        one.on_readable()
    _pump(selector, one, more=more)
    return 0


def _pump(selector: selectors.BaseSelector, publisher: Publisher, *, more: bool) -> None:
    wanted = selectors.EVENT_READ if publisher.fill(more=more) else selectors.EVENT_READ | selectors.EVENT_WRITE
    if selector.get_key(publisher.sock).events != wanted:
        selector.modify(publisher.sock, wanted, publisher)
