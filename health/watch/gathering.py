"""Gathers messages of the same moment, so that the rules see many GPUs at once: that costs a tenth of judging them one by one.

What is judged together follows from the log alone, whatever arrives together: messages that the broker took within a quarter of a
second, from where judging began or was committed, until a GPU comes with another time. So samples of a GPU are judged one by one.
"""

from __future__ import annotations

from typing import NamedTuple

from readings.batch import DecodedBatch
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND

WINDOW_MS = 250
# More points are judged at once.
MOST_POINTS = 4000
# A message with more points than any streamer sends is judged by itself: what is left out of it is its own.
LARGE_POINTS = 20_000
_NS_OF_MS = SECOND // 1000


class GatheredBlock(NamedTuple):
    """The points of some messages that have the same source and metrics. ``received_ns`` is the broker's time of the newest."""

    block: PointBlock
    source: str
    live: bool
    received_ns: int


class Moment(NamedTuple):
    """What is judged together, in order, and the last message of it with its checksum."""

    blocks: list[GatheredBlock]
    offset: int
    c32: str


class Gathering:
    """The messages since the last moment was over."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, bool, tuple[str, ...]], tuple[list[Gpu], list[Point]]] = {}
        self._times: dict[str, int] = {}  # by the uuid of a GPU
        self._points = 0
        self._window = -1
        self._received_ms = 0
        self._last = -1, ""

    def __bool__(self) -> bool:
        return self._last[0] >= 0

    def add(self, batch: DecodedBatch | None, offset: int, c32: str, received_ms: int) -> Moment | None:
        """Add a message (None: one that is no batch). Returns the moment that is over with it, if one is."""
        window = received_ms // WINDOW_MS
        is_large = batch is not None and len(batch.block.points) > LARGE_POINTS
        is_over = window != self._window or self._points >= MOST_POINTS or is_large
        over = self.take() if self and (is_over or (batch is not None and self._comes_again(batch.block))) else None
        self._window = window
        self._received_ms = max(self._received_ms, received_ms)
        self._last = offset, c32
        if batch is not None and batch.block.points:
            self._add_block(batch)
        return over

    def _comes_again(self, block: PointBlock) -> bool:
        """Whether a GPU of the block was gathered with another time."""
        times, gpus = self._times, block.gpus
        return any(times.get(gpus[index].uuid, time_ns) != time_ns for index, time_ns, _ in block.points)

    def _add_block(self, batch: DecodedBatch) -> None:
        block = batch.block
        for index, time_ns, _ in block.points:
            self._times[block.gpus[index].uuid] = time_ns
        key = batch.source, batch.live, tuple(block.metric_names)
        found = self._blocks.get(key)
        if found is None:
            self._blocks[key] = list(block.gpus), list(block.points)
        else:
            gpus, points = found
            first = len(gpus)
            gpus += block.gpus
            points += [(first + index, time_ns, values) for index, time_ns, values in block.points]
        self._points += len(block.points)

    def take(self) -> Moment | None:
        """The moment so far, which is over; None if there is nothing in it."""
        if not self:
            return None
        received_ns = self._received_ms * _NS_OF_MS
        blocks = [
            GatheredBlock(PointBlock(gpus, list(names), points), source, live, received_ns)
            for (source, live, names), (gpus, points) in self._blocks.items()
        ]
        moment = Moment(blocks, *self._last)
        self.clear()
        return moment

    def clear(self) -> None:
        """Forget what was gathered: it will be delivered again."""
        self._blocks = {}
        self._times = {}
        self._points = 0
        self._received_ms = 0
        self._last = -1, ""
