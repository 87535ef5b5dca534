"""Hosts, GPUs and pods in the readings of one flush, gathered in memory until it is saved.

This is on the collector's hot path: ``add`` does work per GPU of a large block, and per point of others, never per
reading. Values are read only when the sightings are saved. Of a GPU that reports whole points, only the newest point is
kept until then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Set
from itertools import compress
from typing import NamedTuple

import numpy as np
from msgspec import structs

from readings.model import Gpu, Point, PointBlock

# GPU id, namespace, pod and container: the key of a share.
ShareKey = tuple[str, str, str, str]
Latest = dict[str, tuple[float, int]]

_FEWEST_TO_COMPACT = 64
_MOST_SPANS = 64
# From so many points on, arrays take less time than a loop does.
_FEWEST_FOR_ARRAYS = 64
_NEVER = -(1 << 63)


class Origin(NamedTuple):
    """The streamer of a batch, and whether it sends readings as they are made: not those of a capture."""

    source: str = ""
    live: bool = False


UNKNOWN_ORIGIN = Origin()


class Span:
    """Successive readings that describe a GPU in the same words: from ``first_ns`` to ``last_ns``, both included.

    ``origin`` gave the last of them.
    """

    __slots__ = ("first_ns", "gpu", "last_ns", "origin")

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.origin = UNKNOWN_ORIGIN
        self.first_ns = -_NEVER
        self.last_ns = _NEVER


class NewestValues:
    """The newest values of one GPU for one list of metric names: a whole point, and points with gaps."""

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
        """Keeps only the points with gaps that hold the newest value of some metric, in their order."""
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
                if value is None or value - value != 0:  # NaN and infinity: JSON cannot hold them
                    continue
                newest = latest.get(name)
                if newest is None or time_ns >= newest[1]:
                    latest[name] = (float(value), time_ns)


class Sighting:
    """Everything seen of one GPU or MIG instance."""

    __slots__ = ("_most_spans", "_spans", "_values")

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._most_spans = _MOST_SPANS
        self._values: dict[tuple[str, ...], NewestValues] = {}

    @property
    def uuid(self) -> str:
        """The board's identity."""
        return self._spans[0].gpu.uuid

    @property
    def only_span(self) -> Span | None:
        """Its description, if it had only one."""
        return self._spans[0] if len(self._spans) == 1 else None

    @property
    def newest_span(self) -> Span:
        """The description that its last reading had."""
        spans = self._spans
        return spans[0] if len(spans) == 1 else self.spans()[-1]

    def spans(self) -> list[Span]:
        """The descriptions over time, ordered by their last reading; never empty."""
        return sorted(self._spans, key=lambda span: span.last_ns)

    def values(self) -> Collection[NewestValues]:
        """The newest values, for each list of metric names."""
        return self._values.values()

    def latest(self) -> Latest:
        """The newest finite value of each metric, with its time in ns. At equal times the one added last wins."""
        latest: Latest = {}
        for values in self._values.values():
            values.merge_into(latest)
        return latest

    def span_of(self, gpu: Gpu) -> Span:
        """The span that a point with this description extends."""
        spans = self._spans
        if spans:
            # Successive messages mostly describe a GPU in the very same words.
            if spans[-1].gpu == gpu:
                return spans[-1]
            if len(spans) >= self._most_spans:
                spans = self._spans = _merged(spans)
                self._most_spans = max(_MOST_SPANS, 2 * len(spans))
        spans.append(Span(gpu))
        return spans[-1]

    def values_of(self, names: tuple[str, ...]) -> NewestValues:
        """Where the values of this list of metric names are kept."""
        values = self._values.get(names)
        if values is None:
            values = self._values[names] = NewestValues(names)
        return values


