"""Writes what the engine said into the tables of events. Call it inside the transaction that also writes the engine's state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection
from django.utils import timezone

from health.engine.events import Change, Key, Touch, Transition
from health.models import ONGOING, Event, EventState, EventTransition
from health.rules.model import Rules
from readings.times import to_datetime

# Databases limit the parameters of a statement.
_AT_ONCE = 400
_CHANGED = ("severity", "state", "quiet", "last_seen", "closed", "count", "summary", "details")
_MOST_SUBJECT, _MOST_PLACE = 128, 255


class _EventIdentity(NamedTuple):
    """The identity of an event."""

    rule: str
    kind: str
    entity: str
    subject: str
    opened: datetime


def record(
    transitions: Sequence[Transition], touches: Sequence[Touch], rules: Rules
) -> list[tuple[Event, EventTransition]]:
    """Write transitions and touches; returns each step that was written, with its event. Raises DatabaseError.

    What a person closed meanwhile stays closed. Writing the same again changes nothing.
    """
    if not transitions and not touches:
        return []
    named = {_identity(each.key, each.opened_ns) for each in transitions}
    named |= {_identity(touch.key, touch.opened_ns) for touch in touches}
    known = _known(named)
    changed: dict[_EventIdentity, Event] = {}
    created: dict[_EventIdentity, Event] = {}
    steps: list[tuple[Event, EventTransition]] = []
    recorded = timezone.now()
    for each in transitions:
        identity = _identity(each.key, each.opened_ns)
        event = known.get(identity)
        if event is None:
            if each.change != Change.OPENED:
                continue  # of an event that a person, or retention, removed
            event = known[identity] = created[identity] = _new_event(each, identity, rules)
        elif each.change == Change.OPENED or (event.state == EventState.CLOSED and each.change != Change.REPEATED):
            continue
        else:
            _apply(each, event, rules)
            if identity not in created:
                changed[identity] = event
        if each.change != Change.REPEATED or _is_power_of_two(each.count):
            steps.append((event, _step(each, event, recorded)))
    for touch in touches:
        identity = _identity(touch.key, touch.opened_ns)
        event = known.get(identity)
        if event is not None and event.state != EventState.CLOSED:
            event.last_seen = max(event.last_seen, to_datetime(touch.last_ns))
            event.count = touch.count
            if identity not in created:
                changed[identity] = event
    # Closings first: at most one event of a key is ongoing.
    _update(changed.values())
    _close_strays(created.values(), recorded)
    Event.objects.bulk_create(created.values(), batch_size=_AT_ONCE)
    for event, step in steps:
        step.event = event
    EventTransition.objects.bulk_create([step for _, step in steps], batch_size=_AT_ONCE)
    return steps


def _identity(key: Key, opened_ns: int) -> _EventIdentity:
    return _EventIdentity(key.rule, key.entity.kind, key.entity.id, key.subject[:_MOST_SUBJECT], to_datetime(opened_ns))


def _known(named: set[_EventIdentity]) -> dict[_EventIdentity, Event]:
    """The events among these that there are, locked for this transaction."""
    found = {}
    for some in _batches(sorted({identity.entity for identity in named})):
        for event in Event.objects.select_for_update().filter(
            entity__in=some, opened__in={each.opened for each in named if each.entity in some}
        ):
            identity = _EventIdentity(event.rule, event.entity_kind, event.entity, event.subject, event.opened)
            if identity in named:
                found[identity] = event
    return found


def _update(events: Collection[Event]) -> None:
    """Write the changed columns of these events: row by row, which takes a twentieth of the time of Django's bulk_update."""
    if not events:
        return
    fields = [field for field in Event._meta.concrete_fields if field.name in _CHANGED]
    quote = connection.ops.quote_name
    columns = ", ".join(f"{quote(str(field.column))} = %s" for field in fields)
    statement = f"UPDATE {quote(Event._meta.db_table)} SET {columns} WHERE id = %s"  # noqa: S608 - names of our own columns
    rows = [
        [*(field.get_db_prep_save(getattr(event, field.attname), connection) for field in fields), event.pk]
        for event in events
    ]
    with connection.cursor() as cursor:
        cursor.executemany(statement, rows)


def _batches(names: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield list(names[start : start + _AT_ONCE])


def _new_event(each: Transition, identity: _EventIdentity, rules: Rules) -> Event:
    rule = rules.get(identity.rule)
    place = each.place
    action = each.values.get("action") or (rule.action if rule else "")
    return Event(
        rule=identity.rule,
        entity_kind=identity.kind,
        entity=identity.entity,
        subject=identity.subject,
        severity=each.severity,
        state=EventState.OPEN,
        hostname=place.hostname,
        slot=place.slot,
        model_name=place.model,
        namespace=place.namespace[:_MOST_PLACE],
        pod=place.pod[:_MOST_PLACE],
        opened=identity.opened,
        last_seen=to_datetime(each.at_ns),
        count=each.count,
        summary=each.text,
        details=_details(each),
        action=str(action),
        quiet=_is_quiet(each, rules),
    )


def _is_quiet(each: Transition, rules: Rules) -> bool:
    rule = rules.get(each.key.rule)
    return bool(rule and rule.quiet) or each.severity == "info"


def _details(each: Transition) -> dict[str, float | str]:
    return {name: value for name, value in each.values.items() if name != "action"}


def _apply(each: Transition, event: Event, rules: Rules) -> None:
    at = to_datetime(each.at_ns)
    event.severity = each.severity
    event.count = max(event.count, each.count)
    if each.change == Change.CLOSED:
        event.state, event.closed = EventState.CLOSED, max(at, event.opened)
    elif each.change == Change.LOST:
        event.state = EventState.UNKNOWN
    elif each.change == Change.REGAINED:
        event.state = EventState.OPEN
    else:
        event.last_seen = max(event.last_seen, at)
        if each.values:
            event.summary, event.details = each.text or event.summary, _details(each)
        event.quiet = _is_quiet(each, rules)


def _step(each: Transition, event: Event, recorded: datetime) -> EventTransition:
    return EventTransition(
        event=event,
        kind=each.change.value,
        at=to_datetime(each.at_ns),
        recorded=recorded,
        severity=each.severity,
        text=each.text,
    )


def _is_power_of_two(count: int) -> bool:
    """Of an event that happens again and again the 2nd, 4th, 8th … time is a step of its own: the rest is in its count."""
    return count > 0 and not count & (count - 1)


def _close_strays(created: Iterable[Event], recorded: datetime) -> None:
    """An ongoing event of the same key was left by an engine whose state is lost: the new one takes its place."""
    new = {(event.rule, event.entity_kind, event.entity, event.subject) for event in created}
    for some in _batches(sorted({entity for _, _, entity, _ in new})):
        for event in Event.objects.filter(state__in=ONGOING, entity__in=some):
            if (event.rule, event.entity_kind, event.entity, event.subject) in new:
                Event.objects.filter(pk=event.pk).update(state=EventState.CLOSED, closed=recorded)
                EventTransition.objects.create(
                    event=event,
                    kind=Change.CLOSED.value,
                    at=recorded,
                    recorded=recorded,
                    text="another event took its place",
                )
