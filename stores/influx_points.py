"""Points of InfluxDB's answers as rows in order. It orders points by time alone: what shares a time is put in order here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from stores.base import Origin, Portion
from stores.influx_client import Series
from stores.influx_lines import SHARE, SUPERSEDED, TAGS, decode_name

# In the order of Origin.
_DESCRIPTION = ("uuid", "mig_id", "gpu_id", "device", "model", "hostname", "container", "pod", "namespace")
DESCRIBED = frozenset({*_DESCRIPTION, SUPERSEDED})
_NUMBERS = {float, int}


class _Metrics(NamedTuple):
    """The metrics of one series of an answer, by name: their names, and their columns. ``exact``: all are floats or nothing."""

    names: list[str]
    columns: list[int]
    exact: bool


class _Point(NamedTuple):
    """One point: what it is of (``places``, one origin for each of the metrics), and its row."""

    key: tuple[int, str]
    places: list[int]
    metrics: _Metrics
    row: list[Any]


class Points:
    """Gathers points of one measurement; ``wanted`` metrics alone, or all when there are none."""

    def __init__(self, measurement: str, wanted: frozenset[str]) -> None:
        self._tags = TAGS[measurement]
        self._is_share = measurement == SHARE
        self._wanted = wanted
        self._origins: list[Origin] = []
        self._points: list[_Point] = []
        self._series = 0

    @property
    def count(self) -> int:
        """How many points there are."""
        return len(self._points)

    def add(self, series: Series, from_ns: int | None = None, to_ns: int | None = None) -> None:
        """Add the points of a series in [from, to), but those that another series has instead."""
        # One set of tags is one GPU, and no two of its points are of one time. Without tags it may be any number of them.
        self._series += 1 if series.tags and not self._is_share else 2
        column_of = {name: at for at, name in enumerate(series.columns)}
        metrics = self._metrics(series)
        told = [name for name in _DESCRIPTION if name in column_of]
        said_by: Callable[[list[Any]], Any] = (
            itemgetter(*[column_of[name] for name in told]) if told else lambda row: None
        )
        superseded = column_of.get(SUPERSEDED)
        known: dict[Any, tuple[str, list[int]]] = {}
        for row in series.values:
            time_ns = row[0]
            if (
                (from_ns is not None and time_ns < from_ns)
                or (to_ns is not None and time_ns >= to_ns)
                or (superseded is not None and row[superseded] is True)
            ):
                continue
            said = said_by(row)
            if (found := known.get(said)) is None:
                values = said if len(told) > 1 else (said,)
                found = known[said] = self._describe(series, dict(zip(told, values, strict=False)), metrics)
            self._points.append(_Point((time_ns, found[0]), found[1], metrics, row))

    def portion(self, *, newest_first: bool) -> Portion:
        """All that was added, in order."""
        points = self._points
        portion = Portion([], [], [], self._origins)
        if self._series == 1:  # the server has put them in order
            for point in points:
                _add(portion, point)
            return portion
        points.sort(key=lambda point: point.key[1])
        points.sort(key=lambda point: point.key[0], reverse=newest_first)  # stable, also in reverse
        tied: list[_Point] = []
        keys = [point.key for point in points]
        same = [one == other for one, other in pairwise(keys)]
        for point, with_next in zip(points, [*same, False], strict=False):
            if with_next or tied:
                tied.append(point)
                if not with_next:
                    self._add_tied(portion, tied)
                    tied = []
            else:
                _add(portion, point)
        return portion

    def _metrics(self, series: Series) -> _Metrics:
        """The columns that hold numbers, by the names of their metrics. The first is the time."""
        found: list[tuple[str, int]] = []
        exact = True
        for at, column in enumerate(series.columns):
            if not at or column in DESCRIBED:
                continue
            name = decode_name(column)
            kinds = {type(row[at]) for row in series.values}
            if kinds & _NUMBERS and (not self._wanted or name in self._wanted):
                found.append((name, at))
                exact = exact and kinds <= {float, type(None)}
        found.sort()
        return _Metrics([name for name, _ in found], [at for _, at in found], exact)

    def _describe(self, series: Series, said: dict[str, Any], metrics: _Metrics) -> tuple[str, list[int]]:
        texts = [series.tags.get(name) or said.get(name) or "" for name in _DESCRIPTION]
        for place, name in enumerate(_DESCRIPTION):
            if name in self._tags and texts[place]:
                texts[place] = decode_name(texts[place])
        uuid, mig_id, index, *rest = texts
        first = len(self._origins)
        self._origins += [Origin(name, uuid, mig_id, int(index) if index else None, *rest) for name in metrics.names]
        return f"{uuid}:{mig_id}" if mig_id else uuid, list(range(first, len(self._origins)))

    def _add_tied(self, portion: Portion, points: list[_Point]) -> None:
        """Points of one GPU and one time: pods' shares of it, or one point in two series while it moves between them."""
        found: dict[tuple[str, ...], tuple[float, int]] = {}
        for point in points:
            for place, value in zip(point.places, _values(point), strict=True):
                if value is not None:
                    origin = self._origins[place]
                    share_of = (origin.namespace, origin.pod, origin.container) if self._is_share else ()
                    found[origin.metric_name, *share_of] = (value, place)
        for key in sorted(found):
            value, place = found[key]
            portion.times.append(points[0].key[0])
            portion.values.append(value)
            portion.places.append(place)


def _values(point: _Point) -> list[float | None]:
    row = point.row
    if point.metrics.exact:
        return [row[at] for at in point.metrics.columns]
    return [
        float(value) if type(value) is float or type(value) is int else None
        for value in [row[at] for at in point.metrics.columns]
    ]


def _add(portion: Portion, point: _Point) -> None:
    values = _values(point)
    places = point.places
    if None in values:
        places = [place for place, value in zip(places, values, strict=True) if value is not None]
    portion.values.extend([value for value in values if value is not None])
    portion.places.extend(places)
    portion.times.extend([point.key[0]] * len(places))
