"""What the engine says: transitions of events, and the entities that they are about."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec


class Change(StrEnum):
    """What happens to an event."""

    OPENED = "opened"
    REPEATED = "repeated"
    RAISED = "raised"  # its severity rose
    LOST = "lost"  # nothing is heard of its entity any more
    REGAINED = "regained"
    CLOSED = "closed"


class Entity(NamedTuple):
    """What an event is about: a GPU's id, ``host/slot``, a host's name, a source's name, or nothing for the fleet."""

    kind: str  # gpu, slot, host, source, fleet
    id: str


class EntityPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an entity is, as the readings describe it. Empty fields are unknown, or have no meaning for it."""

    hostname: str = ""
    slot: int | None = None
    model: str = ""
    namespace: str = ""
    pod: str = ""


class Key(NamedTuple):
    """At most one event is open for a key. ``subject`` is an XID, a metric's name and the like, or empty."""

    rule: str
    entity: Entity
    subject: str = ""


class Transition(msgspec.Struct, frozen=True):
    """A step in the life of the event of ``key``. ``opened_ns`` distinguishes it from earlier events of the same key.

    ``at_ns`` is the time of the reading that showed it. ``count`` is how often it has happened by now. ``values`` are the figures
    behind it by name, as they stand in the event's details; ``text`` says them in one sentence, or why the event closed.
    """

    change: Change
    key: Key
    opened_ns: int
    at_ns: int
    severity: str
    place: EntityPlace
    count: int = 1
    text: str = ""
    values: dict[str, float | str] = {}


class Touch(msgspec.Struct, frozen=True):
    """An open event whose condition held again: when last, and how often by now."""

    key: Key
    opened_ns: int
    last_ns: int
    count: int