class Sightings:
    """Merges blocks of points into one entry per GPU. Not thread-safe.

    Saving leaves it unchanged, so a failed save can be retried.
    """

    def __init__(self) -> None:
        self._gpus: dict[str, Sighting] = {}
        self._shares: dict[ShareKey, Span] = {}

    def __len__(self) -> int:
        """How many GPUs, and pods that share one, were seen."""
        return len(self._gpus) + len(self._shares)

    def __bool__(self) -> bool:
        return bool(self._gpus or self._shares)

    def gpus(self) -> Iterator[tuple[str, Sighting]]:
        """Each GPU's id and sighting, without shares."""
        return iter(self._gpus.items())

    def shares(self) -> Iterable[Span]:
        """One span for each pod that shares a GPU."""
        return self._shares.values()

    def parts(self, most: int) -> Iterator[Sightings]:
        """The same in parts of about ``most`` GPUs and shares, a board with its instances and shares in one: itself if it is small."""
        if len(self) <= most:
            yield self
            return
        boards: dict[str, tuple[list[str], list[ShareKey]]] = {}
        for gpu_id, sighting in self._gpus.items():
            boards.setdefault(sighting.uuid, ([], []))[0].append(gpu_id)
        for key, span in self._shares.items():
            boards.setdefault(span.gpu.uuid, ([], []))[1].append(key)
        part = Sightings()
        for gpu_ids, keys in boards.values():
            if len(part) >= most:
                yield part
                part = Sightings()
            part._gpus.update((gpu_id, self._gpus[gpu_id]) for gpu_id in gpu_ids)
            part._shares.update((key, self._shares[key]) for key in keys)
        yield part

    def of_boards(self, uuids: Set[str]) -> Sightings:
        """Those of these boards, with their instances and shares."""
        part = Sightings()
        part._gpus = {gpu_id: each for gpu_id, each in self._gpus.items() if each.uuid in uuids}
        part._shares = {key: span for key, span in self._shares.items() if span.gpu.uuid in uuids}
        return part

    def add(self, block: PointBlock, origin: Origin = UNKNOWN_ORIGIN) -> None:
        """Adds a block. Points without any value are ignored, except of shares: a pod may have no part of its own."""
        points: Iterable[Point] = block.points
        if len(block.points) >= _FEWEST_FOR_ARRAYS:
            points = self._add_whole(block, origin)
        names = tuple(block.metric_names)
        gpus = block.gpus
        entries: dict[int, tuple[Span, NewestValues | None]] = {}
        for index, time_ns, values in points:
            whole = None not in values
            if not whole and values.count(None) == len(values) and not gpus[index].share:
                continue
            entry = entries.get(index)
            if entry is None:
                entry = entries[index] = self._entry(gpus[index], names)
            span, newest = entry
            if time_ns > span.last_ns:
                span.last_ns = time_ns
                span.origin = origin
            if time_ns < span.first_ns:
                span.first_ns = time_ns
            if newest is None:
                continue
            if not whole:
                newest.add_partial(time_ns, values)
            elif time_ns >= newest.whole_ns:
                newest.set_whole(time_ns, values)

    def _add_whole(self, block: PointBlock, origin: Origin) -> Iterable[Point]:
        """Adds those GPUs of a block that have whole points only; returns the points of the others.

        It takes a third of the time that their points take one by one.
        """
        points, gpus = block.points, block.gpus
        try:
            arrays = block.arrays
        except ValueError:
            return points
        # Stable: of a GPU's points, the first was the earliest, and the last is the one that counts.
        order = np.lexsort((arrays.time_ns, arrays.gpu))
        rest: Iterable[Point] = ()
        gaps = np.isnan(arrays.values)
        if gaps.any():
            if len({gpu.id for gpu in gpus}) < len(gpus):
                return points  # what one entry says of a GPU may be whole, and another not
            has_gaps = np.isin(arrays.gpu, arrays.gpu[gaps.any(axis=1)])
            rest = compress(points, has_gaps)
            order = order[~has_gaps[order]]
            if not len(order):
                return rest
        indexes = arrays.gpu[order]
        starts = np.flatnonzero(np.concatenate(([True], indexes[1:] != indexes[:-1])))
        newest_at = np.append(starts[1:], len(order)) - 1
        first_added, newest = np.minimum.reduceat(order, starts), order[newest_at]
        firsts_ns, lasts_ns = arrays.time_ns[order[starts]].tolist(), arrays.time_ns[newest].tolist()
        numbers, names = indexes[starts].tolist(), tuple(block.metric_names)
        found: dict[int, NewestValues] = {}
        for group in np.argsort(first_added).tolist():
            span, values = self._entry(gpus[numbers[group]], names)
            if lasts_ns[group] > span.last_ns:
                span.last_ns = lasts_ns[group]
                span.origin = origin
            if firsts_ns[group] < span.first_ns:
                span.first_ns = firsts_ns[group]
            if values is not None:
                found[group] = values
        places = newest.tolist()
        for group in np.argsort(newest).tolist():  # as they were added, should two be of one GPU
            if group in found and lasts_ns[group] >= found[group].whole_ns:
                found[group].set_whole(lasts_ns[group], points[places[group]][2])
        return rest

    def _entry(self, gpu: Gpu, names: tuple[str, ...]) -> tuple[Span, NewestValues | None]:
        if gpu.share:
            share = (gpu.id, gpu.namespace, gpu.pod, gpu.container)
            return self._shares.get(share) or self._shares.setdefault(share, Span(gpu)), None
        sighting = self._gpus.get(gpu.id)
        if sighting is None:
            sighting = self._gpus[gpu.id] = Sighting()
        return sighting.span_of(gpu), sighting.values_of(names)


def _merged(spans: Iterable[Span]) -> list[Span]:
    """One span per host slot and pod. Keeps memory bounded when descriptions keep changing within one flush."""
    merged: dict[tuple[object, ...], Span] = {}
    for span in spans:
        gpu = span.gpu
        same = merged.setdefault((gpu.hostname, gpu.gpu_id, gpu.namespace, gpu.pod, gpu.container), span)
        if same is span:
            continue
        newer, older = (gpu, same.gpu) if span.last_ns >= same.last_ns else (same.gpu, gpu)
        same.gpu = structs.replace(
            newer,
            device=newer.device or older.device,
            model_name=newer.model_name or older.model_name,
            mig_profile=newer.mig_profile or older.mig_profile,
            labels={**older.labels, **newer.labels},
        )
        same.first_ns = min(same.first_ns, span.first_ns)
        if span.last_ns > same.last_ns:
            same.last_ns, same.origin = span.last_ns, span.origin
    return list(merged.values())
