"""Merges the sightings of a GPU into its row. The newest reading wins; unknown never replaces known."""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime

from inventory.models import GPU, Host
from inventory.sync.seen import NOTHING, Observation, Seen

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
    return changed | _merge_pod(row, seen.observations, last_seen)


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


def _set(row: GPU, name: str, value: object) -> Set[str]:
    if getattr(row, name) == value:
        return _NONE
    setattr(row, name, value)
    return {name}
