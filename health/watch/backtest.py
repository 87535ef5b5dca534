"""What the rules would have found in the past: the same engine over the store, or over the broker's log. Nothing is written.

Like a new fleet, the past begins with baselines: a count that had grown before the start opens nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from broker.client.address import BrokerAddress
from broker.client.client import Gap, Message
from broker.errors import OffsetOutOfRange
from health.engine.engine import Engine
from health.engine.events import Change, EntityPlace, Key, Transition
from health.engine.facts import Facts
from health.rules.model import Rules
from health.watch.gathering import Gathering, Moment
from readings.batch import BatchError, decode
from readings.model import Gpu, PointBlock
from readings.times import SECOND, format_time
from stores.base import ReadingsQuery, SeriesLabels, Store

# More are counted by rule, but not listed.
MOST_EVENTS = 20_000
# What the store has of so long, or so many readings, is judged at once, as a message would be.
_BLOCK_NS, _BLOCK_READINGS = SECOND, 50_000
# A broker with messages sends the first of them within this time.
_FIRST_SECONDS = 30.0
_MS = SECOND // 1000
_SUMMARY_WIDTH = 100
_HEADINGS = ("rule", "entity", "where", "opened", "closed", "severity", "summary")


@dataclass(slots=True)
class FoundEvent:
    """An event that would have opened. ``closed_ns`` is None if it would still be open at the end."""

    key: Key
    opened_ns: int
    severity: str
    summary: str
    place: EntityPlace
    closed_ns: int | None = None


@dataclass(slots=True)
class Findings:
    """What was found, in the order of opening: MOST_EVENTS at most, and all of them counted by rule and severity.

    ``readings`` were judged between ``first_ns`` and ``last_ns``. ``lost`` messages of the range are no longer in the log,
    ``unread`` ones are no batches.
    """

    events: dict[tuple[Key, int], FoundEvent] = field(default_factory=dict)
    opened: Counter[str] = field(default_factory=Counter)
    open_at_end: Counter[str] = field(default_factory=Counter)
    readings: int = 0
    first_ns: int = 0
    last_ns: int = 0
    lost: int = 0
    unread: int = 0

    def note(self, transitions: Iterable[Transition]) -> None:
        """Take in what the engine said."""
        for each in transitions:
            rule, at = each.key.rule, (each.key, each.opened_ns)
            if each.change == Change.OPENED:
                self.opened[rule] += 1
                self.open_at_end[rule] += 1
                if len(self.events) < MOST_EVENTS:
                    self.events[at] = FoundEvent(each.key, each.opened_ns, each.severity, each.text, each.place)
                continue
            if each.change == Change.CLOSED:
                self.open_at_end[rule] -= 1
            found = self.events.get(at)
            if found is None:
                continue
            if each.change == Change.CLOSED:
                found.closed_ns = each.at_ns
            elif each.change == Change.RAISED:
                found.severity, found.summary = each.severity, each.text or found.summary

    def lines(self) -> Iterator[str]:
        """A table of the events, and the totals of each rule."""
        events = sorted(self.events.values(), key=lambda each: each.opened_ns)
        yield from _table([_HEADINGS, *map(_row, events)])
        if len(events) < self.opened.total():
            yield f"… and {self.opened.total() - len(events)} more, which are in the totals"
        yield ""
        totals = [(rule, str(count), str(self.open_at_end[rule])) for rule, count in sorted(self.opened.items())]
        yield from _table([("rule", "opened", "open at the end"), *totals])
        yield ""
        yield self.summary()

    def summary(self) -> str:
        """One sentence: how much was judged, and how many events would have opened."""
        if not self.readings:
            return "no readings in that time"
        said = (
            f"{self.opened.total()} events would have opened in {self.readings} readings from {format_time(self.first_ns)}"
            f" to {format_time(self.last_ns)}"
        )
        if self.unread:
            said += f"; {self.unread} messages are no batches"
        if self.lost:
            said += f"; {self.lost} messages are no longer in the log"
        return said


class Backtest:
    """One run over the past."""

    def __init__(self, rules: Rules, facts: Facts) -> None:
        self.engine = Engine(rules, facts)
        self.findings = Findings()
        self._gathering = Gathering()

    def take(self, block: PointBlock, *, source: str, live: bool, received_ns: int) -> None:
        """Judge a block as ``watch`` would."""
        times = [time_ns for _, time_ns, _ in block.points]
        if not times:
            return
        found = self.findings
        found.first_ns = min(found.first_ns or min(times), min(times))
        found.last_ns = max(found.last_ns, max(times))
        self.engine.take(block, source=source, live=live, received_ns=received_ns)
        found.readings = self.engine.judged
        found.note(self.engine.drain())

    def over_store(self, store: Store, start_ns: int, end_ns: int) -> Findings:
        """Judge what the store has of [start, end), in order of time: the clock is that of the readings. Raises StoreError.

        The store knows no sources, so all GPUs count as one live source, and no shares.
        """
        names = [name for name in store.metric_names() if self.engine.wants(name)]
        if not names:
            return self.findings
        query = ReadingsQuery(
            metric_names=tuple(names), start_ns=start_ns, end_ns=end_ns, newest_first=False, limit=None
        )
        blocks = _StoredBlocks(names)
        with closing(store.stream(query)) as batches:  # type: ignore[type-var]  # every stream of a store is a generator
            for batch in batches:
                for time_ns, value, place in zip(batch.times, batch.values, batch.places, strict=True):
                    if blocks.is_full(time_ns):
                        self._take_stored(blocks)
                    blocks.add(batch.origins[place], time_ns, value)
        self._take_stored(blocks)
        return self.findings

    def _take_stored(self, blocks: _StoredBlocks) -> None:
        received_ns, block = blocks.cut()
        self.take(block, source="the store", live=True, received_ns=received_ns)

    async def over_log(self, broker: BrokerAddress, start_ns: int, end_ns: int) -> Findings:
        """Judge the messages that the broker took in [start, end), up to the end that the log has now. Raises BrokerError."""
        name = f"backtest-{secrets.token_hex(4)}"
        client = await broker.connect(name)
        try:
            oldest, end = client.welcome.oldest, client.welcome.next
        finally:
            await client.close()
        first = await _first_from(broker, name, start_ns, oldest, end)
        if first >= end:
            return self.findings
        client = await broker.connect(name)
        try:
            await client.subscribe(name, first)
            while True:
                for item in await client.receive():
                    if self._is_past(item, end, end_ns):
                        return self.findings
                await asyncio.sleep(0)  # for the connection's heartbeat
        finally:
            await client.close()

    def _is_past(self, item: Message | Gap, end: int, end_ns: int) -> bool:
        """Judge a message, or count a gap; returns whether it was the last."""
        if isinstance(item, Gap):
            self._take_moment(self._gathering.take())
            self.findings.lost += min(item.last, end - 1) - item.first + 1
            return item.last + 1 >= end
        received_ns = item.timestamp_ms * _MS
        if received_ns >= end_ns:
            self._take_moment(self._gathering.take())
            return True
        batch = None
        try:
            batch = decode(item.payload, now_ns=received_ns)
        except BatchError:
            self.findings.unread += 1
        self._take_moment(self._gathering.add(batch, item.offset, item.c32, item.timestamp_ms))
        if item.offset + 1 < end:
            return False
        self._take_moment(self._gathering.take())
        return True

    def _take_moment(self, moment: Moment | None) -> None:
        for each in moment.blocks if moment is not None else ():
            self.take(each.block, source=each.source, live=each.live, received_ns=each.received_ns)


class _StoredBlocks:
    """Gathers rows of a store, oldest first, into blocks."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._column = {name: column for column, name in enumerate(names)}
        self._gpus: dict[tuple[object, ...], int] = {}
        self._described: list[Gpu] = []
        # Points by GPU and time.
        self._points: dict[tuple[int, int], list[float | None]] = {}
        self._readings = 0
        self._first_ns = self._last_ns = 0

    def is_full(self, time_ns: int) -> bool:
        """Whether a row of that time belongs into the next block. All rows of one time stay together."""
        if not self._points or time_ns == self._last_ns:
            return False
        return time_ns - self._first_ns >= _BLOCK_NS or self._readings >= _BLOCK_READINGS

    def add(self, origin: SeriesLabels, time_ns: int, value: float) -> None:
        """Take a row."""
        if not self._points:
            self._first_ns = time_ns
        self._last_ns = time_ns
        described = origin[1:]
        at = self._gpus.get(described)
        if at is None:
            at = self._gpus[described] = len(self._described)
            self._described.append(
                Gpu(
                    uuid=origin.uuid,
                    mig_id=origin.mig_id,
                    gpu_id=origin.gpu_id,
                    device=origin.device,
                    model_name=origin.model_name,
                    hostname=origin.hostname,
                    container=origin.container,
                    pod=origin.pod,
                    namespace=origin.namespace,
                )
            )
        point = self._points.get((at, time_ns))
        if point is None:
            point = self._points[at, time_ns] = [None] * len(self._names)
        point[self._column[origin.metric_name]] = value
        self._readings += 1

    def cut(self) -> tuple[int, PointBlock]:
        """The newest time and the block so far. Begins the next."""
        block = PointBlock(
            self._described, self._names, [(at, time_ns, values) for (at, time_ns), values in self._points.items()]
        )
        self._points, self._gpus, self._described, self._readings = {}, {}, [], 0
        return self._last_ns, block


