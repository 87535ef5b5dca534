"""The tags of what events are about: the GPU's own, and for the others those of its board and host."""

from __future__ import annotations

from collections.abc import Iterable

from health.models import Event
from health.muting import gpus_of_event
from inventory.models import GPU, Host

_AT_ONCE = 500  # names in one query


def tags_by_event(events: Iterable[Event]) -> dict[int, dict[str, str]]:
    """The tags of each event by its key, as they are now. Two queries for every 500 hosts and GPUs. Raises DatabaseError."""
    listed = list(events)
    hosts = _tags(Host, "name", {event.hostname for event in listed if event.hostname})
    gpus = _tags(GPU, "pk", {gpu for event in listed for gpu in gpus_of_event(event)})
    found = {}
    for event in listed:
        tags = dict(hosts.get(event.hostname, {}))
        for gpu in reversed(gpus_of_event(event)):  # the board's, and over them its own
            tags |= gpus.get(gpu, {})
        found[event.pk] = {name: str(value) for name, value in tags.items()}
    return found


def _tags(model: type[Host] | type[GPU], key: str, names: set[str]) -> dict[str, dict[str, str]]:
    ordered = sorted(names)
    found: dict[str, dict[str, str]] = {}
    for start in range(0, len(ordered), _AT_ONCE):
        rows = model.objects.filter(**{f"{key}__in": ordered[start : start + _AT_ONCE]}).exclude(tags={})
        found |= dict(rows.order_by().values_list(key, "tags"))
    return found
