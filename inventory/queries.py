"""Queries of lists and pages: which GPUs there are, which of them are stale, and which pods ran on them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from django.conf import settings
from django.db.models import Count, Max, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Coalesce

from inventory.models import GPU, Host, Placement, Residence
from readings.catalogue import unit_of
from readings.times import to_datetime, to_ns


@lru_cache(maxsize=32_768)
def parse_moment(text: str) -> datetime:
    """Parses a DateTimeField cast to text. SQLite writes no zone and means UTC; PostgreSQL writes its own zone."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


State = Literal["reporting", "stale"]
_TICK = timedelta(microseconds=1)
STATES: tuple[State, ...] = ("reporting", "stale")


def newest_reading() -> datetime | None:
    """The time of the fleet's newest reading, or None without GPUs. One query."""
    newest: datetime | None = GPU.objects.aggregate(newest=Max("last_seen"))["newest"]
    return newest


def stale_before() -> datetime | None:
    """STALE_AFTER before the fleet's newest reading, or None without GPUs. One query.

    A GPU whose last reading is older is stale. The fleet counts, not the clock, so a replayed capture is not all stale.
    """
    newest = newest_reading()
    return None if newest is None else newest - timedelta(seconds=settings.STALE_AFTER)


def state_of(gpu: GPU, cutoff: datetime | None) -> State:
    """Whether a GPU reports or is stale; ``cutoff`` comes from ``stale_before``."""
    return "stale" if cutoff is not None and gpu.last_seen < cutoff else "reporting"


def in_state(state: State, cutoff: datetime | None, prefix: str = "") -> Q:
    """The condition for GPUs in this state. ``prefix`` is the path to the GPU, as ``gpus__``. Raises ValueError."""
    if state not in STATES:
        raise ValueError(f"{state!r} is not a state: use {' or '.join(STATES)}")
    if cutoff is None:  # no GPUs, so none is stale
        return Q(pk__in=[]) if state == "stale" else Q()
    return Q((f"{prefix}last_seen__{'gte' if state == 'reporting' else 'lt'}", cutoff))


def gpus_for_list(
    *,
    hostnames: Sequence[str] = (),
    models: Sequence[str] = (),
    namespaces: Sequence[str] = (),
    pods: Sequence[str] = (),
    state: State | None = None,
    search: str = "",
    mig: bool = False,
    cutoff: datetime | None = None,
    after: ListPosition | None = None,
) -> QuerySet[GPU]:
    """Physical GPUs, and with ``mig`` their MIG instances, ordered by host, index and id, with their hosts loaded.

    GPUs without a host or index come first. ``after`` skips everything up to and including that position. Values of
    one filter are alternatives; all filters, and all words of ``search``, must match. A word matches in id, host name,
    model and pod, in any case. Namespace and pod are the current ones, including those that share the GPU or run on one
    of its instances. Passing ``cutoff`` (from ``stale_before``) saves a query. Raises ValueError for an unknown state.
    """
    gpus = GPU.objects.select_related("host").alias(**_POSITION).order_by(*_POSITION, "id")
    if after is not None:
        gpus = gpus.filter(
            Q(place_host__gt=after.host)
            | Q(place_host=after.host, place_index__gt=after.slot)
            | Q(place_host=after.host, place_index=after.slot, id__gt=after.id)
        )
    if not mig:
        gpus = gpus.filter(mig_id="")
    gpus = gpus.filter(**_given(host__name__in=hostnames, model_name__in=models))
    if namespaces or pods:
        gpus = gpus.filter(_runs(**_given(namespace__in=namespaces, pod__in=pods)))
    if state is not None:
        gpus = gpus.filter(in_state(state, cutoff or stale_before()))
    for word in search.split():
        gpus = gpus.filter(
            Q(id__icontains=word)
            | Q(host__name__icontains=word)
            | Q(model_name__icontains=word)
            | _runs(pod__icontains=word)
        )
    return gpus


class ListPosition(NamedTuple):
    """A GPU's position in a list. An unknown ``host`` is empty, an unknown ``slot`` (its index there) -1."""

    host: str
    slot: int
    id: str


# Databases disagree on where NULL sorts; this is the same order on each.
_POSITION = {"place_host": Coalesce("host__name", Value("")), "place_index": Coalesce("index", Value(-1))}


class GpuRow(NamedTuple):
    """One row of the GPU list, straight from the database. Timestamps are left as text (see ``parse_moment``)."""

    id: str
    uuid: str
    mig_id: str
    mig_profile: str
    slot: int | None
    device: str
    model_name: str
    hostname: str
    driver_version: str
    namespace: str
    pod: str
    container: str
    first_seen: str
    last_seen: str

    @property
    def position(self) -> ListPosition:
        """Its position in the list."""
        return ListPosition(self.hostname, -1 if self.slot is None else self.slot, self.id)


def gpu_rows(gpus: QuerySet[GPU]) -> list[GpuRow]:
    """The rows of a list, without model objects or datetimes: a thousand in a few milliseconds. One query."""
    rows = gpus.values_list(
        "id", "uuid", "mig_id", "mig_profile", "index", "device", "model_name", Coalesce("host__name", Value("")),
        "driver_version", "namespace", "pod", "container",
        Cast("first_seen", TextField()), Cast("last_seen", TextField()),
    )  # fmt: skip
    return [GpuRow._make(row) for row in rows]


