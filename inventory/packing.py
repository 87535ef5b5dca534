"""The newest readings of one host's GPUs as arrays, and as the bytes of a row in the database."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from readings.catalogue import is_counter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_TIME, _VALUE, _FLAG = np.dtype("<i8"), np.dtype("<f8"), np.dtype("?")


@dataclass(frozen=True, slots=True)
class HostReadings:
    """What one writer saw last of a host: row ``i`` of each array is of ``gpu_ids[i]``.

    ``values`` and ``times_ns`` are GPUs x metrics: NaN and 0 where there is no reading. ``last_seen_ns`` is each GPU's
    newest reading of all, ``pod_seen_ns`` the newest that named a pod, or said that none runs (0: none did).
    """

    gpu_ids: tuple[str, ...]
    metric_names: tuple[str, ...]
    last_seen_ns: Ints
    pod_seen_ns: Ints
    live: Bools
    sources: tuple[str, ...]
    values: Floats
    times_ns: Ints


class _PackedRow(msgspec.Struct, array_like=True, frozen=True):
    """The row's bytes: arrays are little-endian. Empty ``times``: every reading is as new as its GPU."""

    gpu_ids: tuple[str, ...]
    metric_names: tuple[str, ...]
    last_seen: bytes
    pod_seen: bytes
    live: bytes
    sources: tuple[str, ...]  # one for all, or one for each GPU
    values: bytes
    times: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_PackedRow).decode


def pack(readings: HostReadings) -> bytes:
    """The bytes that ``unpack`` reads."""
    times, sources = readings.times_ns, readings.sources
    newest = times == readings.last_seen_ns[:, None]
    is_whole = bool(newest.all()) or bool((newest | ((times == 0) & np.isnan(readings.values))).all())
    return _encode(
        _PackedRow(
            readings.gpu_ids,
            readings.metric_names,
            _bytes(readings.last_seen_ns, _TIME),
            _bytes(readings.pod_seen_ns, _TIME),
            _bytes(readings.live, _FLAG),
            sources[:1] if len(set(sources)) == 1 else sources,
            _bytes(readings.values, _VALUE),
            b"" if is_whole else _bytes(times, _TIME),
        )
    )


def unpack(data: bytes) -> HostReadings:
    """The readings of a row. The arrays cannot be written. Raises msgspec.MsgspecError or ValueError for other bytes."""
    row = _decode(data)
    shape = len(row.gpu_ids), len(row.metric_names)
    last_seen, values = np.frombuffer(row.last_seen, _TIME), np.frombuffer(row.values, _VALUE).reshape(shape)
    if row.times:
        times = np.frombuffer(row.times, _TIME).reshape(shape)
    else:
        times = np.where(np.isnan(values), 0, last_seen[:, None])
    return HostReadings(
        row.gpu_ids,
        row.metric_names,
        last_seen,
        np.frombuffer(row.pod_seen, _TIME),
        np.frombuffer(row.live, _FLAG),
        row.sources if len(row.sources) == len(row.gpu_ids) else row.sources * len(row.gpu_ids),
        values,
        times,
    )


def without(readings: HostReadings, gpu_ids: Set[str]) -> HostReadings:
    """The readings without those of these GPUs."""
    return rows_of(readings, [row for row, gpu_id in enumerate(readings.gpu_ids) if gpu_id not in gpu_ids])


def rows_of(readings: HostReadings, keep: Sequence[int]) -> HostReadings:
    """Copies of these rows."""
    return HostReadings(
        tuple(readings.gpu_ids[row] for row in keep),
        readings.metric_names,
        readings.last_seen_ns[keep],
        readings.pod_seen_ns[keep],
        readings.live[keep],
        tuple(readings.sources[row] for row in keep),
        readings.values[keep],
        readings.times_ns[keep],
    )


