"""Queries of lists and pages: which GPUs there are, which of them are stale, and which pods ran on them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
from django.db import connections, router
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, TextField, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Coalesce

from inventory.models import GPU, Host, Placement, Residence
from inventory.newest import HostNewest, fresh_since_of, newest_by_host
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


@dataclass(frozen=True, slots=True)
class Ages:
    """When each GPU was last seen, and from when on its readings are fresh, in ns by id; and which are stale now."""

    last_seen_ns: Mapping[str, int]
    fresh_since_ns: Mapping[str, int]
    stale: Set[str]

    @property
    def newest_ns(self) -> int | None:
        """The time of the fleet's newest reading; None without GPUs."""
        return max(self.last_seen_ns.values(), default=None)

    def state_of(self, gpu_id: str) -> State:
        """Whether a GPU reports or is stale."""
        return "stale" if gpu_id in self.stale else "reporting"


def ages_now() -> Ages:
    """The ages of the whole fleet, as ``stale_mask`` judges them. A few queries."""
    return ages_of(newest_by_host().values())


def ages_of(hosts: Collection[HostNewest]) -> Ages:
    """The same from the newest readings of all hosts: those of a source age by the source's newest."""
    if not hosts:
        return Ages({}, {}, frozenset())
    ids = list(chain.from_iterable(host.gpu_ids for host in hosts))
    last_seen = np.concatenate([host.last_seen_ns for host in hosts])
    since = fresh_since_of(hosts)
    return Ages(
        dict(zip(ids, last_seen.tolist(), strict=True)),
        dict(zip(ids, since.tolist(), strict=True)),
        frozenset(ids[row] for row in np.flatnonzero(last_seen < since).tolist()),
    )


def newest_reading() -> datetime | None:
    """The time of the fleet's newest reading, or None without GPUs."""
    newest_ns = ages_now().newest_ns
    return None if newest_ns is None else to_datetime(newest_ns)


def in_state(state: State, ages: Ages, prefix: str = "") -> Q:
    """The condition for GPUs in this state. ``prefix`` is the path to the GPU, as ``gpus__``. Raises ValueError."""
    if state not in STATES:
        raise ValueError(f"{state!r} is not a state: use {' or '.join(STATES)}")
    # One parameter for all ids: databases limit the number of parameters.
    vendor = connections[router.db_for_read(GPU)].vendor
    elements = (
        "SELECT json_array_elements_text(%s::json)" if vendor == "postgresql" else "SELECT value FROM json_each(%s)"
    )
    stale = Q((f"{prefix}pk__in", RawSQL(elements, [json.dumps(sorted(ages.stale))])))  # noqa: S611 - no text of others
    return stale if state == "stale" else ~stale


def gpus_for_list(
    *,
    hostnames: Sequence[str] = (),
    models: Sequence[str] = (),
    namespaces: Sequence[str] = (),
    pods: Sequence[str] = (),
    state: State | None = None,
    search: str = "",
    mig: bool = False,
    ages: Ages | None = None,
    after: ListPosition | None = None,
) -> QuerySet[GPU]:
    """Physical GPUs, and with ``mig`` their MIG instances, ordered by host, index and id, with their hosts loaded.

    GPUs without a host or index come first. ``after`` skips everything up to and including that position. Values of
    one filter are alternatives; all filters, and all words of ``search``, must match. A word matches in id, host name,
    model and pod, in any case. Namespace and pod are the current ones, including those that share the GPU or run on one
    of its instances. Passing ``ages`` saves queries. Raises ValueError for an unknown state.
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
        gpus = gpus.filter(in_state(state, ages or ages_now()))
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


class BoardCounts(NamedTuple):
    """How many physical GPUs and MIG instances."""

    boards: int
    instances: int


def count_boards(
    *, hostnames: Sequence[str] = (), models: Sequence[str] = (), uuids: Sequence[str] = ()
) -> BoardCounts:
    """The GPUs that the filters choose, by where they are now. One query."""
    gpus = GPU.objects.filter(**_given(host__name__in=hostnames, model_name__in=models, uuid__in=uuids))
    return BoardCounts(*gpus.aggregate(boards=Count("pk", Q(mig_id="")), instances=Count("pk", ~Q(mig_id=""))).values())


def instances_of(uuids: Sequence[str]) -> list[str]:
    """The ids of the MIG instances of these boards. One query."""
    return list(GPU.objects.filter(uuid__in=uuids).exclude(mig_id="").values_list("pk", flat=True))


def has_moved(start_ns: int, end_ns: int, hostnames: Sequence[str] = ()) -> bool:
    """Whether any GPU left one of these hosts (none: any host) for another one in the range. One query."""
    left = Residence.objects.filter(until__gte=to_datetime(start_ns), since__lt=to_datetime(end_ns - 1) + _TICK)
    elsewhere = Residence.objects.filter(gpu=OuterRef("gpu")).exclude(host=OuterRef("host"))
    return left.filter(Exists(elsewhere), **_given(host__name__in=hostnames)).exists()


class FleetCounts(NamedTuple):
    """Hosts, and physical GPUs by state."""

    hosts: int
    gpus: int
    reporting: int
    stale: int
    newest: datetime | None


def fleet_counts() -> FleetCounts:
    """The size of the fleet. A few queries."""
    ages = ages_now()
    physical = set(GPU.objects.filter(mig_id="").values_list("pk", flat=True))
    stale = len(physical & ages.stale)
    newest_ns = ages.newest_ns
    newest = None if newest_ns is None else to_datetime(newest_ns)
    return FleetCounts(Host.objects.count(), len(physical), len(physical) - stale, stale, newest)


class LatestReading(NamedTuple):
    """The newest reading of one metric of a GPU. ``unit`` is empty if unknown."""

    metric_name: str
    value: float
    unit: str
    time_ns: int


def latest_readings(gpu: GPU) -> list[LatestReading]:
    """The newest reading of each metric, sorted by name. Three queries."""
    hostname = gpu.host.name if gpu.host else ""
    newest = newest_by_host([hostname]).get(hostname)
    if newest is None or gpu.pk not in newest.gpu_ids:
        return []
    row = newest.gpu_ids.index(gpu.pk)
    readings = zip(newest.metric_names, newest.values[row].tolist(), newest.times_ns[row].tolist(), strict=True)
    return [LatestReading(name, value, unit_of(name), time_ns) for name, value, time_ns in sorted(readings) if time_ns]
