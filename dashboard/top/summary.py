"""What ``manage.py top`` shows, as data: also the object that ``--json`` prints."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from dashboard.top.feed import Counts, EventCounts, EventNow, FleetNow, GpuColumns, PipelineNow, Snapshot, Totals
from inventory.fleet import HELD_MIB, SlotState

_SEVERITIES = ("", "critical", "warning", "info")  # by the number of a mark
_ABSENCE = {"gpu_missing", "host_stale"}
_KINDS = {SlotState.STALE: "stale", SlotState.MISSING: "missing"}


class TopGpu(msgspec.Struct):
    """A GPU in one of the lists. Null: no reading, or an old one. ``slot`` is -1 where unknown. ``event``: the worst that is open."""

    hostname: str
    slot: int
    id: str
    namespace: str
    pod: str
    utilisation: float | None
    temperature: float | None
    power_watts: float | None
    memory_used_mib: float | None
    memory_total_mib: float | None
    event: str = ""


class Attention(msgspec.Struct):
    """Something that somebody should look at: a severity (open events of one rule on one host), ``missing`` or ``stale`` (slots of a
    host that no event is about), ``broker``, ``collector`` or ``pipeline``."""

    kind: str
    hostname: str
    slots: list[int]
    text: str


class HeldByNamespace(msgspec.Struct):
    """What a namespace holds without using it; an empty one for GPUs whose pods are not known."""

    namespace: str
    gpus: int
    memory_used_mib: float


class PipelineFigures(msgspec.Struct):
    """The way of the readings. ``lag_messages`` is that of the collector that is furthest behind; null: not known."""

    broker_available: bool
    collectors: int
    collectors_connected: int
    lag_messages: int | None
    readings_stored: int
    readings_refused: int
    refused: dict[str, int]


class Summary(msgspec.Struct):
    """One frame. ``time`` is when it was made and ``newest`` the newest reading (RFC 3339)."""

    time: str
    source: str
    newest: str | None
    newest_age_seconds: float | None
    live: bool
    counts: Counts
    totals: Totals
    attention: list[Attention]
    busiest: list[TopGpu]
    hottest: list[TopGpu]
    idle_held: list[TopGpu]
    idle_held_by_namespace: list[HeldByNamespace]
    pipeline: PipelineFigures | None
    events: EventCounts = msgspec.field(default_factory=EventCounts)


def summarise(snapshot: Snapshot, *, time: str, source: str, rows: int) -> Summary:
    """The frame of a snapshot, with at most ``rows`` GPUs in each list."""
    fleet, pipeline = snapshot.fleet, snapshot.pipeline
    gpus = fleet.gpus
    held = _held(gpus)
    return Summary(
        time=time,
        source=source,
        newest=fleet.newest,
        newest_age_seconds=None if pipeline is None else pipeline.store.newest_age_seconds,
        live=fleet.live,
        counts=fleet.counts,
        totals=fleet.totals,
        attention=[*_of_pipeline(snapshot), *_of_events(snapshot.events), *_of_slots(fleet, snapshot.events)],
        busiest=_largest(fleet, range(len(gpus.id)), gpus.utilisation, gpus.power, rows),
        hottest=_largest(fleet, range(len(gpus.id)), gpus.temperature, gpus.power, rows),
        idle_held=_largest(fleet, held, gpus.memory_used, gpus.power, rows),
        idle_held_by_namespace=_by_namespace(fleet, held),
        pipeline=None if pipeline is None else _pipeline(pipeline),
        events=fleet.events,
    )


def _held(gpus: GpuColumns) -> list[int]:
    """The rows of GPUs that do nothing and hold memory."""
    return [
        row
        for row, (utilisation, used) in enumerate(zip(gpus.utilisation, gpus.memory_used, strict=True))
        if utilisation == 0 and used is not None and used > HELD_MIB
    ]


def _largest(
    fleet: FleetNow, rows: Iterable[int], by: Sequence[float | None], then: Sequence[float | None], count: int
) -> list[TopGpu]:
    """The GPUs with the largest value. One without the value is in no list; equal ones are in the fleet's order."""
    known = [(value, then[row] or 0.0, -row) for row in rows if (value := by[row]) is not None]
    return [_gpu(fleet, -row) for _, _, row in heapq.nlargest(count, known)]


