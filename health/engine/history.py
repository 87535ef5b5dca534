"""Hosts that break again and again: no single event shows them."""

from __future__ import annotations

from health.engine.book import Book
from health.engine.events import Entity, EntityPlace, Key
from health.rules.model import Rules
from readings.times import SECOND

# One fault makes several events: an XID, the driver's request for a reset, an error count. Within so long they are one.
_ONE_FAULT_NS = 3600 * SECOND


class HistoryJudge:
    """Counts the critical events that opened on a host. The book remembers them."""

    def __init__(self, rules: Rules, book: Book) -> None:
        self._rules = rules
        self._book = book
        self._seen = -1

    def judge(self) -> None:
        """Judge, if anything has opened since the last time."""
        rule = self._rules.get("lemon_node")
        openings = self._book.openings
        if rule is None or not rule.enabled or self._book.opened == self._seen:
            return
        self._seen = self._book.opened
        if not openings:
            return
        newest = max(each.at_ns for each in openings)
        faults: dict[str, dict[str, list[int]]] = {}
        for each in sorted(openings):
            if newest - each.at_ns < rule.settings["window_s"] * SECOND and each.rule != rule.name:
                times = faults.setdefault(each.hostname, {}).setdefault(each.entity, [])
                if not times or each.at_ns - times[-1] > _ONE_FAULT_NS:
                    times.append(each.at_ns)
        for host, of_entities in sorted(faults.items()):
            count = sum(map(len, of_entities.values()))
            key = Key(rule.name, Entity("host", host))
            if count >= rule.settings["count"] and key not in self._book.events:
                values: dict[str, float | str] = {"value": float(count), "hostname": host}
                at_ns = max(times[-1] for times in of_entities.values())
                self._book.open(key, at_ns, rule.severity, EntityPlace(host), values)

    def forget(self, key: Key) -> None:
        """A person dealt with the host: what happened before is not held against it."""
        if key.rule == "lemon_node":
            self._book.openings = [each for each in self._book.openings if each.hostname != key.entity.id]
