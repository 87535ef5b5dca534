"""Writes points to InfluxDB, and finds out which of them it refuses."""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import itemgetter

from stores.base import RefusedReading
from stores.influxdb.answers import InfluxRefused
from stores.influxdb.client import InfluxConnection
from stores.influxdb.line_protocol import LineBuilder, LinePoint, LineTable, decode_name, readings_of, render, tables_of

# Readings and lines in one request, and how many requests run at once. Each request costs the server a write to its disk: with 1,250
# lines of a capture's few metrics in one it takes a fifth more CPU. More would hold more memory, and gain nothing.
CHUNK_READINGS, MOST_LINES = 30_000, 5_000
SENDERS = 2
_GZIP = 31  # zlib's name for "with gzip's header"
_DROPPED_COUNT = re.compile(r"dropped=(\d+)")
_TYPE_CONFLICT = re.compile(r'input field "([^"\\]+)" on measurement')
# The server rejects some of the lines (400: it wrote none, 422: it wrote the others), or too many at once (413).
_ABOUT_LINES = frozenset({400, 413, 422})


def compress(body: bytes) -> bytes:
    """gzip at its fastest level: names and tags repeat so much that a higher one gains little."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def requests_of(tables: Iterable[LineTable]) -> Iterator[list[LineTable]]:
    """The tables, cut and put together so that each list makes one request."""
    request: list[LineTable] = []
    lines = readings = 0
    for table in tables:
        start, width = 0, len(table.shape.names)
        while start < table.lines:
            room = min(MOST_LINES - lines, (CHUNK_READINGS - readings) // width)
            if room <= 0 and request:
                yield request
                request, lines, readings = [], 0, 0
                continue
            part = table.part(start, start + max(room, 1))
            request.append(part)
            start, lines, readings = start + part.lines, lines + part.lines, readings + part.lines * width
    if request:
        yield request


class PointWriter:
    """Writes points through one connection. Raises what the connection raises; any part of them may be stored then."""

    def __init__(self, connection: InfluxConnection, lines: LineBuilder) -> None:
        self._connection = connection
        self._lines = lines

    def write(self, tables: Sequence[LineTable]) -> list[RefusedReading]:
        """Store the points. Returns the readings that the server refused; all others are stored."""
        requests = list(requests_of(tables))
        if len(requests) <= 1:
            return self._deliver(requests[0], render(requests[0])) if requests else []
        refused: list[RefusedReading] = []
        # Several requests at once keep the server busy while one waits for its disk. A few, since each holds its body in memory.
        running: deque[Future[list[RefusedReading]]] = deque()
        with ThreadPoolExecutor(SENDERS, "influx-writer") as threads:
            for request in requests:
                body = render(request)
                if len(running) == SENDERS:
                    refused += running.popleft().result()
                running.append(threads.submit(self._deliver, request, body))
            for each in running:
                refused += each.result()
        return refused

    def _deliver(self, tables: Sequence[LineTable], body: bytes) -> list[RefusedReading]:
        try:
            self._connection.write(compress(body))
        except InfluxRefused as error:
            if error.status not in _ABOUT_LINES:
                raise
            return self._narrow_down([point for table in tables for point in table.points()], error)
        return []

    def _narrow_down(self, points: Sequence[LinePoint], error: InfluxRefused) -> list[RefusedReading]:
        """Split a rejected request until each part is either stored or refused for good."""
        parts = self._parts(points, error)
        if not parts:
            return [
                RefusedReading(point[0].gpu.id, metric, point[1], value, error.reason)
                for point in points
                for metric, value in readings_of(point).items()
            ]
        refused: list[RefusedReading] = []
        for part in parts:
            tables = tables_of(part)
            refused += self._deliver(tables, render(tables))
        return refused

    def _parts(self, points: Sequence[LinePoint], error: InfluxRefused) -> list[list[LinePoint]]:
        """Smaller parts to try; none when the server refuses every reading of these points."""
        conflict = _TYPE_CONFLICT.search(error.reason) if error.status == 422 else None
        name = decode_name(conflict[1]) if conflict else None
        if name is not None:
            with_it = [point for point in points if name in point[2].names]
            if 0 < len(with_it) < len(points):
                return [with_it, [point for point in points if name not in point[2].names]]
        if len(points) > 1 and not _all_were_dropped(points, error):
            # A shard refuses by time range: sorted by time, few parts mix refused points with good ones.
            in_order = sorted(points, key=itemgetter(1))
            return [in_order[: len(points) // 2], in_order[len(points) // 2 :]]
        return self._split_fields(points, name)

    def _split_fields(self, points: Sequence[LinePoint], name: str | None) -> list[list[LinePoint]]:
        """The points with that field alone (without a name: the first half of the fields), and with the other fields."""
        first, second = [], []
        for point in points:
            metrics = point[2].names
            chosen = (name,) if name in metrics else metrics[: (len(metrics) + 1) // 2]
            others = [metric for metric in metrics if metric not in chosen]
            first.append(self._lines.only(point, chosen))
            if others:
                second.append(self._lines.only(point, others))
        return [first, second] if second else []


def _all_were_dropped(points: Sequence[LinePoint], error: InfluxRefused) -> bool:
    match = _DROPPED_COUNT.search(error.reason) if error.status == 422 else None
    return match is not None and int(match[1]) >= len(points)
