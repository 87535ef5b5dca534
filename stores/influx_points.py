"""Points of InfluxDB's answers as rows in order. It orders points by time alone: what shares a time is put in order here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress, groupby
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


class _Run(NamedTuple):
    """Rows of one series, one after the other, that are of the same thing (``places``, one origin for each of the metrics)."""

    gpu: str
    places: list[int]
    metrics: _Metrics
    rows: list[list[Any]]


class Points:
    """Gathers points of one measurement; ``wanted`` metrics alone, or all when there are none."""

    def __init__(self, measurement: str, wanted: frozenset[str]) -> None:
        self._tags = TAGS[measurement]
        self._is_share = measurement == SHARE
        self._wanted = wanted
        self._origins: list[Origin] = []
        self._runs: list[_Run] = []
        self._series = 0

    @property
    def count(self) -> int:
        """How many points there are."""
        return sum(len(run.rows) for run in self._runs)

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
        rows = series.values
        if from_ns is not None:
            rows = [row for row in rows if row[0] >= from_ns]
        if to_ns is not None:
            rows = [row for row in rows if row[0] < to_ns]
        if (superseded := column_of.get(SUPERSEDED)) is not None:
            rows = [row for row in rows if row[superseded] is not True]
        known: dict[Any, tuple[str, list[int]]] = {}
        for said, run in groupby(rows, said_by):
            if (found := known.get(said)) is None:
                values = said if len(told) > 1 else (said,)
                found = known[said] = self._describe(series, dict(zip(told, values, strict=False)), metrics)
            self._runs.append(_Run(*found, metrics, list(run)))

    def portion(self, *, newest_first: bool) -> Portion:
        """All that was added, in order."""
        portion = Portion([], [], [], self._origins)
        if self._series == 1:  # the server has put them in order
            for run in self._runs:
                _extend(portion, run, run.rows)
            return portion
        points = [(row[0], run.gpu, run, row) for run in self._runs for row in run.rows]
        points.sort(key=itemgetter(1))
        points.sort(key=itemgetter(0), reverse=newest_first)  # stable, also in reverse
        for _, same in groupby(points, itemgetter(0, 1)):
            tied = [(run, row) for _, _, run, row in same]
            if len(tied) == 1:
                ((run, row),) = tied
                _extend(portion, run, [row])
            else:
                self._add_tied(portion, tied)
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

    def _add_tied(self, portion: Portion, points: list[tuple[_Run, list[Any]]]) -> None:
        """Points of one GPU and one time: pods' shares of it, or one point in two series while it moves between them."""
        found: dict[tuple[str, ...], tuple[float, int]] = {}
        for run, row in points:
            for place, value in zip(run.places, _values(run.metrics, [row]), strict=True):
                if value is not None:
                    origin = self._origins[place]
                    share_of = (origin.namespace, origin.pod, origin.container) if self._is_share else ()
                    found[origin.metric_name, *share_of] = (value, place)
        for key in sorted(found):
            value, place = found[key]
            portion.times.append(points[0][1][0])
            portion.values.append(value)
            portion.places.append(place)


def _values(metrics: _Metrics, rows: list[list[Any]]) -> list[float | None]:
    """Of each row each metric's."""
    found = [row[at] for row in rows for at in metrics.columns]
    if metrics.exact:
        return found
    return [float(value) if type(value) in _NUMBERS else None for value in found]


def _extend(portion: Portion, run: _Run, rows: list[list[Any]]) -> None:
    """Add rows of a run, column by column: a fifth of the time that one by one takes."""
    values = _values(run.metrics, rows)
    places = run.places * len(rows)
    times = [row[0] for row in rows for _ in run.places]
    if None in values:
        kept = [value is not None for value in values]
        places, times = list(compress(places, kept)), list(compress(times, kept))
    portion.values.extend([value for value in values if value is not None])
    portion.places.extend(places)
    portion.times.extend(times)
