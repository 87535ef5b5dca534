"""How the values of a metric spread over the fleet, minute by minute, as collectors keep it.

A store takes seconds to answer that for 10,000 GPUs. A collector has the newest values of all GPUs in memory and writes, for each
minute, a histogram of the last value that each physical GPU had in it. Histograms are of fixed steps: what is between the
exact lowest and highest value is right to half a step. A minute of which the collector read only a part, as when it catches up
with a long log, counts the GPUs that it saw. MIG instances count with what their board measures itself: power, temperature.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inventory.models import MinuteBands
from inventory.packing import Floats, HostTable, Ints
from readings.mig import MEMORY_USED, POWER, TEMPERATURE, UTILISATION
from readings.times import SECOND

MINUTE_NS = 60 * SECOND


class _Scale(NamedTuple):
    """Values up to ``step * bins`` are counted apart; larger ones with the last."""

    step: float
    bins: int


_SCALES = {
    UTILISATION: _Scale(1.0, 101),
    TEMPERATURE: _Scale(1.0, 151),
    POWER: _Scale(4.0, 1024),
    MEMORY_USED: _Scale(512.0, 1024),
}
BAND_METRICS = tuple(_SCALES)
# Minutes that may still change. More than two, since the clocks of hosts differ.
_MOST_MINUTES = 16
_MOST_WAITING = 2
_ROWS_AT_ONCE = 100
_QUANTILES = (0.05, 0.5, 0.95)
_PLACE, _COUNT = np.dtype("<u2"), np.dtype("<u4")


class _Spread(msgspec.Struct, array_like=True, frozen=True):
    """One metric over the GPUs of one model. ``places`` and ``counts`` are the bins that are not empty."""

    metric: str
    model: str
    low: float
    high: float
    sum: float
    count: int
    places: bytes
    counts: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Spread]).decode


class PackedMinute(NamedTuple):
    """What a writer has of a minute. ``readings`` is how many are in it."""

    minute: int
    readings: int
    data: bytes


class BandKeeper:
    """The last value of each GPU in each of the last minutes, of the four metrics, from the tables of one writer."""

    def __init__(self) -> None:
        self._minutes: dict[int, dict[str, Floats]] = {}  # by minute and host: GPUs x metrics
        self._models: dict[str, list[str | None]] = {}  # of each host's GPUs; None: no physical GPU
        self._changed: set[int] = set()

    def take(self, tables: Mapping[str, HostTable], models: Mapping[str, str]) -> None:
        """Takes over the new readings of the tables. ``models`` has the model of each physical GPU."""
        for host, table in tables.items():
            if table.fresh.any():
                if len(self._models.get(host, table.gpu_ids)) != len(table.gpu_ids):
                    # GPUs have come or gone. A minute that has fewer values now than before is not written.
                    for hosts in self._minutes.values():
                        hosts.pop(host, None)
                self._models[host] = [models.get(gpu_id) for gpu_id in table.gpu_ids]
                self._take(host, table)
                table.fresh[:] = False

    @property
    def is_behind(self) -> bool:
        """Whether several minutes wait to be packed, as while a capture is read: soon they would be forgotten."""
        return len(self._changed) > _MOST_WAITING

    def _take(self, host: str, table: HostTable) -> None:
        metrics, columns = _columns(table.metric_names)
        if not len(columns):
            return
        rows: Any = slice(None)
        values, minutes = table.values[:, columns], table.times_ns[:, columns] // MINUTE_NS
        if not table.fresh.all():
            rows = np.flatnonzero(table.fresh)
            values, minutes = values[rows], minutes[rows]
        into = rows if len(metrics) == len(BAND_METRICS) else (np.arange(len(table.fresh))[rows, None], metrics)
        minute = int(minutes[0, 0])
        if (minutes == minute).all():  # as mostly
            if minute:
                self._kept(minute, host, len(table.gpu_ids))[into] = values
            return
        for minute in np.unique(minutes).tolist():
            if minute:
                kept = self._kept(minute, host, len(table.gpu_ids))
                kept[into] = np.where(minutes == minute, values, kept[into])

    def _kept(self, minute: int, host: str, gpus: int) -> Floats:
        hosts = self._minutes.pop(minute, {})
        self._minutes[minute] = hosts  # as the one used last
        if len(self._minutes) > _MOST_MINUTES:
            oldest = next(iter(self._minutes))
            del self._minutes[oldest]
            self._changed.discard(oldest)
        self._changed.add(minute)
        kept = hosts.get(host)
        if kept is None:
            kept = hosts[host] = np.full((gpus, len(BAND_METRICS)), np.nan)
        return kept

    def packed(self) -> Iterator[PackedMinute]:
        """The minutes that have changed since the last call."""
        changed, self._changed = self._changed, set()
        for minute in sorted(changed):
            hosts = self._minutes[minute]
            if not hosts:
                continue
            values = np.concatenate(list(hosts.values()))
            models = np.array(list(chain.from_iterable(self._models[host] for host in hosts)), np.object_)
            names = dict.fromkeys(name for name in models.tolist() if name is not None)
            spreads = [spread for name in names for spread in _spreads(values[models == name], name)]
            yield PackedMinute(minute, sum(each.count for each in spreads), _encode(spreads))


@lru_cache(maxsize=1024)
def _columns(names: tuple[str, ...]) -> tuple[Ints, Ints]:
    """The places of metrics in BAND_METRICS, and of the same ones in ``names``."""
    present = [(number, names.index(name)) for number, name in enumerate(BAND_METRICS) if name in names]
    metrics, columns = np.array(present, np.int64).reshape(-1, 2).T
    return metrics, columns


def _spreads(values: Floats, model: str) -> Iterator[_Spread]:
    for column, (metric, scale) in enumerate(_SCALES.items()):
        of_metric = values[:, column]
        of_metric = of_metric[~np.isnan(of_metric)]
        if not len(of_metric):
            continue
        bins = np.clip(np.rint(of_metric / scale.step), 0, scale.bins - 1).astype(np.int64)
        counts = np.bincount(bins)
        places = np.flatnonzero(counts)
        yield _Spread(
            metric,
            model,
            float(of_metric.min()),
            float(of_metric.max()),
            float(of_metric.sum()),
            len(of_metric),
            places.astype(_PLACE).tobytes(),
            counts[places].astype(_COUNT).tobytes(),
        )


@dataclass(frozen=True, slots=True)
class Bands:
    """A metric over the fleet, minute by minute: row ``i`` of each array is the minute that begins at ``time_ns[i]``.

    ``count`` is how many GPUs had a value. Minutes without any are left out.
    """

    time_ns: Ints
    min: Floats
    p5: Floats
    median: Floats
    p95: Floats
    max: Floats
    sum: Floats
    count: Ints


def bands_between(metric: str, start_ns: int, end_ns: int, models: Collection[str] | None = None) -> Bands:
    """The bands of the minutes that begin in [start, end), over all GPUs or those of some models. One query.

    Every collector reads the whole log. So where several kept a minute, the one counts that saw most GPUs in it. Raises
    ValueError for a metric that is not one of BAND_METRICS.
    """
    if metric not in _SCALES:
        raise ValueError(f"no bands are kept of {metric}: use one of {', '.join(BAND_METRICS)}")
    first, end = -(-start_ns // MINUTE_NS), -(-end_ns // MINUTE_NS)
    found: list[tuple[int, float, float, float, float, float, float, int]] = []
    for minute, data in _fullest(first, end):
        spreads = [
            each for each in _decode(bytes(data)) if each.metric == metric and (models is None or each.model in models)
        ]
        if spreads:
            found.append((minute * MINUTE_NS, *_merged(spreads, _SCALES[metric])))
    low, p5, median, p95, high, total = np.array([each[1:7] for each in found], np.float64).reshape(-1, 6).T
    times, counts = (np.array([each[column] for each in found], np.int64) for column in (0, 7))
    return Bands(times, low, p5, median, p95, high, total, counts)


def _fullest(first: int, end: int) -> Iterator[tuple[int, bytes | memoryview[int]]]:
    """Each minute in [first, end) and the fullest that was kept of it. A week of a large fleet is too much to hold at once."""
    rows = MinuteBands.objects.filter(minute__gte=first, minute__lt=end).order_by("minute", "readings", "writer")
    for _, alike in groupby(rows.values_list("minute", "data").iterator(chunk_size=_ROWS_AT_ONCE), itemgetter(0)):
        *_, fullest = alike
        yield fullest


def _merged(spreads: Iterable[_Spread], scale: _Scale) -> tuple[float, float, float, float, float, float, int]:
    """Lowest, 5th percentile, median, 95th percentile, highest, sum and count."""
    bins = np.zeros(scale.bins, np.int64)
    low, high, total, count = np.inf, -np.inf, 0.0, 0
    for each in spreads:
        bins[np.frombuffer(each.places, _PLACE)] += np.frombuffer(each.counts, _COUNT)
        low, high = min(low, each.low), max(high, each.high)
        total, count = total + each.sum, count + each.count
    # The smallest value that has the share of all at or below it, as a store's quantile of whole values.
    ranks = np.ceil(np.array(_QUANTILES) * count)
    p5, median, p95 = np.clip(np.searchsorted(np.cumsum(bins), ranks) * scale.step, low, high).tolist()
    return low, p5, median, p95, high, total, count
