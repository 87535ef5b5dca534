"""Roll-ups as a store keeps them, worked out in the plainest way from the readings one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from readings.model import Gpu
from stores.aggregate.buckets import Buckets
from stores.base import Aggregate, SeriesQuery
from stores.rollups.windows import STEP_NS, Level, Tier, WindowKey, WindowTable
from tests.stores.expecting import Readings, expected, increases_of

_AGGREGATES: Mapping[str, Aggregate] = {
    "count": "count", "total": "mean", "low": "min", "high": "max", "last": "last", "means": "sum",
}  # fmt: skip


class PlainRollups:
    """The windows of one metric, made when they are asked for. A RollupStore that holds what it was made with."""

    def __init__(self, metric_name: str, gpus: Sequence[Gpu], readings: Readings) -> None:
        self._metric_name = metric_name
        self._gpus = gpus
        self._readings = readings
        self._grown = increases_of(gpus, readings)
        self.asked: list[tuple[Tier, Level, int, int]] = []

    def read(
        self,
        tier: Tier,
        level: Level,
        metric_name: str,
        stats: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        gpus: Sequence[str] = (),
        hostnames: Sequence[str] = (),
        models: Sequence[str] = (),
    ) -> WindowTable:
        """See RollupStore."""
        assert metric_name == self._metric_name
        self.asked.append((tier, level, start_ns, end_ns))
        keys: list[WindowKey] = []
        rows: list[tuple[int, int, list[float]]] = []
        for key, places in self._keys(level).items():
            uuid_asked = not gpus or key.uuid in gpus or f"{key.uuid}:{key.mig_id}" in gpus
            if not uuid_asked or (hostnames and key.hostname not in hostnames) or (models and key.model not in models):
                continue
            keys.append(key)
            for start, values in self._windows(tier, places, stats, start_ns, end_ns):
                rows.append((start, len(keys) - 1, values))
        rows.sort()
        columns = np.array([values for *_, values in rows], np.float64).reshape(len(rows), len(stats))
        return WindowTable(
            tier,
            level,
            keys,
            (metric_name,),
            np.array([place for _, place, _ in rows], np.int64),
            np.array([start for start, *_ in rows], np.int64),
            {name: columns[:, number : number + 1] for number, name in enumerate(stats)},
        )

    def _keys(self, level: Level) -> dict[WindowKey, list[int]]:
        found: dict[WindowKey, list[int]] = defaultdict(list)
        for place, each in enumerate(self._gpus):
            whole = WindowKey(each.uuid, each.mig_id, each.hostname, each.model_name)
            kept = {
                "gpu": whole,
                "host": whole._replace(uuid="", mig_id=""),
                "model": WindowKey(model=each.model_name),
                "fleet": WindowKey(),
            }
            found[kept[level]].append(place)
        return found

    def _windows(
        self, tier: Tier, places: Sequence[int], stats: Sequence[str], start_ns: int, end_ns: int
    ) -> Iterator[tuple[int, list[float]]]:
        step = STEP_NS[tier]
        mine = {key: value for key, value in self._readings.items() if key[0] in places and start_ns <= key[1] < end_ns}
        for start in {time_ns // step * step for _, time_ns in mine}:
            inside = {key: value for key, value in mine.items() if start <= key[1] < start + step}
            yield start, [self._stat(name, inside, start, step) for name in stats]

    def _stat(self, name: str, inside: Readings, start: int, step: int) -> float:
        if name in _AGGREGATES:
            query = SeriesQuery(
                metric_name=self._metric_name, aggregate=_AGGREGATES[name], buckets=Buckets(start, start + step, step)
            )
            (value,) = expected(query, self._gpus, inside)[()]
            assert value is not None
            return value * self._stat("count", inside, start, step) if name == "total" else value
        # Of counters there are only the windows of single GPUs.
        grown = {key: self._grown[key] for key in inside if key in self._grown}
        if name == "carried":
            gpu = {self._gpus[place].id for place, _ in inside}
            in_window = [
                key for key in self._readings if self._gpus[key[0]].id in gpu and start <= key[1] < start + step
            ]
            first = min(in_window, key=lambda key: key[1])
            grown = {key: value for key, value in grown.items() if key == first}
        return sum(grown.values()) if grown else float("nan")

    def write(self, tables: Sequence[WindowTable]) -> None:
        """Not here."""
        raise NotImplementedError

    def drop(self, tier: Tier, start_ns: int, end_ns: int) -> None:
        """Not here."""
        raise NotImplementedError

    def apply_retention(self, now_ns: int) -> None:
        """Nothing gets old."""

    def bytes(self) -> dict[Tier, int]:
        """Nothing is kept."""
        return {}

    def ping(self) -> None:
        """It answers."""

    def close(self) -> None:
        """Nothing is open."""
