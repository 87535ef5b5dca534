"""What of the fleet needs attention: the worst open events by host and rule, and what is gone without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from api.fleet import event_marks
from dashboard.event_rows import EventGroup, EventRows, grouped, slot_words
from dashboard.templatetags.dashboard import host_url
from health.models import EntityKind, Event, Severity
from health.queries import MARKS, Ongoing, ongoing_events, ongoing_now
from health.rule_table import rules_now
from inventory.fleet import Fleet, SlotState
from readings.times import to_datetime

MOST_GROUPS = 6
_Mask = NDArray[np.bool_]
# Whose events say already that a host's GPUs are gone.
_GPU_GONE, _HOST_GONE = "gpu_missing", "host_stale"
_ABSENCE = {_GPU_GONE, _HOST_GONE}
_SOURCE_GONE = "source_silent"


@dataclass(frozen=True, slots=True)
class FleetAttention:
    """What is shown of it: groups, the worst first, and how many more events there are."""

    groups: list[EventGroup]
    more: int
    expected: int
    held: int
    held_hosts: int


def needs_attention(fleet: Fleet, chosen: _Mask, now: datetime) -> FleetAttention:
    """Of the slots chosen and their hosts. Events of severity info are only in their own list. Raises DatabaseError."""
    names = {fleet.hosts[number].name for number in np.unique(fleet.host[chosen]).tolist()}
    is_whole = bool(chosen.all())
    serious = [event for event in ongoing_events() if event.severity != Severity.INFO]
    events = serious if is_whole else [event for event in serious if _is_of(event, fleet, chosen, names)]
    found = grouped(EventRows(now).rows(events))
    gone = _gone(fleet, chosen, serious)
    groups = sorted([*found, *gone], key=lambda group: (MARKS[group.severity], bool(group.handled)))
    shown = groups[:MOST_GROUPS]
    total = _serious(ongoing_now()) if is_whole else len(events)
    held = fleet.is_held() & chosen
    return FleetAttention(
        groups=shown,
        more=total + sum(group.events for group in gone) - sum(group.events for group in shown),
        expected=int(np.count_nonzero(chosen)),
        held=int(np.count_nonzero(held)),
        held_hosts=len(np.unique(fleet.host[held])),
    )


def gpus_in_need(fleet: Fleet, chosen: _Mask, ongoing: Ongoing) -> int:
    """How many GPUs are missing or stale, or have an event above info."""
    gone = (fleet.state == SlotState.MISSING) | (fleet.state == SlotState.STALE)
    marks = event_marks(fleet, ongoing)
    marked = (marks == MARKS[Severity.CRITICAL]) | (marks == MARKS[Severity.WARNING])
    return int(np.count_nonzero(chosen & (gone | marked)))


def _serious(ongoing: Ongoing) -> int:
    return ongoing.total.critical + ongoing.total.warning


def _is_of(event: Event, fleet: Fleet, chosen: _Mask, names: set[str]) -> bool:
    if event.entity_kind == EntityKind.GPU:
        row = fleet.slots.row_of.get(event.entity)
        return row is not None and bool(chosen[row])
    return event.hostname in names


def _gone(fleet: Fleet, chosen: _Mask, events: list[Event]) -> list[EventGroup]:
    """Hosts with missing or stale slots of which no event says so, as while nothing judges."""
    told = {event.hostname for event in events if event.rule in _ABSENCE}
    sources_gone = any(event.rule == _SOURCE_GONE for event in events)
    explained = _explained(fleet, events)
    found: dict[int, list[int]] = {}
    for row in np.flatnonzero(chosen & (fleet.state == SlotState.MISSING)).tolist():
        if row in explained:
            continue
        found.setdefault(int(fleet.host[row]), []).append(row)
    groups = [_missing(fleet, host, rows) for host, rows in found.items() if fleet.hosts[host].name not in told]
    if sources_gone:
        return groups
    for host in np.unique(fleet.host[chosen & (fleet.state == SlotState.STALE)]).tolist():
        if host not in found and fleet.hosts[host].name not in told:
            groups.append(_silent(fleet, host))
    return groups


def _explained(fleet: Fleet, events: list[Event]) -> set[int | None]:
    """The slots whose GPU has an event that explains its absence, as one that fell off the bus."""
    causes = set(rules_now()[_GPU_GONE].inhibited_by)
    return {
        fleet.slots.row_of.get(event.entity)
        for event in events
        if event.entity_kind == EntityKind.GPU and causes & {event.rule, f"{event.rule}:{event.subject}"}
    }


_NO_EVENT = EventGroup(
    rule="", title="", severity="", hostname="", source="", slots="", events=1, count=1, opened=None, summary="", action="", url=""
)  # fmt: skip


def _missing(fleet: Fleet, host: int, rows: list[int]) -> EventGroup:
    seen = [ns for row in rows if (ns := int(fleet.last_seen_ns[row]))]
    all_rows = fleet.hosts[host].rows
    reporting = int(np.count_nonzero(fleet.state[all_rows] == SlotState.REPORTING))
    name = fleet.hosts[host].name
    return replace(
        _NO_EVENT,
        title="GPU missing" if len(rows) == 1 else f"{len(rows)} GPUs missing",
        severity=str(Severity.CRITICAL),
        hostname=name,
        slots=slot_words(sorted(int(fleet.slot[row]) for row in rows), "slot"),
        opened=to_datetime(min(seen)) if seen else None,
        summary=f"{reporting} of {all_rows.stop - all_rows.start} GPUs of this host report",
        action=rules_now()[_GPU_GONE].action_text,
        url=host_url(name),
    )


def _silent(fleet: Fleet, host: int) -> EventGroup:
    of = fleet.hosts[host]
    count = of.rows.stop - of.rows.start
    return replace(
        _NO_EVENT,
        title="Host silent",
        severity=str(Severity.WARNING),
        hostname=of.name,
        opened=to_datetime(of.last_seen_ns) if of.last_seen_ns else None,
        summary=f"None of its {count} GPU{'' if count == 1 else 's'} reports",
        action=rules_now()[_HOST_GONE].action_text,
        url=host_url(of.name),
    )


def filters_of(query: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The filters of the fleet's page in a URL, as ``select_slots`` takes them."""
    return {f"{name}s": query.get(name, []) for name in ("model", "namespace", "pod")}
