"""The interface of every store of readings, and the types it uses. One contract test class runs on every store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from readings.model import Gpu, PointBlock
from stores.aggregate.buckets import Buckets
from stores.aggregate.limits import DEFAULT_MEMORY

if TYPE_CHECKING:
    from stores.aggregate.arrays import ReadingArrays

Aggregate = Literal["mean", "max", "min", "sum", "count", "last", "p50", "p95", "p99", "increase"]
By = Literal["gpu", "host", "model", "namespace", "pod"]


class StoreError(Exception):
    """A store failed. ``retriable`` says whether the same call may succeed later."""

    retriable = False


class StoreUnavailable(StoreError):
    """The store does not answer now (away, locked, disk full). Any part of a write may be missing: repeat the call.

    ``retry_after`` is the number of seconds that the server asked to wait, if it did.
    """

    retriable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooMuch(StoreError):
    """An answer would be too large. The text names what there is too much of, and the limit."""


class TooBusy(StoreError):
    """The process answers as many heavy questions as it may. The text names the limit. Ask again later."""

    retriable = True


# A GPU, its host, and [start, end) in nanoseconds; an end of None is open.
HostAssignment = tuple[str, str, int, int | None]
# Finds the hosts of some GPUs in a range [start, end). InfluxDB may hold a reading twice (see stores.influxdb.reader): then
# the copy from the host that the lookup names wins, else the last in the order of tags. Nothing else calls the lookup.
HostLookup = Callable[[Set[str], int, int], Iterable[HostAssignment]]


class Position(NamedTuple):
    """A row's place in the order of a query: the cursor of a page."""

    time_ns: int
    gpu: str
    metric_name: str


# A GPU's description: the fields of SeriesLabels after the first, in their order.
Description = tuple[str, str, int | None, str, str, str, str, str, str]


def describe(gpu: Gpu) -> Description:
    """The fields of a GPU that stores keep with its readings."""
    return (
        gpu.uuid, gpu.mig_id, gpu.gpu_id, gpu.device, gpu.model_name,
        gpu.hostname, gpu.container, gpu.pod, gpu.namespace,
    )  # fmt: skip


