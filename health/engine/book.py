"""The open events: one for each key. Rules say what they see, and the book makes transitions of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from health.engine.events import Change, Entity, EntityPlace, Key, Touch, Transition
from health.rules.model import SEVERITIES, Rule, Rules
from readings.times import SECOND

# Open events are written again at most so often only because they still hold.
TOUCH_NS = 60 * SECOND
# What happens at once and is over counts as one event while it comes again within this time.
POINT_NS = 3600 * SECOND
# An event that opened so often within so long comes and goes: instead of one event each time it is one that stays.
MOST_FLAPS, FLAP_NS = 5, 3600 * SECOND
_MOST_TOUCHES = 2000
_MOST_OPENINGS = 10_000

Values = dict[str, float | str]


class OpenEvent(msgspec.Struct):
    """An event that is not over. ``lost``: nothing is heard of its entity. ``flaps``: it comes and goes. ``point``: it was over at once."""

    key: Key
    severity: str
    opened_ns: int
    last_ns: int
    place: EntityPlace
    count: int = 1
    lost: bool = False
    flaps: bool = False
    written_ns: int = 0
    written_count: int = 1


class Opening(NamedTuple):
    """That a critical event opened on a host: for rules that look at the past."""

    at_ns: int
    hostname: str
    rule: str
    entity: str
    subject: str


class BookState(msgspec.Struct):
    """The stored state of a Book."""

    open: list[OpenEvent]
    points: list[OpenEvent]
    openings: list[Opening]
    dismissed: list[tuple[Key, int]]
    opened: list[tuple[Key, list[int]]] = []


class Book:
    """Open events and what became of them since the last ``drain``."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.events: dict[Key, OpenEvent] = {}
        self.openings: list[Opening] = []
        # How many critical events have opened or become critical.
        self.opened = 0
        # What a person closed while it still held, and when it had opened: it opens again once it was over.
        self.dismissed: dict[Key, int] = {}
        # When the events of each key opened lately.
        self._opened: dict[Key, list[int]] = {}
        self._points: dict[Key, OpenEvent] = {}
        self._of_entity: dict[Entity, dict[Key, None]] = {}
        self._held: set[Key] = set()
        self._transitions: list[Transition] = []

    def is_open(self, rule: str, entity: Entity) -> bool:
        """Whether any event of the rule is open on the entity."""
        return any(key.rule == rule for key in self._of_entity.get(entity, ()))

    def is_inhibited(self, rule: Rule, around: Iterable[Entity]) -> bool:
        """Whether an event that explains those of this rule is open on one of the entities: the GPU, its host, its source, the fleet."""
        if not rule.inhibited_by:
            return False
        return any(
            key.rule in rule.inhibited_by or f"{key.rule}:{key.subject}" in rule.inhibited_by
            for entity in around
            for key in self._of_entity.get(entity, ())
        )

    def open(
        self, key: Key, at_ns: int, severity: str, place: EntityPlace, values: Values | None = None, text: str = ""
    ) -> None:
        """Open an event, or count it once more if it is open."""
        event = self.events.get(key)
        if event is not None:
            self.repeat(key, at_ns, values=values)
            self.raise_to(key, at_ns, severity, values, text)
            return
        if key in self.dismissed:
            return
        self._points.pop(key, None)
        event = OpenEvent(key, severity, at_ns, at_ns, place, written_ns=at_ns)
        self.events[key] = event
        self._of_entity.setdefault(key.entity, {})[key] = None
        self._opened[key] = [*self._opened.get(key, ()), at_ns][-MOST_FLAPS:]
        self._note_opening(event)
        self._say(Change.OPENED, event, at_ns, values, text or self.summary(key.rule, values))

    def point(
        self, key: Key, at_ns: int, severity: str, place: EntityPlace, values: Values | None = None, text: str = ""
    ) -> None:
        """Something that happened and is over. If it was the same less than an hour ago, that event counts once more."""
        event = self._points.get(key)
        text = text or self.summary(key.rule, values)
        if event is not None and at_ns - event.last_ns < POINT_NS:
            event.count += 1
            event.last_ns = at_ns
            self._say(Change.REPEATED, event, at_ns, values, text)
            return
        event = OpenEvent(key, severity, at_ns, at_ns, place, written_ns=at_ns)
        self._points[key] = event
        self._say(Change.OPENED, event, at_ns, values, text)
        self._say(Change.CLOSED, event, at_ns, None, "over at once")

    def repeat(self, key: Key, at_ns: int, by: int = 1, values: Values | None = None) -> None:
        """An open event happened again, ``by`` times."""
        event = self.events[key]
        event.count += by
        event.last_ns = max(event.last_ns, at_ns)
        self._say(Change.REPEATED, event, at_ns, values, self.summary(key.rule, values) if values else "")

    def hold(self, key: Key, at_ns: int) -> None:
        """An open event still holds."""
        event = self.events[key]
        if at_ns > event.last_ns:
            event.last_ns = at_ns
            if at_ns - event.written_ns >= TOUCH_NS:
                self._held.add(key)

    def raise_to(self, key: Key, at_ns: int, severity: str, values: Values | None = None, text: str = "") -> None:
        """An open event is worse than it was. It never gets better before it closes."""
        event = self.events[key]
        if SEVERITIES.index(severity) <= SEVERITIES.index(event.severity):
            return
        event.severity = severity
        event.last_ns = max(event.last_ns, at_ns)
        self._note_opening(event)
        self._say(Change.RAISED, event, at_ns, values, text or self.summary(key.rule, values))

    def opened_ns(self, key: Key) -> int | None:
        """When the event opened, also one that a person closed while it still held; None if there is none."""
        event = self.events.get(key)
        return event.opened_ns if event is not None else self.dismissed.get(key)

    def keys_of(self, rule: str, kind: str) -> list[Key]:
        """The keys of a rule's events on entities of a kind, with those that a person closed while they still held."""
        return [key for key in (*self.events, *self.dismissed) if key.rule == rule and key.entity.kind == kind]

    def close(self, key: Key, at_ns: int, reason: str, *, is_gone: bool = False) -> None:
        """An event is over. One that a person closed before may open again from now on.

        One that comes and goes stays open until it has not come for an hour: call this again with the next sample that is well.
        ``is_gone``: what it is about is no more, so it will not come again.
        """
        self.dismissed.pop(key, None)
        event = self.events.get(key)
        if event is None or (not is_gone and self._flaps(event, at_ns)):
            return
        self._remove(event)
        self._say(Change.CLOSED, event, max(at_ns, event.opened_ns), None, reason)

    def _flaps(self, event: OpenEvent, at_ns: int) -> bool:
        """Whether it has opened so often lately that this is hardly its end."""
        lately = sum(at_ns - each < FLAP_NS for each in self._opened.get(event.key, ()))
        event.flaps |= lately >= MOST_FLAPS
        return event.flaps and at_ns - event.last_ns < FLAP_NS

    def _remove(self, event: OpenEvent) -> None:
        del self.events[event.key]
        self._held.discard(event.key)
        keys = self._of_entity[event.key.entity]
        del keys[event.key]
        if not keys:
            del self._of_entity[event.key.entity]

    def dismiss(self, key: Key, *, holds: bool) -> None:
        """A person closed the event: nothing is to be said of it. If it ``holds`` still, it opens again only once it was over."""
        event = self.events.get(key)
        if event is None:
            return
        self._remove(event)
        if holds:
            self.dismissed[key] = event.opened_ns

    def lose(self, key: Key, at_ns: int) -> None:
        """Nothing is heard of the event's entity any more."""
        event = self.events[key]
        if not event.lost:
            event.lost = True
            self._say(Change.LOST, event, at_ns, None, "no data: its state is not known")

    def regain(self, key: Key, at_ns: int) -> None:
        """The event's entity is heard of again."""
        event = self.events[key]
        if event.lost:
            event.lost = False
            self._say(Change.REGAINED, event, at_ns, None, "data again")

    def open_on(self, entity: Entity) -> list[Key]:
        """The keys of the events that are open on an entity."""
        return list(self._of_entity.get(entity, ()))

    def drain(self) -> list[Transition]:
        """The transitions since the last call."""
        transitions, self._transitions = self._transitions, []
        return transitions

    def touched(self) -> list[Touch]:
        """Open events that still hold and were not written for a minute; at most a few thousand at once."""
        found = []
        for key in list(self._held)[:_MOST_TOUCHES]:
            self._held.discard(key)
            event = self.events[key]
            event.written_ns = event.last_ns
            found.append(Touch(key, event.opened_ns, event.last_ns, event.count))
        return found

    def expire(self, now_ns: int, history_ns: int) -> None:
        """Forget points and openings that are too old to matter."""
        self._points = {key: event for key, event in self._points.items() if now_ns - event.last_ns < POINT_NS}
        self._opened = {key: times for key, times in self._opened.items() if now_ns - times[-1] < FLAP_NS}
        self.openings = [each for each in self.openings if now_ns - each.at_ns <= history_ns][-_MOST_OPENINGS:]

    def summary(self, rule: str, values: Mapping[str, float | str] | None) -> str:
        """The rule's sentence with these figures in it."""
        given = self._rules.get(rule)
        if given is None:
            return ""
        return given.summary(values or {})[:512]

    def _note_opening(self, event: OpenEvent) -> None:
        if event.severity == "critical" and event.place.hostname:
            self.opened += 1
            key = event.key
            self.openings.append(Opening(event.last_ns, event.place.hostname, key.rule, key.entity.id, key.subject))

    def _say(self, change: Change, event: OpenEvent, at_ns: int, values: Values | None, text: str) -> None:
        event.written_ns = max(event.written_ns, event.last_ns)
        self._transitions.append(
            Transition(
                change, event.key, event.opened_ns, at_ns, event.severity, event.place, event.count, text, values or {}
            )
        )

    def state(self) -> BookState:
        """Everything but what was not drained, for ``restore``."""
        return BookState(
            list(self.events.values()),
            list(self._points.values()),
            self.openings,
            list(self.dismissed.items()),
            list(self._opened.items()),
        )

    def restore(self, state: BookState) -> None:
        """Take over the state of another book."""
        self.events = {event.key: event for event in state.open}
        self._points = {event.key: event for event in state.points}
        self.openings = list(state.openings)
        self.dismissed = dict(state.dismissed)
        self._opened = dict(state.opened)
        self.opened = len(self.openings)
        self._of_entity.clear()
        for key in self.events:
            self._of_entity.setdefault(key.entity, {})[key] = None
