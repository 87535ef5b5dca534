"""Merges the sightings of a GPU into its row. The newest reading wins; unknown never replaces known."""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime

from inventory.models import GPU, Host
from inventory.sync.seen import NOTHING, Observation, Seen
from readings.catalogue import is_counter

_NONE: frozenset[str] = frozenset()


def merge_seen(row: GPU, seen: Seen, hosts: Mapping[str, Host]) -> Set[str]:
    """Updates the row; returns the changed fields. ``hosts`` holds every host that ``seen`` names."""
    observations = seen.observations or seen.shares  # shares alone only fill a row that was just created
    last_seen = row.last_seen
    newer = observations[-1].last >= last_seen
    changed = _set(row, "first_seen", min(row.first_seen, seen.first)) | _set(
        row, "last_seen", max(last_seen, seen.last)
    )
    changed |= _merge_slot(row, observations, hosts, newer=newer)
    for name, text in seen.described.items():
        if text and (newer or not getattr(row, name)):
            changed |= _set(row, name, text)
    if seen.labels and (newer or not row.labels):
        changed |= _set(row, "labels", seen.labels)
    changed |= _merge_pod(row, seen.observations, last_seen)
    return changed | _merge_latest(row, seen)


def counter_resets(row: GPU, seen: Seen) -> int:
    """How many counters restarted: they are lower now than in the row."""
    latest = row.latest
    count = 0
    for name, (value, time_ns) in seen.latest.items():
        if is_counter(name):
            previous = latest.get(name)
            count += previous is not None and time_ns > previous[1] and value < previous[0]
    return count


def _merge_slot(row: GPU, observations: list[Observation], hosts: Mapping[str, Host], *, newer: bool) -> Set[str]:
    changed: Set[str] = _NONE
    hostname = next((each.hostname for each in reversed(observations) if each.hostname), "")
    if hostname and (newer or row.host_id is None):
        changed |= _set(row, "host_id", hosts[hostname].pk)
    slot = next((each.slot for each in reversed(observations) if each.slot is not None), None)
    if slot is not None and (newer or row.index is None):
        changed |= _set(row, "index", slot)
    return changed


def _merge_pod(row: GPU, observations: list[Observation], last_seen: datetime) -> Set[str]:
    """Unlike a host, a pod may end: the newest observation about pods decides, also when it names none."""
    for each in reversed(observations):
        if each.pod is None:
            continue
        if each.last < last_seen or (each.last == last_seen and each.pod == NOTHING):
            return _NONE
        namespace, pod, container = each.pod
        return _set(row, "namespace", namespace) | _set(row, "pod", pod) | _set(row, "container", container)
    return _NONE


def _merge_latest(row: GPU, seen: Seen) -> Set[str]:
    changed: Set[str] = _NONE
    latest = row.latest
    for name, (value, time_ns) in seen.latest.items():
        previous = latest.get(name)
        # At equal times the new value replaces the old one, as in the stores.
        if previous is None or time_ns > previous[1] or (time_ns == previous[1] and value != previous[0]):
            latest[name] = [value, time_ns]
            changed = {"latest"}
    return changed


def _set(row: GPU, name: str, value: object) -> Set[str]:
    if getattr(row, name) == value:
        return _NONE
    setattr(row, name, value)
    return {name}