class SeriesLabels(NamedTuple):
    """What identifies and describes a reading, except time and value."""

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
    """Rows in the order of a query, column by column, so that no row needs an object.

    Row i has the time ``times[i]`` (ns), the value ``values[i]`` and the labels ``origins[places[i]]``.
    """

    times: list[int]
    values: list[float]
    places: list[int]
    origins: list[SeriesLabels]

    def __len__(self) -> int:
        return len(self.times)

    def cut(self, start: int, end: int | None) -> RowBatch:
        """The rows of a slice."""
        return RowBatch(self.times[start:end], self.values[start:end], self.places[start:end], self.origins)

    def position(self, row: int) -> Position:
        """The cursor that continues after a row."""
        origin = self.origins[self.places[row]]
        return Position(self.times[row], origin.gpu, origin.metric_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsQuery:
    """Which rows to read. An empty tuple or None is no condition; several values of one field are alternatives.

    The range is [start_ns, end_ns). Rows are ordered by time (newest first by default), then GPU id and metric name, both
    always ascending. ``after`` skips everything up to and including that position; ``offset`` counts from there. Text is
    compared exactly, including case. A ``limit`` of None means all rows, which only ``stream()`` accepts. Raises
    ValueError for a negative limit or offset.

    ``hosts`` decides which reading counts where a store holds one twice (see HostLookup).
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
    hosts: HostLookup | None = None

    def __post_init__(self) -> None:
        if (self.limit is not None and self.limit < 0) or self.offset < 0:
            raise ValueError(f"limit and offset cannot be negative: {self.limit}, {self.offset}")

    def bounds(self) -> tuple[int | None, int | None]:
        """The time range [start, end) that is left from the cursor's time on; None is no bound."""
        start, end, after = self.start_ns, self.end_ns, self.after
        if after is not None and self.newest_first:
            end = after.time_ns + 1 if end is None else min(end, after.time_ns + 1)
        elif after is not None:
            start = after.time_ns if start is None else max(start, after.time_ns)
        return start, end


class PodAssignment(NamedTuple):
    """A pod that ran on a GPU in [start, end); an end of None is open. Where two overlap, the one that started later wins.

    Pods with ``share`` use the GPU together: what it reads while there are several is of their namespace, if they have one in
    common, and of no pod.
    """

    gpu: str
    namespace: str
    pod: str
    container: str
    start_ns: int
    end_ns: int | None
    share: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesQuery:
    """One metric in the windows of ``buckets``.

    An empty tuple is no condition; several values of one field are alternatives. ``by`` makes a group for each of its values,
    None one group of all. A board (a physical GPU) counts once: in a window where it has readings of its own, those of its
    MIG instances are left out; a metric of the whole board is taken from one instance. ``gpus`` names boards, with their
    instances, or a single instance, which then stands for itself; so does every instance with ``mig``.

    With ``assignments`` (None: pods do not matter) only readings taken while a pod ran on the GPU count. For a GPU that pods
    share, their own shares count instead. ``namespaces`` and ``pods`` choose among the pods.

    Aggregates of a group in a window: ``mean``, ``max``, ``min``, ``count``, ``p50`` … are over all its readings, pNN being the value of rank
    floor(n·NN/100 + 0.5); ``last`` is the newest reading, of equally new ones the largest; ``sum`` is the sum over GPUs of each GPU's mean;
    ``increase``, for counters, is how much the GPUs' counts grew between the readings that pass the filters; a count that
    fell restarted at 0. Means, sums and increases are rounded to 12 digits: the rest depends on the order of adding.

    The answer takes about ``memory`` bytes at most, however many readings there are, and is exact all the same. ``heavy`` is
    called once, before a question looks at more than LIGHT_READINGS readings; it may raise TooBusy.

    ``top`` keeps the groups with the largest aggregate over the whole range. The store refuses more than ``most_groups``. ``hosts``
    is as in ReadingsQuery. InfluxDB's own aggregates do not use it: ``count``, ``by="host"``, means and percentiles may count
    both copies of a reading. Raises ValueError for an empty range or window.
    """

    metric_name: str
    buckets: Buckets
    aggregate: Aggregate = "mean"
    by: By | None = None
    gpus: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    mig: bool = False
    assignments: tuple[PodAssignment, ...] | None = None
    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    top: int | None = None
    most_groups: int = 1000
    memory: int = DEFAULT_MEMORY
    heavy: Callable[[], None] = lambda: None
    hosts: HostLookup | None = None

    def __post_init__(self) -> None:
        start_ns, end_ns, every_ns = self.buckets.start_ns, self.buckets.end_ns, self.buckets.every_ns
        if every_ns < 1 or end_ns <= start_ns:
            raise ValueError(f"nothing can be in windows of {every_ns} ns of [{start_ns}, {end_ns})")
        if self.assignments is None and (self.by in {"namespace", "pod"} or self.namespaces or self.pods):
            raise ValueError("what ran where (assignments) is needed for namespaces and pods")


class GroupSeries(NamedTuple):
    """One group's windows, in order of time. A window without readings is None.

    ``group`` holds the value of ``by``: for pods namespace and pod, and nothing where there is one group of all.
    """

    group: tuple[str, ...]
    values: list[float | None]


class RefusedReading(NamedTuple):
    """A reading that the store refused, with the store's own reason."""

    gpu: str
    metric_name: str
    time_ns: int
    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """How many readings and shares a write stored (new, or the same again), and those that the store refused."""

    written: int
    refused: tuple[RefusedReading, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds, as far as it knows without scanning; None is unknown. Times are nanoseconds since 1970 UTC, and
    None in an empty store too. ``bytes`` is its size on disk or in memory.

    A series is one metric of one GPU. On InfluxDB it is one described GPU, or one pod's share. ``readings`` excludes shares.
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
        """Whether the store's own server drops old readings."""

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        """Store all blocks durably, or raise. Writing a reading again changes nothing; a new value replaces the old one.

        A null value is not a reading. The store refuses single readings that it cannot hold (a value that is not finite, a
        time beyond 64 bits, text that is not Unicode). Of a reading that occurs twice in a call, the later one stays.

        A GPU's description (host, pod, …) belongs to its point. If a point is written again with another description and
        only some of its readings, the others may have either. While a call runs, other processes may see a part of it.
        """

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, in the query's order. Shares (one pod's part of a shared GPU) are never among them."""

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The same rows, however many, a bounded number at a time, in memory that does not grow with them.

        The store reads a bounded number of rows ahead, and holds no lock and no transaction between batches. Readings
        written meanwhile may or may not appear; oldest first, the stream ends with the newest row of its beginning.
        It may raise at any batch. Close it, or read it to its end, to free what it holds.
        """

    def series(self, query: SeriesQuery) -> list[GroupSeries]:
        """The groups that have readings in the range, by name, or with ``top`` the largest first. Raises TooMuch or TooBusy."""

    def readings(
        self,
        metric_name: str,
        start_ns: int,
        end_ns: int,
        *,
        gpus: Collection[str] = (),
        hosts: HostLookup | None = None,
    ) -> Iterator[ReadingArrays]:
        """All readings (not shares) of one metric in [start, end) as arrays, in parts, in memory that does not grow with them.

        The parts are in order of time, and those of one time are in one part; within a part there is no order. ``gpus`` are the ids
        of those that are asked for, empty: all. ``hosts`` is as in ReadingsQuery. As with ``stream()`` no lock is held between
        parts, and any part may raise.
        """

    def metric_names(self, gpu: str | None = None) -> list[str]:
        """Names of the metrics that have readings (not shares), of one GPU or of all, sorted."""

    def stats(self) -> StoreStats:
        """What the store holds. Never scans it."""

    def apply_retention(self, oldest_ns: int) -> int:
        """Drop what is older than ``oldest_ns`` without blocking writers. Returns how many readings and shares went."""

    def ping(self) -> None:
        """Raise StoreUnavailable unless the store can answer queries now."""

    def close(self) -> None:
        """Close files and connections. Idempotent."""
