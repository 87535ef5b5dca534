"""What the readings of a flush say about the inventory, gathered in memory until it is saved.

On the collector's hot path: ``add`` works per point, never per reading. Values are looked at when the sightings are
saved, and of a GPU that reports whole points only its newest point is kept until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import structs

from readings.model import Gpu, PointBlock

# Shares are told apart by GPU id, namespace, pod and container.
ShareKey = tuple[str, str, str, str]
Latest = dict[str, tuple[float, int]]

_FEWEST_TO_COMPACT = 64
_MOST_RUNS = 64
_NEVER = -(1 << 63)


class Span(NamedTuple):
    """A GPU as it was described from one reading time to another, both in ns and both included."""

    gpu: Gpu
    first_ns: int
    last_ns: int


class Run:
    """A growing span: readings in a row that described a GPU in the same words."""

    __slots__ = ("first_ns", "gpu", "last_ns")

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.first_ns = -_NEVER
        self.last_ns = _NEVER

    def span(self) -> Span:
        return Span(self.gpu, self.first_ns, self.last_ns)


class _Columns:
    """The newest values of one GPU under one list of metric names: a whole point, and points with gaps."""

    __slots__ = ("names", "partial", "partial_most", "partial_ns", "whole", "whole_ns")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.whole: list[float | None] = []
        self.whole_ns = _NEVER
        self.partial: list[tuple[int, list[float | None]]] = []
        self.partial_ns = _NEVER
        self.partial_most = _FEWEST_TO_COMPACT

    def set_whole(self, time_ns: int, values: list[float | None]) -> None:
        self.whole_ns = time_ns
        self.whole = values
        if self.partial and time_ns >= self.partial_ns:
            self.partial.clear()

    def add_partial(self, time_ns: int, values: list[float | None]) -> None:
        if time_ns > self.partial_ns:
            self.partial_ns = time_ns
        self.partial.append((time_ns, values))
        if len(self.partial) >= self.partial_most:
            self._compact()
            self.partial_most = max(_FEWEST_TO_COMPACT, 2 * len(self.partial))

    def _compact(self) -> None:
        """Leave of the points with gaps only those that hold the newest value of a metric, in their order."""
        newest: dict[int, tuple[int, int]] = {}
        for number, (time_ns, values) in enumerate(self.partial):
            for column, value in enumerate(values):
                if value is not None and time_ns >= newest.get(column, (_NEVER, 0))[0]:
                    newest[column] = (time_ns, number)
        rows: dict[int, list[float | None]] = {}
        for column, (_, number) in newest.items():
            row = rows.setdefault(number, [None] * len(self.names))
            row[column] = self.partial[number][1][column]
        self.partial = [(self.partial[number][0], rows[number]) for number in sorted(rows)]

    def merge_into(self, latest: Latest) -> None:
        points = [(self.whole_ns, self.whole), *self.partial] if self.whole else self.partial
        for time_ns, values in points:
            for name, value in zip(self.names, values, strict=True):
                if value is None or value - value != 0:  # a NaN or an infinity has no place in JSON
                    continue
                known = latest.get(name)
                if known is None or time_ns >= known[1]:
                    latest[name] = (float(value), time_ns)


class Sighting:
    """All that was seen of one GPU or MIG instance."""

    __slots__ = ("_columns", "_runs")

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._columns: dict[tuple[str, ...], _Columns] = {}

    def spans(self) -> list[Span]:
        """How it was described over time, oldest first by their last reading; never empty."""
        return sorted((run.span() for run in self._runs), key=lambda span: span.last_ns)

    def latest(self) -> Latest:
        """The newest finite value of each metric, with its time in ns. Of equal times the one added last counts."""
        latest: Latest = {}
        for columns in self._columns.values():
            columns.merge_into(latest)
        return latest

    def run_of(self, gpu: Gpu) -> Run:
        """The run that a point of ``gpu`` extends."""
        runs = self._runs
        if runs:
            # Messages in a row mostly describe a GPU in the very same words.
            if runs[-1].gpu == gpu:
                return runs[-1]
            if len(runs) >= _MOST_RUNS:
                runs = self._runs = _merged(runs)  # more than so many places and pods in one flush do not occur
        runs.append(Run(gpu))
        return runs[-1]

    def columns_of(self, names: tuple[str, ...]) -> _Columns:
        """Where values under these metric names are kept."""
        columns = self._columns.get(names)
        if columns is None:
            columns = self._columns[names] = _Columns(names)
        return columns


class Sightings:
    """Merges blocks of points into one entry per GPU. Not safe for use by two threads at once.

    Saving does not change it, so a failed save can be tried again.
    """

    def __init__(self) -> None:
        self._gpus: dict[str, Sighting] = {}
        self._shares: dict[ShareKey, Run] = {}

    def __len__(self) -> int:
        """How many GPUs, and pods that share one, were seen."""
        return len(self._gpus) + len(self._shares)

    def __bool__(self) -> bool:
        return bool(self._gpus or self._shares)

    def gpus(self) -> Iterator[tuple[str, Sighting]]:
        """GPU id and what was seen of it, without shares."""
        return iter(self._gpus.items())

    def shares(self) -> Iterator[Span]:
        """One span per pod's part of a shared GPU."""
        return (run.span() for run in self._shares.values())

    def add(self, block: PointBlock) -> None:
        """Take in a block. Points with no value at all are no sighting."""
        names = tuple(block.metric_names)
        gpus = block.gpus
        found: dict[int, tuple[Run, _Columns | None]] = {}
        for index, time_ns, values in block.points:
            whole = None not in values
            if not whole and values.count(None) == len(values):
                continue
            pair = found.get(index)
            if pair is None:
                pair = found[index] = self._find(gpus[index], names)
            run, columns = pair
            if time_ns > run.last_ns:
                run.last_ns = time_ns
            if time_ns < run.first_ns:
                run.first_ns = time_ns
            if columns is None:
                continue
            if not whole:
                columns.add_partial(time_ns, values)
            elif time_ns >= columns.whole_ns:
                columns.set_whole(time_ns, values)

    def _find(self, gpu: Gpu, names: tuple[str, ...]) -> tuple[Run, _Columns | None]:
        key = gpu.id
        if gpu.share:
            share = (key, gpu.namespace, gpu.pod, gpu.container)
            run = self._shares.get(share)
            if run is None:
                run = self._shares[share] = Run(gpu)
            return run, None
        sighting = self._gpus.get(key)
        if sighting is None:
            sighting = self._gpus[key] = Sighting()
        return sighting.run_of(gpu), sighting.columns_of(names)


def _merged(runs: Iterable[Run]) -> list[Run]:
    """One run per place and pod: what is left when descriptions keep changing within one flush."""
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        gpu = run.gpu
        same = kept.setdefault((gpu.hostname, gpu.gpu_id, gpu.namespace, gpu.pod, gpu.container), run)
        if same is run:
            continue
        newer, older = (gpu, same.gpu) if run.last_ns >= same.last_ns else (same.gpu, gpu)
        same.gpu = structs.replace(
            newer,
            device=newer.device or older.device,
            model_name=newer.model_name or older.model_name,
            mig_profile=newer.mig_profile or older.mig_profile,
            labels={**older.labels, **newer.labels},
        )
        same.first_ns = min(same.first_ns, run.first_ns)
        same.last_ns = max(same.last_ns, run.last_ns)
    return list(kept.values())
