"""The interface of every store of readings, and the words it uses. One contract test class runs on each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from readings.model import PointBlock

Aggregate = Literal["mean", "max", "min", "sum", "count", "last", "p50", "p95", "p99", "increase"]
By = Literal["gpu", "host", "model", "namespace", "pod"]


class StoreError(Exception):
    """A store could not do what was asked. ``retriable`` says whether the same call may succeed later."""

    retriable = False


class StoreUnavailable(StoreError):
    """The store does not answer now (away, locked, disk full). Nothing of the call is sure to be stored: ask again.

    ``retry_after`` is how many seconds it asked to be left alone, if it said so.
    """

    retriable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooMuch(StoreError):
    """A query asks for more than one answer may hold; the text says of what, and the limit."""


class Position(NamedTuple):
    """Where a row stands in the order of ``readings()``: the cursor of a page."""

    time_ns: int
    gpu: str
    metric_name: str


class Row(NamedTuple):
    """One reading as it is asked back, with what described its GPU when it was taken."""

    time_ns: int
    metric_name: str
    value: float
    uuid: str
    mig_id: str
    gpu_id: int | None
    device: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str

    @property
    def gpu(self) -> str:
        """The GPU's identity (see readings.model.Gpu.id)."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid

    @property
    def position(self) -> Position:
        """The cursor that continues after this row."""
        return Position(self.time_ns, self.gpu, self.metric_name)


