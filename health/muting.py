"""Which events nobody wants to hear of: those that a mute fits, and those of what is in maintenance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple

from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils import timezone

from health.models import EntityKind, Event, Mute
from health.rule_table import rules_now
from health.sharing import SharedAnswer
from inventory.assets import history_message
from inventory.models import GPU, AssetState, Host
from inventory.tags import NAME_RULE, TagError, parse_tags

SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=366)
MOST_MUTES = 1_000  # that count at once
_MOST_GPU = 200  # what the field of a mute takes


class MuteScope(NamedTuple):
    """What a mute covers. An empty field fits everything."""

    id: int
    rule: str
    hostname: str
    gpu: str
    tag: str
    tag_value: str
    expires: datetime


class Silence(NamedTuple):
    """Why nobody is notified of an event. ``until`` is None for maintenance, which has no end that is known."""

    reason: Literal["muted", "maintenance"]
    until: datetime | None = None


@dataclass(frozen=True)
class Muting:
    """The mutes that count at a time, and what they are about: plain data, so that an event is judged without a query.

    Tags are by host name and by GPU id; they may be left out while no mute names a tag.
    """

    mutes: tuple[MuteScope, ...] = ()
    hosts_in_maintenance: Set[str] = frozenset()
    gpus_in_maintenance: Set[str] = frozenset()
    host_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gpu_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def silence_of(self, event: Event) -> Silence | None:
        """Why nobody is notified of this event; None if people are. Of several mutes the one that lasts longest counts."""
        if event.hostname and event.hostname in self.hosts_in_maintenance:
            return Silence("maintenance")
        if not self.gpus_in_maintenance.isdisjoint(gpus_of_event(event)):
            return Silence("maintenance")
        until = max((mute.expires for mute in self._may_fit(event) if self.fits(mute, event)), default=None)
        return None if until is None else Silence("muted", until)

    def _may_fit(self, event: Event) -> Iterator[MuteScope]:
        """The mutes that name what the event is about, and those that name nothing of the kind: few of many."""
        for key in {*(event.entity, *gpus_of_event(event)), event.hostname, event.rule, ""}:
            yield from self._by_key.get(key, ())

    @cached_property
    def _by_key(self) -> Mapping[str, Sequence[MuteScope]]:
        """The mutes by the first thing that they name: a GPU or slot, else a host, else a rule, else nothing."""
        found: dict[str, list[MuteScope]] = {}
        for mute in self.mutes:
            found.setdefault(mute.gpu or mute.hostname or mute.rule, []).append(mute)
        return found

    def fits(self, mute: MuteScope, event: Event) -> bool:
        """Whether a mute covers an event. A GPU's mute covers its MIG instances, and a tag is the GPU's or its host's."""
        if mute.rule and mute.rule != event.rule:
            return False
        if mute.hostname and mute.hostname != event.hostname:
            return False
        if mute.gpu and mute.gpu not in (event.entity, *gpus_of_event(event)):
            return False
        return not mute.tag or mute.tag_value in self._tag_values(mute.tag, event)

    def _tag_values(self, name: str, event: Event) -> Iterable[str]:
        tags = [self.host_tags.get(event.hostname, {}), *(self.gpu_tags.get(gpu, {}) for gpu in gpus_of_event(event))]
        return [found[name] for found in tags if name in found]


def gpus_of_event(event: Event) -> tuple[str, ...]:
    """The GPU that an event is about, and its board if it is a MIG instance. Nothing for other entities."""
    if event.entity_kind != EntityKind.GPU:
        return ()
    board = board_of(event.entity)
    return (event.entity,) if board == event.entity else (event.entity, board)


def board_of(gpu_id: str) -> str:
    """The GPU that a MIG instance (``board:instance``) is cut out of; a GPU's id unchanged."""
    return gpu_id.rpartition(":")[0] or gpu_id


def load_muting(now: datetime | None = None) -> Muting:
    """The mutes and the maintenance of this moment. Three queries, and two more while a mute names a tag. Raises DatabaseError."""
    moment = now or timezone.now()
    rows = Mute.objects.filter(starts__lte=moment, expires__gt=moment).order_by("pk")
    mutes = tuple(map(MuteScope._make, rows.values_list(*MuteScope._fields)))
    maintained = {"asset_state": AssetState.MAINTENANCE}
    by_tag = any(mute.tag for mute in mutes)
    return Muting(
        mutes=mutes,
        hosts_in_maintenance=frozenset(Host.objects.filter(**maintained).values_list("name", flat=True)),
        gpus_in_maintenance=frozenset(GPU.objects.filter(**maintained).values_list("pk", flat=True)),
        host_tags=dict(Host.objects.exclude(tags={}).order_by().values_list("name", "tags")) if by_tag else {},
        gpu_tags=dict(GPU.objects.exclude(tags={}).order_by().values_list("pk", "tags")) if by_tag else {},
    )