def _bytes(array: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    return array.astype(dtype, copy=False).tobytes()


class HostTable:
    """The same while it grows: what one writer saw last of a host's GPUs. Not thread-safe."""

    def __init__(self, readings: HostReadings | None = None) -> None:
        self.changed = False
        self.fresh: Bools = np.zeros(0, np.bool_)  # seen since somebody cleared it
        self.gpu_ids: list[str] = []
        self.last_seen_ns: Ints = np.zeros(0, np.int64)
        self.pod_seen_ns: Ints = np.zeros(0, np.int64)
        self.live: Bools = np.zeros(0, np.bool_)
        self.sources: list[str] = []
        self.metric_names: tuple[str, ...] = ()
        self.values: Floats = np.zeros((0, 0))
        self.times_ns: Ints = np.zeros((0, 0), np.int64)
        if readings is not None:
            self.gpu_ids, self.sources = list(readings.gpu_ids), list(readings.sources)
            self.last_seen_ns, self.pod_seen_ns = readings.last_seen_ns.copy(), readings.pod_seen_ns.copy()
            self.live, self.metric_names = readings.live.copy(), readings.metric_names
            self.values, self.times_ns = readings.values.copy(), readings.times_ns.copy()
            self.fresh = np.zeros(len(self.gpu_ids), np.bool_)

    def readings(self) -> HostReadings:
        """A view of the table now. It shares the arrays."""
        return HostReadings(
            tuple(self.gpu_ids),
            self.metric_names,
            self.last_seen_ns,
            self.pod_seen_ns,
            self.live,
            tuple(self.sources),
            self.values,
            self.times_ns,
        )

    def add(self, gpu_ids: Sequence[str]) -> None:
        """Adds GPUs without readings, as the last rows."""
        more, metrics = len(gpu_ids), len(self.metric_names)
        self.changed = True
        self.gpu_ids.extend(gpu_ids)
        self.sources.extend([""] * more)
        none = np.zeros(more, np.int64)
        self.last_seen_ns = np.concatenate((self.last_seen_ns, none))
        self.pod_seen_ns = np.concatenate((self.pod_seen_ns, none))
        self.live = np.concatenate((self.live, np.zeros(more, np.bool_)))
        self.fresh = np.concatenate((self.fresh, np.zeros(more, np.bool_)))
        self.values = np.vstack((self.values, np.full((more, metrics), np.nan)))
        self.times_ns = np.vstack((self.times_ns, np.zeros((more, metrics), np.int64)))

    def remove(self, gpu_ids: Set[str]) -> None:
        """Takes these GPUs out. The rows after them move up."""
        self.fresh = self.fresh[[gpu_id not in gpu_ids for gpu_id in self.gpu_ids]]
        left = without(self.readings(), gpu_ids)
        self.changed = True
        self.gpu_ids, self.sources = list(left.gpu_ids), list(left.sources)
        self.last_seen_ns, self.pod_seen_ns, self.live = left.last_seen_ns, left.pod_seen_ns, left.live
        self.values, self.times_ns = left.values, left.times_ns

    def copy(self, row: int, table: HostTable | HostReadings, other: int) -> None:
        """Takes over what is newer in another table's row."""
        self.note(
            row,
            int(table.last_seen_ns[other]),
            int(table.pod_seen_ns[other]),
            live=bool(table.live[other]),
            source=table.sources[other],
        )
        columns = np.flatnonzero(table.times_ns[other])
        self.merge_each(
            row,
            tuple(table.metric_names[column] for column in columns),
            table.times_ns[other, columns],
            table.values[other, columns],
        )

    def note(self, row: int, last_ns: int, pod_ns: int, *, live: bool, source: str) -> None:
        """A GPU was seen. ``pod_ns``: when a reading last said whether a pod runs, 0 if none did."""
        if last_ns >= self.last_seen_ns[row]:
            self.last_seen_ns[row] = last_ns
            self.live[row] = live
            self.sources[row] = source
            self.changed = self.fresh[row] = True
        if pod_ns > self.pod_seen_ns[row]:
            self.pod_seen_ns[row] = pod_ns
            self.changed = True

    def merge(
        self,
        names: tuple[str, ...],
        rows: Sequence[int],
        times_ns: Sequence[int],
        values: Sequence[Sequence[float | None]],
    ) -> int:
        """Takes over points (each of another GPU) where they are newer; returns how many counters restarted.

        At equal times the new value replaces the old one, as in the stores. What is not finite is no reading.
        """
        return self._merge(names, rows, np.array(times_ns, np.int64)[:, None], np.array(values, np.float64))

    def merge_each(self, row: int, names: tuple[str, ...], times_ns: Ints, values: Floats) -> int:
        """The same for one GPU with a time for each metric."""
        return self._merge(names, [row], times_ns[None, :], values[None, :])

    def _merge(self, names: tuple[str, ...], rows: Sequence[int], new_times: Ints, new: Floats) -> int:
        at: Any
        if names != self.metric_names:
            at = np.ix_(np.array(rows), self._columns(names))
        elif list(rows) == list(range(rows[0], rows[0] + len(rows))):
            at = slice(rows[0], rows[0] + len(rows))  # a host's GPUs in their order, as most are: a third less
        else:
            at = list(rows)
        old, old_times = self.values[at], self.times_ns[at]
        newer = np.isfinite(new) & (new_times >= old_times)
        # Of all columns at once: to pick the few costs more.
        fell = (new < old) & (new_times > old_times) & newer & _counters(names)
        resets = int(np.count_nonzero(fell))
        if newer.all():
            self.values[at], self.times_ns[at] = new, new_times
        else:
            self.values[at] = np.where(newer, new, old)
            self.times_ns[at] = np.where(newer, new_times, old_times)
        self.changed = True
        return resets

    def _columns(self, names: tuple[str, ...]) -> Ints:
        missing = tuple(name for name in names if name not in self.metric_names)
        if missing:
            self.metric_names += missing
            empty = len(self.gpu_ids), len(missing)
            self.values = np.hstack((self.values, np.full(empty, np.nan)))
            self.times_ns = np.hstack((self.times_ns, np.zeros(empty, np.int64)))
        places = {name: column for column, name in enumerate(self.metric_names)}
        return np.array([places[name] for name in names], np.int64)  # also of no names


@lru_cache(maxsize=1024)
def _counters(names: tuple[str, ...]) -> Bools:
    """Which of the columns are counters."""
    return np.array([is_counter(name) for name in names], np.bool_)
