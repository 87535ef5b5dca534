"""What lists and pages ask of the inventory: which GPUs, which of them are stale, and how each host is doing."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from django.conf import settings
from django.db.models import Count, Max, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Coalesce

from inventory.models import GPU, Host, Placement, Residence
from inventory.sync.seen import to_datetime, to_ns
from readings.catalogue import unit_of


@lru_cache(maxsize=32_768)
def parse_moment(text: str) -> datetime:
    """A DateTimeField cast to text, as SQLite (no zone, meaning UTC) and PostgreSQL (with its zone) write it."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


State = Literal["reporting", "stale"]
_TICK = timedelta(microseconds=1)
STATES: tuple[State, ...] = ("reporting", "stale")


def newest_reading() -> datetime | None:
    """The time of the fleet's newest reading; None while there is none. One query."""
    newest: datetime | None = GPU.objects.aggregate(newest=Max("last_seen"))["newest"]
    return newest


def stale_before() -> datetime | None:
    """A GPU is stale when its last reading is older than this: STALE_AFTER before the fleet's newest. One query.

    Measured against the fleet and not the clock, so a replayed capture is not all stale. None while there are no GPUs.
    """
    newest = newest_reading()
    return None if newest is None else newest - timedelta(seconds=settings.STALE_AFTER)


def state_of(gpu: GPU, cutoff: datetime | None) -> State:
    """Whether a GPU reports or is stale, by the cutoff that ``stale_before`` gave."""
    return "stale" if cutoff is not None and gpu.last_seen < cutoff else "reporting"


def in_state(state: State, cutoff: datetime | None, prefix: str = "") -> Q:
    """The condition for GPUs in that state; ``prefix`` is a path to the GPU, as ``gpus__``. Raises ValueError."""
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
    after: Place | None = None,
) -> QuerySet[GPU]:
    """Physical GPUs, with ``mig`` their MIG instances too, in the order host, index, id, each with its host at hand.
    What is in no host, or at no known index, comes first. ``after`` leaves out all up to and including that place.

    Several values of one filter are alternatives; filters, and the words of ``search``, must all hold. A word is looked
    for, whatever its case, in id, host name, model and pod. Namespace and pod are those that run there now, also those
    that share the GPU or run on one of its instances. ``cutoff`` saves a query where ``stale_before`` was already asked.
    Raises ValueError for an unknown state.
    """
    found = GPU.objects.select_related("host").alias(**_PLACE).order_by(*_PLACE, "id")
    if after is not None:
        found = found.filter(
            Q(place_host__gt=after.host)
            | Q(place_host=after.host, place_index__gt=after.slot)
            | Q(place_host=after.host, place_index=after.slot, id__gt=after.id)
        )
    if not mig:
        found = found.filter(mig_id="")
    if hostnames:
        found = found.filter(host__name__in=hostnames)
    if models:
        found = found.filter(model_name__in=models)
    if namespaces or pods:
        conditions: dict[str, Any] = {}
        if namespaces:
            conditions["namespace__in"] = namespaces
        if pods:
            conditions["pod__in"] = pods
        found = found.filter(_runs(**conditions))
    if state is not None:
        found = found.filter(in_state(state, cutoff or stale_before()))
    for word in search.split():
        found = found.filter(
            Q(id__icontains=word)
            | Q(host__name__icontains=word)
            | Q(model_name__icontains=word)
            | _runs(pod__icontains=word)
        )
    return found


class Place(NamedTuple):
    """Where a GPU stands in a list. ``host`` is empty and ``slot`` (its index there) -1 where they are not known."""

    host: str
    slot: int
    id: str


# The same order on every database: they disagree on where NULL stands.
_PLACE = {"place_host": Coalesce("host__name", Value("")), "place_index": Coalesce("index", Value(-1))}


class GpuRow(NamedTuple):
    """What lists tell of a GPU, as the database gives it; the times as its text (see inventory.queries)."""

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
    def place(self) -> Place:
        """Where it stands in a list."""
        return Place(self.hostname, -1 if self.slot is None else self.slot, self.id)


def gpu_rows(found: QuerySet[GPU]) -> list[GpuRow]:
    """The rows of a list. No model object, no datetime: a thousand rows in a few milliseconds. One query."""
    rows = found.values_list(
        "id", "uuid", "mig_id", "mig_profile", "index", "device", "model_name", Coalesce("host__name", Value("")),
        "driver_version", "namespace", "pod", "container",
        Cast("first_seen", TextField()), Cast("last_seen", TextField()),
    )  # fmt: skip
    return [GpuRow._make(row) for row in rows]


def _runs(**conditions: Any) -> Q:
    """GPUs on which something runs of which the conditions hold: by their own row, a share, or one of their instances."""
    running = Placement.objects.filter(ended=None, **conditions)
    return Q(**conditions) | Q(pk__in=running.values("gpu_id")) | Q(mig_id="", uuid__in=running.values("gpu__uuid"))


class Occupied(NamedTuple):
    """What ran on a GPU in [start, end), in nanoseconds; None is no end."""

    gpu: str
    namespace: str
    pod: str
    container: str
    start_ns: int
    end_ns: int | None


def occupied_between(
    start_ns: int, end_ns: int, *, namespaces: Sequence[str] = (), pods: Sequence[str] = (), most: int
) -> list[Occupied]:
    """All that ran in the range on each GPU where something ran that was asked for; ``most`` at most. One query."""
    in_range = Q(started__lt=to_datetime(end_ns - 1) + _TICK) & (
        Q(ended=None) | Q(last_seen__gte=to_datetime(start_ns))
    )
    found = Placement.objects.filter(in_range)
    asked: dict[str, Any] = {}
    if namespaces:
        asked["namespace__in"] = namespaces
    if pods:
        asked["pod__in"] = pods
    if asked:
        found = found.filter(gpu_id__in=Placement.objects.filter(in_range, **asked).values("gpu_id"))
    rows = found.order_by("gpu_id", "started").values_list(
        "gpu_id", "namespace", "pod", "container", "started", "ended"
    )[:most]
    # Times are cut to the microsecond: what was seen last was seen before the next one.
    return [
        Occupied(gpu, namespace, pod, container, to_ns(started), None if ended is None else to_ns(ended + _TICK))
        for gpu, namespace, pod, container, started, ended in rows
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
    found = Residence.objects.filter(
        Q(until=None) | Q(until__gte=to_datetime(start_ns)),
        since__lt=to_datetime(end_ns - 1) + _TICK,
        host__isnull=False,
    )
    if len(gpus) <= _MOST_GPUS_NAMED:
        found = found.filter(gpu_id__in=gpus)
    rows = found.values_list("gpu_id", "host__name", "since", "until")
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
    """How large the fleet is. Three queries."""
    newest = newest_reading()
    cutoff = None if newest is None else newest - timedelta(seconds=settings.STALE_AFTER)
    counts = GPU.objects.filter(mig_id="").aggregate(
        gpus=Count("pk"), stale=Count("pk", filter=in_state("stale", cutoff))
    )
    return FleetCounts(Host.objects.count(), counts["gpus"], counts["gpus"] - counts["stale"], counts["stale"], newest)


class LatestReading(NamedTuple):
    """The newest reading of one metric of a GPU; ``unit`` is empty where the metric is not known."""

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