def _given(**conditions: Sequence[str]) -> dict[str, Sequence[str]]:
    """The conditions that have values: an empty filter lets everything pass."""
    return {field: values for field, values in conditions.items() if values}


def _runs(**conditions: Any) -> Q:
    """GPUs where a pod runs that meets the conditions: by the row itself, a share or one of the MIG instances."""
    running = Placement.objects.filter(ended=None, **conditions)
    return Q(**conditions) | Q(pk__in=running.values("gpu_id")) | Q(mig_id="", uuid__in=running.values("gpu__uuid"))


MOST_CANDIDATES = 20


def find_gpu(name: str) -> GPU | list[str]:
    """The GPU of this id, or of the only id that begins with it; else the ids that do, at most 20. Two queries at most.

    ``name`` may leave out the ``GPU-`` that ids begin with. MIG instances are found by their whole id only.
    """
    gpu = GPU.objects.select_related("host").filter(pk=name).first()
    if gpu is not None:
        return gpu
    if len(name) < 4:
        return []
    begins = Q(id__istartswith=name) | Q(id__istartswith=f"GPU-{name}")
    found = list(GPU.objects.select_related("host").filter(begins, mig_id="").order_by("id")[:MOST_CANDIDATES])
    return found[0] if len(found) == 1 else [each.pk for each in found]


class PodPeriod(NamedTuple):
    """A pod ran on a GPU in [start, end), in nanoseconds; None: it still runs. ``share``: together with others."""

    gpu: str
    namespace: str
    pod: str
    container: str
    start_ns: int
    end_ns: int | None
    share: bool = False


def pods_between(
    start_ns: int, end_ns: int, *, namespaces: Sequence[str] = (), pods: Sequence[str] = (), most: int
) -> list[PodPeriod]:
    """The pods in the range, on each GPU where a pod of the filters ran. At most ``most`` rows. One query."""
    in_range = Q(started__lt=to_datetime(end_ns - 1) + _TICK) & (
        Q(ended=None) | Q(last_seen__gte=to_datetime(start_ns))
    )
    placements = Placement.objects.filter(in_range)
    wanted = _given(namespace__in=namespaces, pod__in=pods)
    if wanted:
        placements = placements.filter(gpu_id__in=Placement.objects.filter(in_range, **wanted).values("gpu_id"))
    rows = placements.order_by("gpu_id", "started").values_list(
        "gpu_id", "namespace", "pod", "container", "started", "ended", "share"
    )[:most]
    # Times are cut to the microsecond, so the last reading was before the next microsecond.
    return [
        PodPeriod(
            gpu, namespace, pod, container, to_ns(started), None if ended is None else to_ns(ended + _TICK), share
        )
        for gpu, namespace, pod, container, started, ended, share in rows
    ]


class Hosted(NamedTuple):
    """A GPU sat in a host in [start, end), in nanoseconds; None is no end."""

    gpu: str
    hostname: str
    start_ns: int
    end_ns: int | None


_MOST_GPUS_NAMED = 1000


def hosts_between(gpus: Set[str], start_ns: int, end_ns: int) -> list[Hosted]:
    """Where these GPUs sat in the range. Of many GPUs, it returns those of others too. One query."""
    residences = Residence.objects.filter(
        Q(until=None) | Q(until__gte=to_datetime(start_ns)),
        since__lt=to_datetime(end_ns - 1) + _TICK,
        host__isnull=False,
    )
    if len(gpus) <= _MOST_GPUS_NAMED:
        residences = residences.filter(gpu_id__in=gpus)
    rows = residences.values_list("gpu_id", "host__name", "since", "until")
    return [
        Hosted(gpu, host, to_ns(since), None if until is None else to_ns(until + _TICK))
        for gpu, host, since, until in rows
    ]


class FleetCounts(NamedTuple):
    """Hosts, and physical GPUs by state."""

    hosts: int
    gpus: int
    reporting: int
    stale: int
    newest: datetime | None


def fleet_counts() -> FleetCounts:
    """The size of the fleet. Three queries."""
    newest = newest_reading()
    cutoff = None if newest is None else newest - timedelta(seconds=settings.STALE_AFTER)
    counts = GPU.objects.filter(mig_id="").aggregate(
        gpus=Count("pk"), stale=Count("pk", filter=in_state("stale", cutoff))
    )
    return FleetCounts(Host.objects.count(), counts["gpus"], counts["gpus"] - counts["stale"], counts["stale"], newest)


class LatestReading(NamedTuple):
    """The newest reading of one metric of a GPU. ``unit`` is empty if unknown."""

    metric_name: str
    value: float
    unit: str
    time_ns: int


def latest_readings(gpu: GPU) -> list[LatestReading]:
    """The newest reading of each metric, sorted by name. No query."""
    return [
        LatestReading(name, float(value), unit_of(name), time_ns)
        for name, (value, time_ns) in sorted(gpu.latest.items())
    ]