class SeriesLabels(NamedTuple):
    """What a reading is of: a Row but for its time and its value."""

    metric_name: str
    uuid: str
    mig_id: str
    gpu_id: int | None
    device: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str

    @property
    def gpu(self) -> str:
        """The GPU's identity (see readings.model.Gpu.id)."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows in the order of a query, column by column, so that no object is made for each.

    Row i was taken at ``times[i]`` (ns), is ``values[i]`` and is of ``origins[places[i]]``.
    """

    times: list[int]
    values: list[float]
    places: list[int]
    origins: list[SeriesLabels]

    def __len__(self) -> int:
        return len(self.times)

    def cut(self, start: int, end: int | None) -> RowBatch:
        """The rows from one place to another, as a slice."""
        return RowBatch(self.times[start:end], self.values[start:end], self.places[start:end], self.origins)

    def rows(self) -> list[Row]:
        """The rows one by one."""
        origins = self.origins
        return [
            Row(time_ns, origins[place][0], value, *origins[place][1:])
            for time_ns, value, place in zip(self.times, self.values, self.places, strict=True)
        ]

    def position(self, row: int) -> Position:
        """The cursor that continues after a row."""
        origin = self.origins[self.places[row]]
        return Position(self.times[row], origin.gpu, origin.metric_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsQuery:
    """Which rows. An empty tuple or None is no condition; several values of one field are alternatives.

    The range is [start_ns, end_ns). Order: time (newest first unless told otherwise), then GPU id, then metric name,
    both ascending whatever the order of times. ``after`` leaves out all up to and including that position; ``offset``
    counts from there. Text is compared exactly, case and all. Without a ``limit`` (None) all rows are meant: only
    ``stream()`` takes that. Raises ValueError for a negative limit or offset.
    """

    gpus: tuple[str, ...] = ()
    metric_names: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    gpu_ids: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None
    newest_first: bool = True
    limit: int | None = 100
    offset: int = 0
    after: Position | None = None

    def __post_init__(self) -> None:
        if (self.limit is not None and self.limit < 0) or self.offset < 0:
            raise ValueError(f"limit and offset cannot be negative: {self.limit}, {self.offset}")


class PodAssignment(NamedTuple):
    """What ran on a GPU in [start, end); None is no end. Of two that overlap, the one that started later holds the GPU."""

    gpu: str
    namespace: str
    pod: str
    container: str
    start_ns: int
    end_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesQuery:
    """One metric in windows of ``every_ns``, aligned to 1970, over the range [start, end): the first and the last may be in part outside.

    An empty tuple is no condition; several values of one field are alternatives. ``by`` makes a group for each of its values,
    None one group of all. A board (a physical GPU) counts once: where it has readings of its own in a window, those of its
    MIG instances are left out; a metric of the whole board is taken from one instance. ``gpus`` names boards, with their
    instances, or one instance by its id, which then stands for itself; so does every instance with ``mig``.

    ``occupancies`` (None: whatever runs there) say what ran where: then only readings of GPUs while something ran on them
    count, of those that several share the pods' own parts instead, and ``namespaces`` and ``pods`` choose among them.

    Aggregates of a group in a window: ``mean``, ``max``, ``min``, ``count``, ``p50`` … are over all its readings, pNN being the value of rank
    floor(n·NN/100 + 0.5); ``last`` is the newest reading, of equally new ones the largest; ``sum`` is the sum over GPUs of each GPU's mean; ``increase``,
    for counters, is by how much the GPUs' counts grew from each reading to the next of those that the filters let through; one
    that fell began again at 0. Means, sums and increases are told to 12 digits: those after them depend on the order of adding.

    ``top`` keeps the groups with the largest aggregate over the whole range. More than ``most_groups`` are refused.
    Raises ValueError for a range or window that is empty.
    """

    metric_name: str
    every_ns: int
    start_ns: int
    end_ns: int
    aggregate: Aggregate = "mean"
    by: By | None = None
    gpus: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    mig: bool = False
    occupancies: tuple[PodAssignment, ...] | None = None
    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    top: int | None = None
    most_groups: int = 1000

    def __post_init__(self) -> None:
        if self.every_ns < 1 or self.end_ns <= self.start_ns:
            raise ValueError(f"nothing can be in windows of {self.every_ns} ns of [{self.start_ns}, {self.end_ns})")
        if self.occupancies is None and (self.by in {"namespace", "pod"} or self.namespaces or self.pods):
            raise ValueError("what ran where (occupancies) is needed for namespaces and pods")


class GroupSeries(NamedTuple):
    """One group's windows, in order of time; None where it has no reading.

    ``group`` is the value of what was grouped by; of pods namespace and pod; nothing where all is one group.
    """

    group: tuple[str, ...]
    values: list[float | None]


class RefusedReading(NamedTuple):
    """A reading that the store itself turned away, with its reason in the store's words."""

    gpu: str
    metric_name: str
    time_ns: int
    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a write: readings and shares accepted (new or again the same), and those the store refused."""

    written: int
    refused: tuple[RefusedReading, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds. Times are nanoseconds since 1970 UTC, None when it is empty; ``bytes`` is its size on disk or in memory.

    A series is one metric of one GPU. Shares count under ``shares`` alone. Counts are None while a large store counts
    for the first time.
    """

    readings: int | None
    series: int | None
    oldest_ns: int | None
    newest_ns: int | None
    bytes: int
    shares: int | None = 0


class Store(Protocol):
    """Keeps readings. Safe to call from several threads. Every method may raise StoreError or StoreUnavailable."""

    @property
    def expires_by_itself(self) -> bool:
        """Whether the store's own server drops what is older than it is told to keep."""

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        """Store all blocks, durably, or raise. Writing the same reading again changes nothing; a new value replaces the old.

        A null value is no reading. What no store can keep (a value that is not finite, a time beyond 64 bits, text that
        is not Unicode) is refused by itself. Of one reading told twice in a call, the later stays.

        What describes a GPU (host, pod, …) belongs to its point: when one is told again with another description and
        only some of its readings, the others may keep the old description or take the new one. While a call runs, other
        processes may see a part of it.
        """

    def readings(self, query: ReadingsQuery) -> list[Row]:
        """The rows that match, in the query's order. Shares (one pod's part of a shared GPU) are never among them."""

    def page(self, query: ReadingsQuery) -> RowBatch:
        """What ``readings()`` gives, as columns."""

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The same rows, however many, a bounded number at a time and in memory that does not grow with them.

        Each portion is read when it is asked for, of the store as it is then; no lock and no transaction is held between
        two of them. What is written meanwhile may be among the rows or not; oldest first, it ends with what was newest
        when it began. Raises as it goes. Close it (or read it to its end) to let go of what it holds.
        """

    def shares(self, query: ReadingsQuery) -> list[Row]:
        """The shares that match: after the metric name, ordered by namespace, pod and container.

        Page them by ``offset``: a position does not tell two pods apart, so a query with ``after`` raises ValueError.
        """

    def series(self, query: SeriesQuery) -> list[GroupSeries]:
        """The groups that have readings in the range: by their names, or with ``top`` the largest first. Raises TooMuch."""

    def metric_names(self, gpu: str | None = None) -> list[str]:
        """Names of the metrics that have readings (shares aside), of one GPU or of all, sorted."""

    def stats(self) -> StoreStats:
        """What it holds."""

    def apply_retention(self, oldest_ns: int) -> int:
        """Drop what is older than ``oldest_ns`` without holding up writers; returns how many readings and shares went."""

    def ping(self) -> None:
        """Raise StoreUnavailable unless it can answer queries now."""

    def close(self) -> None:
        """Let go of files and connections. Idempotent."""