def _gpu(fleet: FleetNow, row: int) -> TopGpu:
    gpus = fleet.gpus
    return TopGpu(
        hostname=fleet.hosts[gpus.host[row]].name,
        slot=gpus.slot[row],
        id=gpus.id[row],
        namespace=_name(fleet.namespaces, gpus.namespace[row]),
        pod=_name(fleet.pods, gpus.pod[row]),
        utilisation=gpus.utilisation[row],
        temperature=gpus.temperature[row],
        power_watts=gpus.power[row],
        memory_used_mib=gpus.memory_used[row],
        memory_total_mib=gpus.memory_total[row],
        event=_SEVERITIES[gpus.mark[row]] if row < len(gpus.mark) else "",
    )


def _name(names: Sequence[str], place: int) -> str:
    return names[place] if place >= 0 else ""


def _by_namespace(fleet: FleetNow, held: Iterable[int]) -> list[HeldByNamespace]:
    """The namespaces that hold GPUs, the one with the most first."""
    counts: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for row in held:
        name = _name(fleet.namespaces, fleet.gpus.namespace[row])
        counts[name] += 1
        memory[name] += round(fleet.gpus.memory_used[row] or 0)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return [HeldByNamespace(name, counts[name], memory[name]) for name in ranked]


def _of_events(events: Sequence[EventNow]) -> list[Attention]:
    """A line for each rule and host, the worst first."""
    groups: dict[tuple[str, str], list[EventNow]] = defaultdict(list)
    for event in sorted(events, key=lambda event: _SEVERITIES.index(event.severity)):
        groups[event.rule, event.hostname].append(event)
    return [
        Attention(
            kind=group[0].severity,
            hostname=group[0].hostname,
            slots=(slots := sorted({event.slot for event in group if event.slot is not None})),
            text=_event_words(group, slots),
        )
        for group in groups.values()
    ]


def _event_words(group: Sequence[EventNow], slots: Sequence[int]) -> str:
    where = f", gpu{'s' if len(slots) > 1 else ''} {', '.join(map(str, slots))}" if slots else ""
    since = min(event.opened for event in group)
    return f"{group[0].title}{where}, since {since[:16].replace('T', ' ')}: {group[0].summary}"


def _of_slots(fleet: FleetNow, events: Sequence[EventNow]) -> list[Attention]:
    """Missing slots by host, then hosts that went silent; without those that events are about."""
    gpus = fleet.gpus
    told = {event.hostname for event in events if event.rule in _ABSENCE}
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, state in enumerate(gpus.state):
        if state in _KINDS:
            found[-state, gpus.host[row]].append(row)
    return [
        Attention(
            kind=_KINDS[SlotState(-state)],
            hostname=fleet.hosts[host].name,
            slots=[gpus.slot[row] for row in rows],
            text=_what_is_wrong(SlotState(-state), [gpus.slot[row] for row in rows], [gpus.id[row] for row in rows]),
        )
        for (state, host), rows in sorted(found.items())
        if fleet.hosts[host].name not in told
    ]


def _what_is_wrong(state: SlotState, slots: Sequence[int], ids: Sequence[str]) -> str:
    if state is SlotState.STALE:
        return f"no GPU reports ({len(slots)} expected)"
    known = [slot for slot in slots if slot >= 0]
    where = f"gpu{'s' if len(known) > 1 else ''} {', '.join(map(str, known))}"
    if not known:
        where = f"{len(slots)} GPU{'s' if len(slots) > 1 else ''} of unknown slot"
    if not any(ids):
        return f"{where}: no GPU was ever seen there"
    return f"{where}: {', '.join(each or 'never seen' for each in ids)}"


def _of_pipeline(snapshot: Snapshot) -> list[Attention]:
    pipeline = snapshot.pipeline
    if pipeline is None:
        return [Attention("pipeline", "", [], snapshot.pipeline_error)]
    if not pipeline.broker.available:
        return [Attention("broker", "", [], f"the broker does not answer: {pipeline.broker.error}")]
    away = [each.id for each in pipeline.subscribers if not each.connected]
    if away:
        return [Attention("collector", "", [], f"not connected to the broker: {', '.join(away)}")]
    if all(each.judges for each in pipeline.subscribers):
        return [Attention("collector", "", [], "no collector has subscribed")]
    return []


def _pipeline(pipeline: PipelineNow) -> PipelineFigures:
    collectors = [each for each in pipeline.subscribers if not each.judges]
    lags = [each.lag for each in collectors if each.lag is not None]
    return PipelineFigures(
        broker_available=pipeline.broker.available,
        collectors=len(collectors),
        collectors_connected=sum(each.connected for each in collectors),
        lag_messages=max(lags, default=None),
        readings_stored=pipeline.readings.stored,
        readings_refused=sum(pipeline.readings.refused.values()),
        refused=pipeline.readings.refused,
    )