_kept = SharedAnswer(load_muting)


def muting_now() -> Muting:
    """``load_muting``, as of at most FLEET_SECONDS ago: for pages and answers."""
    return _kept.now()


def mute_for(event: Event, length: timedelta, user: str, note: str = "", now: datetime | None = None) -> Mute:
    """An unsaved mute of what an event is about: its rule, and its GPU, slot or host."""
    moment = now or timezone.now()
    is_gpu = event.entity_kind in {EntityKind.GPU, EntityKind.SLOT} and len(event.entity) <= _MOST_GPU
    return Mute(
        rule=event.rule,
        gpu=event.entity if is_gpu else "",
        hostname="" if is_gpu else event.hostname,
        starts=moment,
        expires=moment + length,
        created_by=user,
        note=note,
    )


class MuteError(ValueError):
    """A mute that cannot be. ``field`` is the one to change, and the text says what is allowed."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def check_scope(mute: Mute) -> None:
    """Whether somebody can have meant what a new mute covers. At most three queries. Raises MuteError."""
    if not (mute.rule or mute.hostname or mute.gpu or mute.tag):
        raise MuteError("rule", "the mute fits everything: give it a rule, a hostname, a gpu or a tag")
    if mute.rule and mute.rule not in rules_now():
        raise MuteError("rule", f"rule {mute.rule!r} is not known: see /api/v1/rules")
    if bool(mute.tag) != bool(mute.tag_value):
        raise MuteError("tag", "tag and tag_value belong together: give both or none")
    if mute.tag:
        try:
            parse_tags(f"{mute.tag}: {mute.tag_value}")
        except TagError:
            problem = f"tag {mute.tag!r} with tag_value {mute.tag_value!r} is no tag: {NAME_RULE}"
            raise MuteError("tag", problem) from None
    if mute.hostname and not Host.objects.filter(name=mute.hostname).exists():
        raise MuteError("hostname", f"hostname {mute.hostname!r} is not known: see /api/v1/hosts")
    if mute.gpu and not _is_gpu_or_slot(mute.gpu):
        raise MuteError("gpu", f"gpu {mute.gpu!r} is not known: give a GPU's id, see /api/v1/gpus, or host/slot")


def _is_gpu_or_slot(text: str) -> bool:
    host, _, slot = text.rpartition("/")
    if slot.isdecimal() and Host.objects.filter(name=host).exists():
        return True
    return GPU.objects.filter(pk=text).exists()


def check_length(starts: datetime, expires: datetime) -> None:
    """Whether a mute may last so long. Raises MuteError."""
    if not SHORTEST <= expires - starts <= LONGEST:
        raise MuteError("expires", "a mute lasts from one minute to 366 days")


def check_room(more: int = 1) -> None:
    """Whether so many more mutes may be. One query. Raises MuteError."""
    if Mute.objects.filter(expires__gt=timezone.now()).count() + more > MOST_MUTES:
        problem = f"more than {MOST_MUTES:,} mutes would count at once: end some, or mute a rule, a host or a tag"
        raise MuteError("rule", problem)


def save_mute(mute: Mute, *, user_id: int | None = None) -> None:
    """Saves a new mute, which counts at once in this process. With ``user_id`` it is in the admin's history.

    Raises MuteError if there are too many, DatabaseError.
    """
    with transaction.atomic():
        check_room()
        mute.save()
        _log(mute, ADDITION, [{"added": {}}], user_id)
    mutes_changed()


def end_mute(mute: Mute, user: str, *, user_id: int | None = None) -> Mute:
    """Ends a mute now; one that has ended stays as it is. Returns it. Raises DatabaseError."""
    now = timezone.now()
    with transaction.atomic():
        ended = Mute.objects.filter(pk=mute.pk, expires__gt=now).update(expires=now)
        if ended:
            mute.expires = now
            _log(mute, CHANGE, history_message([f"ended by {user}"]), user_id)
    mutes_changed()
    return mute


def _log(mute: Mute, flag: int, message: list[dict[str, Any]], user_id: int | None) -> None:
    if user_id is not None:
        LogEntry.objects.create(
            user_id=user_id,
            content_type_id=ContentType.objects.get_for_model(Mute).pk,
            object_id=str(mute.pk),
            object_repr=str(mute)[:200],
            action_flag=flag,
            change_message=json.dumps(message),
        )


def mutes_changed() -> None:
    """Forget what this process keeps: the next answer has the new mutes."""
    _kept.forget()
