"""Which notices go out together, and when: by group, or as one digest where messages would be many or come late. No clock, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from health.models import Event, Notice, Severity
from health.notify.outbox import LATE

# More messages than this at once are one digest.
MOST_AT_ONCE = 10
# Who catches up has more to come: a digest of late notices waits until nothing came for a while, at most so long.
LONGEST_CATCHING_UP = timedelta(minutes=10)
Group = tuple[str, ...]


class Batch(NamedTuple):
    """Notices that go out as one message."""

    notices: list[Notice]
    is_digest: bool


class Budget(NamedTuple):
    """How many messages may still go out in this hour: of any kind, and with something critical in them, which have a quarter for themselves."""

    ordinary: int
    critical: int


def budget_of(most: int, sent_last_hour: int) -> Budget:
    """What is left of ``most`` messages an hour."""
    return Budget(max(0, most - most // 4 - sent_last_hour), max(0, most - sent_last_hour))


def join_by_entity(
    groups: Mapping[int, Group], events: Mapping[int, Event], broader: Mapping[int, Group]
) -> Mapping[int, Group]:
    """Groups about the same GPUs (or hosts) as one, where their ``broader`` group is the same too.

    An XID, the memory error behind it and the reset that the driver asks for are one fault.
    """
    entities: dict[Group, set[str]] = {}
    for key, group in groups.items():
        entities.setdefault(group, set()).add(events[key].entity)
    return {key: (*broader[key], *sorted(entities[group])) for key, group in groups.items()}


def next_batch(
    notices: Sequence[Notice], groups: Mapping[int, Group], wait: timedelta, budget: Budget, now: datetime
) -> Batch | None:
    """The batch to send now, of the worst first; None while all wait. ``groups`` are those of the events, by their keys.

    ``wait`` is how long notices are collected.
    """
    late, by_group = [], dict[Group, list[Notice]]()
    for notice in notices:
        if notice.late or now - notice.created > LATE + wait:
            late.append(notice)
        else:
            by_group.setdefault(groups[notice.event_id], []).append(notice)
    ready = [Batch(found, False) for found in by_group.values() if min(notice.due for notice in found) <= now]
    if late and _is_settled(late, wait, now):
        # Behind what is late all else has waited too.
        found = [*late, *(notice for batch in ready for notice in batch.notices)]
        ready = [Batch(found, len({groups[notice.event_id] for notice in found}) > 1)]
    if not ready:
        return None
    worst = next((batch for batch in ready if _is_critical(batch.notices)), None)
    allowed = budget.ordinary if worst is None else budget.critical
    if not allowed:
        return None
    if len(ready) > min(MOST_AT_ONCE, allowed):
        return Batch([notice for batch in ready for notice in batch.notices], True)
    return worst or ready[0]


def _is_settled(late: Sequence[Notice], wait: timedelta, now: datetime) -> bool:
    created = [notice.created for notice in late]
    return max(created) + wait <= now or min(created) + LONGEST_CATCHING_UP <= now


def _is_critical(notices: Sequence[Notice]) -> bool:
    return any(notice.event.severity == Severity.CRITICAL for notice in notices)
