"""Sending points to InfluxDB, and finding out which of them it refuses."""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import itemgetter

from stores.base import RefusedReading
from stores.influxdb.client import InfluxConnection, InfluxRefused
from stores.influxdb.line_protocol import LinePoint, Lines, decode_name, readings_of, render

# Lines of one request, and how many requests are under way at once.
CHUNK = 1_250
SENDERS = 2
_GZIP = 31  # zlib's name for "with gzip's header"
_DROPPED = re.compile(r"dropped=(\d+)")
_CONFLICT = re.compile(r'input field "([^"\\]+)" on measurement')
# Of the lines themselves the server does not want some (400: it wrote none; 422: it wrote the others), or they are
# too many at once (413).
_OF_LINES = frozenset({400, 413, 422})


def compress(body: bytes) -> bytes:
    """gzip, as fast as it goes: names and tags repeat so much that more effort gains little."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


class Sender:
    """Sends points through one connection. Raises what the connection raises; then any part of them may be stored."""

    def __init__(self, connection: InfluxConnection, lines: Lines) -> None:
        self._connection = connection
        self._lines = lines

    def send(self, points: Sequence[LinePoint]) -> list[RefusedReading]:
        """Store the points; returns the readings that the server refused, all others being stored."""
        if len(points) <= CHUNK:
            return self._deliver(points, render(points)) if points else []
        refused: list[RefusedReading] = []
        # A few at once, so that the server has one to go on with while another waits for its disk; no more, so that
        # what is held in memory stays small.
        on_their_way: deque[Future[list[RefusedReading]]] = deque()
        with ThreadPoolExecutor(SENDERS, "influx-sender") as threads:
            for start in range(0, len(points), CHUNK):
                chunk = points[start : start + CHUNK]
                body = render(chunk)
                if len(on_their_way) == SENDERS:
                    refused += on_their_way.popleft().result()
                on_their_way.append(threads.submit(self._deliver, chunk, body))
            for each in on_their_way:
                refused += each.result()
        return refused

    def send_lines(self, lines: Sequence[bytes]) -> None:
        """Store lines that are no readings."""
        for start in range(0, len(lines), CHUNK):
            self._connection.write(compress(b"\n".join(lines[start : start + CHUNK])))

    def _deliver(self, points: Sequence[LinePoint], body: bytes) -> list[RefusedReading]:
        try:
            self._connection.write(compress(body))
        except InfluxRefused as error:
            if error.status not in _OF_LINES:
                raise
            return self._narrow_down(points, error)
        return []

    def _narrow_down(self, points: Sequence[LinePoint], error: InfluxRefused) -> list[RefusedReading]:
        """Send in parts what was refused as a whole, until each part is stored or refused for good."""
        parts = self._parts(points, error)
        if not parts:
            return [
                RefusedReading(point[0].gpu.id, metric, point[1], value, error.reason)
                for point in points
                for metric, value in readings_of(point).items()
            ]
        refused: list[RefusedReading] = []
        for part in parts:
            refused += self._deliver(part, render(part))
        return refused

    def _parts(self, points: Sequence[LinePoint], error: InfluxRefused) -> list[list[LinePoint]]:
        """Smaller parts to try; none when every reading of these points is refused."""
        conflict = _CONFLICT.search(error.reason) if error.status == 422 else None
        name = decode_name(conflict[1]) if conflict else None
        if name is not None:
            with_it = [point for point in points if name in point[2].names]
            if 0 < len(with_it) < len(points):
                return [with_it, [point for point in points if name not in point[2].names]]
        if len(points) > 1 and not _all_were_dropped(points, error):
            # A shard refuses what lies in its range of time: in order of time few parts hold both kinds.
            in_order = sorted(points, key=itemgetter(1))
            return [in_order[: len(points) // 2], in_order[len(points) // 2 :]]
        return self._split_fields(points, name)

    def _split_fields(self, points: Sequence[LinePoint], name: str | None) -> list[list[LinePoint]]:
        """The same points with that field alone (or the first half of their fields), and with the others."""
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
    found = _DROPPED.search(error.reason) if error.status == 422 else None
    return found is not None and int(found[1]) >= len(points)
