"""GPUs that were told of with other tags: another host, index, device or model makes another series on the server.

Where a reading is told again with other tags, the earlier point stays in its old series. It is then marked as superseded,
so that readers take the new one alone. To know of it costs nothing for a GPU that never moved, and one question for one
that did: only a time that is not newer than all its other series' readings can be there already.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from readings.model import Gpu
from stores.influxdb.client import InfluxConnection, Series
from stores.influxdb.influxql import Conditions, select_newest, select_points, show_series
from stores.influxdb.line_protocol import GPU, SUPERSEDED, TAGS, Gathered, LinePoint, Lines, Source, decode_name

_TAG = re.compile(r",([^=,]+)=((?:[^,\\]|\\.)*)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_GPUS_ASKED_FOR = 100  # in one question

_Tags = tuple[str, ...]


class _Stored(NamedTuple):
    """A point as the server has it."""

    gpu_id: str
    time_ns: int
    tags: _Tags
    superseded: bool
    values: dict[str, float]


class Moves:
    """Knows which series each GPU has. One thread at a time; forget it after an error."""

    def __init__(self, connection: InfluxConnection, lines: Lines) -> None:
        self._connection = connection
        self._lines = lines
        self._known: dict[str, set[_Tags]] | None = None
        # Per GPU and series: the newest reading in its other series.
        self._newest_elsewhere: dict[tuple[str, _Tags], int] = {}

    def settle(self, gathered: Gathered) -> list[bytes]:
        """Make the points say all that is to be said of their GPUs at their times, wherever it is now.

        Returns the lines that mark the points they take the place of, to be sent after them.
        """
        movers = self._movers(gathered.sources)
        if not movers:
            return []
        suspects = self._suspects(gathered, movers)
        marks = []
        for stored in self._stored_at(suspects):
            by_time = gathered.points[stored.gpu_id,]
            point = by_time[stored.time_ns]
            source = point[0]
            here = stored.tags == source.tags
            if here and stored.superseded:
                source = replace(source, tail=f"{source.tail},{SUPERSEDED}=false")
                by_time[stored.time_ns] = (source, *point[1:])
            elif not here and not stored.superseded:
                by_time[stored.time_ns] = self._with_left_behind(point, stored)
                head = Source.of(_gpu_of(stored.tags)).head
                marks.append(f"{head} {SUPERSEDED}=true {stored.time_ns}".encode())
        return marks

    def _movers(self, sources: Iterable[Source]) -> dict[str, set[_Tags]]:
        """The GPUs among these that have more than one series, with those that are written now."""
        if self._known is None:
            self._known = self._ask_for_series()
        now: dict[str, set[_Tags]] = defaultdict(set)
        for source in sources:
            if source.measurement == GPU:
                now[source.key[0]].add(source.tags)
        movers = {}
        for gpu_id, written in now.items():
            known = self._known.setdefault(gpu_id, set())
            known |= written
            if len(known) > 1:
                movers[gpu_id] = written
        return movers

    def _suspects(self, gathered: Gathered, movers: dict[str, set[_Tags]]) -> dict[str, list[int]]:
        """The times of each GPU at which another of its series may have a point."""
        asked = [
            gpu_id
            for gpu_id, written in movers.items()
            if any((gpu_id, tags) not in self._newest_elsewhere for tags in written)
        ]
        self._ask_for_newest(asked)
        suspects: dict[str, list[int]] = defaultdict(list)
        for gpu_id in movers:
            for time_ns, point in gathered.points[gpu_id,].items():
                newest = self._newest_elsewhere.get((gpu_id, point[0].tags))
                if newest is not None and time_ns <= newest:
                    suspects[gpu_id].append(time_ns)
        for gpu_id, written in movers.items():
            # What is written now makes the other series newer than they were found to be.
            for tags in self._known[gpu_id] if self._known else ():
                if written != {tags}:
                    self._newest_elsewhere.pop((gpu_id, tags), None)
        return suspects

    def _with_left_behind(self, point: LinePoint, stored: _Stored) -> LinePoint:
        """The point with the readings that only the superseded one has: they move too."""
        left = {name: value for name, value in stored.values.items() if name not in point[2].names}
        if not left:
            return point
        behind = (point[0], point[1], self._lines.shape(tuple(left)), list(left.values()))
        return self._lines.merge(behind, point)

    # What is asked of the server.

    def _ask_for_series(self) -> dict[str, set[_Tags]]:
        known: dict[str, set[_Tags]] = defaultdict(set)
        for series in self._connection.query(show_series(GPU), {}):
            for (text,) in series.values:
                found = {name: decode_name(_ESCAPED.sub(r"\1", value)) for name, value in _TAG.findall(text)}
                tags = tuple(found.get(name, "") for name in TAGS[GPU])
                known[_gpu_of(tags).id].add(tags)
        return dict(known)

    def _ask_for_newest(self, gpu_ids: list[str]) -> None:
        for some in _in_parts(gpu_ids):
            conditions = Conditions()
            conditions.gpus(some)
            newest: dict[str, dict[_Tags, int]] = defaultdict(dict)
            for series in self._connection.query(select_newest(GPU, conditions), conditions.params):
                tags = _tags_of(series.tags)
                newest[_gpu_of(tags).id][tags] = series.values[0][0]
            for gpu_id in some:
                there = newest[gpu_id]
                for tags in {*there, *(self._known or {}).get(gpu_id, ())}:
                    others = [time_ns for other, time_ns in there.items() if other != tags]
                    self._newest_elsewhere[gpu_id, tags] = max(others, default=-(1 << 63))

    def _stored_at(self, suspects: dict[str, list[int]]) -> Iterator[_Stored]:
        """What the server has of these GPUs at exactly these times."""
        for some in _in_parts(list(suspects)):
            conditions = Conditions()
            conditions.gpus(some)
            times = [time_ns for gpu_id in some for time_ns in suspects[gpu_id]]
            conditions.between(min(times), max(times) + 1)
            wanted = {gpu_id: set(suspects[gpu_id]) for gpu_id in some}
            statement = select_points(GPU, (), conditions, newest_first=False)
            for series in self._connection.query(statement, conditions.params):
                for stored in _points(series):
                    if stored.time_ns in wanted.get(stored.gpu_id, ()):
                        yield stored


def _points(series: Series) -> Iterator[_Stored]:
    described = {*TAGS[GPU], SUPERSEDED, "time"}
    for row in series.values:
        found: dict[str, Any] = dict(zip(series.columns, row, strict=True))
        tags = _tags_of(found)
        values = {
            decode_name(name): float(value)
            for name, value in found.items()
            if name not in described and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        yield _Stored(_gpu_of(tags).id, found["time"], tags, found.get(SUPERSEDED) is True, values)


def _tags_of(found: dict[str, Any]) -> _Tags:
    return tuple(decode_name(found[name]) if found.get(name) else "" for name in TAGS[GPU])


def _gpu_of(tags: _Tags) -> Gpu:
    said = dict(zip(TAGS[GPU], tags, strict=True))
    index = said["gpu_id"]
    return Gpu(
        uuid=said["uuid"],
        mig_id=said["mig_id"],
        hostname=said["hostname"],
        gpu_id=int(index) if index else None,
        device=said["device"],
        model_name=said["model"],
    )


def _in_parts(gpu_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(gpu_ids), _GPUS_ASKED_FOR):
        yield gpu_ids[start : start + _GPUS_ASKED_FOR]