async def _first_from(broker: BrokerAddress, name: str, start_ns: int, oldest: int, end: int) -> int:
    """The offset of the first message that the broker took at ``start_ns`` or later; ``end`` if there is none."""
    low, high = oldest, end
    while low < high:
        middle = (low + high) // 2
        message = await _message_at(broker, name, middle)
        if message is None or message.timestamp_ms * _MS >= start_ns:
            high = middle
        else:
            low = message.offset + 1
    return low


async def _message_at(broker: BrokerAddress, name: str, offset: int) -> Message | None:
    """The message with that offset, or the next there is; None if there is none."""
    client = await broker.connect(name)
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            await client.subscribe(name, offset)
            while True:
                for item in await client.receive():
                    if isinstance(item, Message):
                        return item
    except (OffsetOutOfRange, TimeoutError):
        return None
    finally:
        await client.close()


def _row(event: FoundEvent) -> tuple[str, ...]:
    key = event.key
    entity = f"{key.entity.kind} {key.entity.id}".strip()
    if key.subject:
        entity += f" ({key.subject})"
    summary = event.summary if len(event.summary) <= _SUMMARY_WIDTH else event.summary[: _SUMMARY_WIDTH - 1] + "…"
    closed = "" if event.closed_ns is None else _second(event.closed_ns)
    where = event.place.hostname + (f" · gpu {event.place.slot}" if event.place.slot is not None else "")
    return key.rule, entity, where, _second(event.opened_ns), closed, event.severity, summary


def _second(time_ns: int) -> str:
    return format_time(time_ns // SECOND * SECOND)


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
