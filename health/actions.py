"""What people do to events: acknowledge, resolve, note. Each is one transaction, whatever ``watch`` writes to the same rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from health.models import ONGOING, Event, EventState, EventTransition, Mute, Notice, Resolution, TransitionKind
from health.muting import check_room, mute_for, mutes_changed
from inventory.assets import NOTHING, history_message

MOST_NOTE = 4000
# Locked in one transaction: ``watch`` waits for no more.
_AT_ONCE = 500


class EventIsClosed(Exception):
    """The event is over, so there is nothing to acknowledge or resolve."""


class ActionCount(NamedTuple):
    """How many events of those given an action changed, and how many were over or as wanted already."""

    changed: int
    unchanged: int


def acknowledge(event: Event, user: str, note: str = "", *, user_id: int | None = None) -> Event:
    """Note that somebody looks after an event. Returns the event as it is then. Raises EventIsClosed, DatabaseError.

    What is acknowledged stays with who did it first; a note is kept all the same. With ``user_id`` the change is in the admin's
    history too.
    """
    with transaction.atomic():
        found = _locked([event.pk])
        if not found:
            raise EventIsClosed
        fresh = [each for each in found if each.acknowledged is None]
        _acknowledge(fresh, user, note, user_id)
        if not fresh and note:
            _record(found, TransitionKind.NOTED, timezone.now(), user, note, user_id)
    return found[0]


def resolve(event: Event, user: str, note: str = "", *, user_id: int | None = None) -> Event:
    """Close an event: somebody knows that it is over. Returns the event as it is then. Raises EventIsClosed, DatabaseError.

    ``watch`` takes the Resolution up, so that the rule begins anew.
    """
    with transaction.atomic():
        found = _locked([event.pk])
        if not found:
            raise EventIsClosed
        _resolve(found, user, note, user_id)
    return found[0]


def add_note(event: Event, user: str, note: str, *, user_id: int | None = None) -> Event:
    """Keep a note with an event, which may be over. Returns the event. Raises DatabaseError."""
    with transaction.atomic():
        _record([event], TransitionKind.NOTED, timezone.now(), user, note, user_id)
    return event


def acknowledge_all(keys: Collection[int], user: str, note: str = "", *, user_id: int | None = None) -> ActionCount:
    """Acknowledge the events with these keys. Queries grow with hundreds of events, not with each. Raises DatabaseError."""
    changed = 0
    for some in _batches(keys):
        with transaction.atomic():
            fresh = [each for each in _locked(some) if each.acknowledged is None]
            _acknowledge(fresh, user, note, user_id)
        changed += len(fresh)
    return ActionCount(changed, len(keys) - changed)


def resolve_all(keys: Collection[int], user: str, note: str = "", *, user_id: int | None = None) -> ActionCount:
    """Resolve the events with these keys, as ``acknowledge_all`` does."""
    changed = 0
    for some in _batches(keys):
        with transaction.atomic():
            found = _locked(some)
            _resolve(found, user, note, user_id)
        changed += len(found)
    return ActionCount(changed, len(keys) - changed)


def mute_all(
    events: Sequence[Event], until: datetime, user: str, note: str = "", *, user_id: int | None = None
) -> list[Mute]:
    """Mute the rule of each event on its GPU, slot or host until then. Returns the new mutes. Raises MuteError, DatabaseError."""
    now = timezone.now()
    wanted = {}
    for event in events:
        mute = mute_for(event, until - now, user, note, now)
        wanted[mute.rule, mute.gpu, mute.hostname] = mute
    with transaction.atomic():
        check_room(len(wanted))
        mutes = Mute.objects.bulk_create(wanted.values(), batch_size=_AT_ONCE)
        _log(mutes, ADDITION, [{"added": {}}], user_id)
    mutes_changed()
    return mutes


def send_again(keys: Collection[int]) -> int:
    """Have notices that are done with sent once more, in a message of their own. Returns how many those are. Raises DatabaseError.

    What still waits is left alone: it may be on its way.
    """
    now = timezone.now()
    anew = {"sent": None, "outcome": "", "attempts": 0, "last_error": "", "created": now, "due": now}
    anew |= {"message": "", "tried": None, "late": False}
    return sum(Notice.objects.filter(pk__in=some).exclude(sent=None).update(**anew) for some in _batches(keys))


def _locked(keys: Collection[int]) -> list[Event]:
    """Those of the events that are not over, locked in the order in which ``watch`` locks them."""
    rows = Event.objects.select_for_update().filter(pk__in=keys, state__in=ONGOING)
    return list(rows.order_by("-opened", "-pk"))


def _acknowledge(events: Sequence[Event], user: str, note: str, user_id: int | None) -> None:
    now = timezone.now()
    Event.objects.filter(pk__in=[each.pk for each in events]).update(acknowledged=now, acknowledged_by=user)
    for each in events:
        each.acknowledged, each.acknowledged_by = now, user
    _record(events, TransitionKind.ACKNOWLEDGED, now, user, note, user_id)


def _resolve(events: Sequence[Event], user: str, note: str, user_id: int | None) -> None:
    now = timezone.now()
    for each in events:
        # A clock of the fleet may be ahead of ours: nothing ends before it was seen.
        each.state, each.closed, each.resolved_by = EventState.CLOSED, max(now, each.last_seen), user
    Event.objects.bulk_update(events, ("state", "closed", "resolved_by"))
    Resolution.objects.bulk_create(
        Resolution(rule=each.rule, entity_kind=each.entity_kind, entity=each.entity, subject=each.subject)
        for each in events
    )
    _record(events, TransitionKind.RESOLVED, now, user, note, user_id)


def _record(
    events: Sequence[Event], kind: TransitionKind, now: datetime, user: str, note: str, user_id: int | None
) -> None:
    EventTransition.objects.bulk_create(
        EventTransition(event=each, kind=kind, at=now, recorded=now, severity=each.severity, user=user, note=note)
        for each in events
    )
    _log(events, CHANGE, history_message([f"{kind.value}: {note or NOTHING}"]), user_id)


def _log(rows: Sequence[Model], flag: int, message: list[dict[str, Any]], user_id: int | None) -> None:
    """Keeps what a person did to rows of one table in the admin's history."""
    if user_id is None or not rows:
        return
    content_type_id = ContentType.objects.get_for_model(type(rows[0])).pk
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=user_id,
            content_type_id=content_type_id,
            object_id=str(each.pk),
            object_repr=str(each)[:200],
            action_flag=flag,
            change_message=json.dumps(message),
        )
        for each in rows
    )


def _batches(keys: Collection[int]) -> list[list[int]]:
    ordered = sorted(keys, reverse=True)  # about as they opened
    return [ordered[start : start + _AT_ONCE] for start in range(0, len(ordered), _AT_ONCE)]
