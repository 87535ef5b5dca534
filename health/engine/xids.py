"""XID errors: what exporters show of them, and what follows from their past.

An exporter shows the last code of a GPU for ever, so a code is new when it differs from the one before, when its count rises, or
when its row is back while those of other GPUs were never away. The first value is a baseline.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from health.engine.book import Book, Values
from health.engine.events import Entity, EntityPlace, Key
from health.engine.intake import Arrivals, NewestTable
from health.engine.places import around, place_of
from health.engine.registry import Ints, Registry, Rows
from health.rules.model import Rule, Rules, Xid
from readings.catalogue import whole_of
from readings.times import SECOND

GAUGE = "DCGM_FI_DEV_XID_ERRORS"
COUNT, TOTAL = "DCGM_EXP_XID_ERRORS_COUNT", "DCGM_EXP_XID_ERRORS_TOTAL"
RECOVERY = "DCGM_FI_DEV_GPU_RECOVERY_ACTION"
WANTED = (GAUGE, COUNT, TOTAL, RECOVERY)

_PART = ":xid:"
# Code and count come in one scrape, or in two: within so long they are one occurrence.
_SAME_NS = 90 * SECOND
_FOLLOWS_NS = 60 * SECOND
_DAY_NS = 86_400 * SECOND
_KEEP_NS = 30 * _DAY_NS
_MOST_KEPT = 200
# XIDs of one block that are judged: it takes some 50 µs each.
MOST_XIDS = 10_000
_MOST_UNKNOWN = 10
# GPUs of a host that are compared. Several hundred under one name are no host.
_MOST_ON_HOST = 256
_ABSENT_STEPS = 2.5
# Larger numbers are no codes.
MOST_CODE = 1_000_000
PREEMPTIVE_REMOVAL, ACTION_CHANGED = 45, 154
ENGAGED_AGAIN, DISENGAGED = 162, 163
FAULTED_MEMORY = 31


class Occurrence(NamedTuple):
    """An XID of a GPU. ``via`` is the metric that showed it."""

    at_ns: int
    code: int
    via: str


class XidPast(msgspec.Struct):
    """What is remembered of a GPU: its XIDs and resets, and its driver's verdict since a fatal one."""

    occurrences: list[Occurrence] = []
    resets: list[int] = []
    action_was_asked: bool = False
    no_action: int = 0
    # The newest codes of its event of unknown ones.
    unknown: list[int] = []


class _NewestXidRow(NamedTuple):
    """The GPU of a host whose XID gauge has the newest row, that row's time, and the newest time of the others'."""

    row: int
    first_ns: int
    second_ns: int


class XidState(msgspec.Struct):
    """The stored state of an XidJudge."""

    pasts: dict[int, XidPast]
    families: set[tuple[str, str]]


class XidJudge:
    """Judges XIDs as they arrive; ``tick`` closes what has been quiet for long enough."""

    def __init__(self, rules: Rules, registry: Registry, table: NewestTable, book: Book) -> None:
        self._rules = rules
        self._registry = registry
        self._table = table
        self._book = book
        self._pasts: dict[int, XidPast] = {}
        # Hosts whose exporter is known to give counts: there the first count of a code is an occurrence.
        self._families: set[tuple[str, str]] = set()

    def take(self, arrivals: Arrivals) -> int:
        """Judge the new points. Returns how many XIDs were too many: the newest MOST_XIDS of a block are judged."""
        grown, left_out = self._grown_counts(arrivals)
        found = sorted({*self._new_codes(arrivals), *grown}, key=lambda each: (each[1].at_ns, each[0], each[1]))
        for row, occurrence in found[-MOST_XIDS:]:
            self._happened(row, occurrence)
        if self._pasts:
            self._see_recovery(arrivals)
        return left_out + max(0, len(found) - MOST_XIDS)

    def reset(self, row: int, at_ns: int) -> None:
        """The GPU was reset."""
        past = self._pasts.get(row)
        if past is not None:
            past.resets = [*past.resets, at_ns][-_MOST_KEPT:]

    # What is new.

    def _new_codes(self, arrivals: Arrivals) -> Iterator[tuple[int, Occurrence]]:
        number = arrivals.number_of.get(GAUGE)
        if number is None:
            return
        now, before, before_ns = arrivals.points[number], arrivals.before[number], arrivals.before_ns[number]
        seen = ~np.isnan(now) & ~np.isnan(before) & (now > 0) & (now < MOST_CODE)
        steps = self._registry.step_ns[arrivals.rows]
        newest_of: dict[str, _NewestXidRow] = {}
        was_absent = arrivals.newest_ns - before_ns > _ABSENT_STEPS * np.maximum(steps, 1)
        for at in np.flatnonzero(seen & ((now != before) | was_absent)).tolist():
            row = int(arrivals.rows[at])
            if now[at] != before[at] or self._others_had_rows(row, int(before_ns[at]), newest_of):
                yield row, Occurrence(int(arrivals.times_ns[at]), int(now[at]), GAUGE)

    def _others_had_rows(self, row: int, since_ns: int, newest_of: dict[str, _NewestXidRow]) -> bool:
        """Whether other GPUs of the host had rows of the metric since: then the exporter left out this GPU's alone."""
        host = self._registry.gpus[row].hostname
        newest = newest_of.get(host)
        if newest is None:
            newest = newest_of[host] = self._newest_of(host)
        others_ns = newest.second_ns if newest.row == row else newest.first_ns
        return others_ns > since_ns + int(self._registry.step_ns[row])

    def _newest_of(self, host: str) -> _NewestXidRow:
        rows = np.array(list(self._registry.by_host[host]))
        times = self._table.times_ns[self._table.columns[GAUGE], rows]
        first = int(times.argmax())
        return _NewestXidRow(int(rows[first]), int(times[first]), int(np.delete(times, first).max(initial=0)))

    def _grown_counts(self, arrivals: Arrivals) -> tuple[list[tuple[int, Occurrence]], int]:
        """The XIDs whose counts grew, MOST_XIDS of the newest, and how many more there are."""
        columns = [(number, name) for name, number in arrivals.number_of.items() if whole_of(name) in (COUNT, TOTAL)]
        if not columns or not len(arrivals):
            return [], 0
        used, of_used = np.unique(arrivals.rows, return_inverse=True)
        hosts = np.array([self._registry.gpus[row].hostname for row in used.tolist()], object)
        families: set[tuple[str, str]] = set()
        grown: list[tuple[Rows, Ints]] = []
        for number, name in columns:
            family = whole_of(name)
            now, last = arrivals.points[number], arrivals.before[number]
            families.update((host, family) for host in hosts[np.unique(of_used[~np.isnan(now)])])
            is_known = np.array([(host, family) in self._families for host in hosts], np.bool_)[of_used]
            last = np.where(np.isnan(last), np.where(is_known, 0.0, now), last)
            if family == TOTAL:
                last = np.where(now < last, 0.0, last)
            at = np.flatnonzero(now > last)
            grown.append((np.full(len(at), number, np.int32), at))
        self._families |= families
        numbers, places = (np.concatenate(parts) for parts in zip(*grown, strict=True))
        left_out = max(0, len(places) - MOST_XIDS)
        if left_out:
            newest = np.argsort(arrivals.times_ns[places], kind="stable")[left_out:]
            numbers, places = numbers[newest], places[newest]
        names = dict(columns)
        found = []
        for number, at in zip(numbers.tolist(), places.tolist(), strict=True):
            row, code = int(arrivals.rows[at]), _code_of(names[number])
            occurrence = Occurrence(
                int(arrivals.times_ns[at]), code or self._last_code(arrivals, at, row), whole_of(names[number])
            )
            found.append((row, occurrence))
        return found, left_out

    def _last_code(self, arrivals: Arrivals, at: int, row: int) -> int:
        """The code that a count without a code is of: the last one of the GPU."""
        code = float(arrivals.value(GAUGE)[at])
        if code != code and GAUGE in self._table.columns:
            code = float(self._table.values[self._table.columns[GAUGE], row])
        return int(code) if 0 < code < MOST_CODE else 0

    # What it means.

    def _happened(self, row: int, occurrence: Occurrence) -> None:
        past = self._pasts.setdefault(row, XidPast())
        at_ns, code, via = occurrence
        for each in reversed(past.occurrences):
            if at_ns - each.at_ns > _SAME_NS:
                break
            if each.code == code and each.via != via:
                return
        follows = code == PREEMPTIVE_REMOVAL and any(
            0 <= at_ns - each.at_ns <= _FOLLOWS_NS and each.code != code for each in past.occurrences
        )
        past.occurrences = [*past.occurrences, occurrence][-_MOST_KEPT:]
        if follows:
            return  # from the other one
        xid = self._rules.xid(code)
        entity = Entity("gpu", self._registry.gpus[row].id)
        if code == ENGAGED_AGAIN:
            self._close_all(
                entity, at_ns, "XID 162 says that it is engaged again", lambda key: key.subject == str(DISENGAGED)
            )
        values = _values(xid)
        if xid.kind == "app":
            same = [each for each in past.occurrences if each.code == code and at_ns - each.at_ns < _DAY_NS]
            if xid.repeats_warn and len(same) > 1:
                self._open("xid_warning", row, entity, xid, at_ns, "warning", values)
            elif (rule := self._rule("xid_app")) is not None:
                key = Key(rule.name, entity, str(code))
                self._book.point(key, at_ns, xid.severity, place_of(self._registry, row), values)
        elif xid.kind == "unknown":
            self._open_unknown(row, entity, xid, past, at_ns)
        else:
            self._open(f"xid_{xid.kind}", row, entity, xid, at_ns, self._severity(xid, entity, past, at_ns), values)
        if xid.kind == "fatal":
            past.action_was_asked, past.no_action = False, 0
            self._judge_repeats(row, entity, xid, past, at_ns)
            self._judge_resets(row, entity, xid, past, at_ns)
        if code == FAULTED_MEMORY:
            self._judge_memory_faults(row, entity, xid, past, at_ns)
        if code == ACTION_CHANGED:
            self._raise_links(entity, at_ns)

    def _severity(self, xid: Xid, entity: Entity, past: XidPast, at_ns: int) -> str:
        if xid.kind == "nvlink5":
            asked = self._book.is_open("recovery_action", entity) or any(
                each.code == ACTION_CHANGED and at_ns - each.at_ns <= self._asked_within_ns()
                for each in past.occurrences
            )
            return "critical" if asked else xid.severity
        return xid.severity

    def _asked_within_ns(self) -> int:
        return int(self._rules["xid_nvlink5"].settings["asked_within_s"] * SECOND)

    def _open_unknown(self, row: int, entity: Entity, xid: Xid, past: XidPast, at_ns: int) -> None:
        """A GPU has one event of unknown codes at a time: there is no end of such codes. Its subject is the first of them."""
        name = "xid_unknown"
        subject = next((key.subject for key in self._book.open_on(entity) if key.rule == name), "")
        past.unknown = [*(code for code in past.unknown if subject and code != xid.code), xid.code][-_MOST_UNKNOWN:]
        values = _values(xid) | {"codes": ", ".join(map(str, past.unknown))}
        self._open(name, row, entity, xid, at_ns, xid.severity, values, subject)

    def _open(
        self,
        name: str,
        row: int,
        entity: Entity,
        xid: Xid,
        at_ns: int,
        severity: str,
        values: Values,
        subject: str = "",
    ) -> None:
        rule = self._rule(name)
        if rule is None or self._book.is_inhibited(rule, around(self._registry, row)):
            return
        key = Key(name, entity, subject or str(xid.code))
        self._book.open(key, at_ns, severity, place_of(self._registry, row), values)

    def _raise_links(self, entity: Entity, at_ns: int) -> None:
        """The driver asks for something: its NVLink errors are critical."""
        for key in self._book.open_on(entity):
            if key.rule == "xid_nvlink5" and at_ns - self._book.events[key].last_ns <= self._asked_within_ns():
                self._book.raise_to(key, at_ns, "critical", text="the driver asks for a recovery action")

    def _judge_repeats(self, row: int, entity: Entity, xid: Xid, past: XidPast, at_ns: int) -> None:
        rule = self._rule("xid_repeat_gpu")
        if rule is None:
            return
        bursts, last = 0, 0
        for each in past.occurrences:
            if each.code != xid.code or at_ns - each.at_ns >= rule.settings["window_s"] * SECOND:
                continue
            if not last or each.at_ns - last > rule.settings["burst_s"] * SECOND:
                bursts += 1
            last = each.at_ns
        if bursts >= rule.settings["count"]:
            key = Key(rule.name, entity, str(xid.code))
            if key not in self._book.events:
                place = place_of(self._registry, row)
                self._book.open(key, at_ns, rule.severity, place, _figures(xid) | {"value": float(bursts)})
            else:
                self._book.hold(key, at_ns)

    def _judge_resets(self, row: int, entity: Entity, xid: Xid, past: XidPast, at_ns: int) -> None:
        rule = self._rule("xid_after_reset")
        if rule is None:
            return
        # Resets between two occurrences count, not several after one.
        between = 0
        times = [each.at_ns for each in past.occurrences if each.code == xid.code]
        for earlier, later in itertools.pairwise(times):
            between += any(earlier < reset <= later for reset in past.resets)
        key = Key(rule.name, entity, str(xid.code))
        if between >= rule.settings["resets"] and key not in self._book.events:
            place = place_of(self._registry, row)
            self._book.open(key, at_ns, rule.severity, place, _figures(xid) | {"value": float(between)})

    def _judge_memory_faults(self, row: int, entity: Entity, xid: Xid, past: XidPast, at_ns: int) -> None:
        """XID 31 on several GPUs of a host comes from an application, again and again on one GPU perhaps not."""
        place = place_of(self._registry, row)
        many, same = self._rule("xid31_many_gpus"), self._rule("xid31_same_gpu")
        host = Entity("host", place.hostname)
        if many is not None and place.hostname:
            on_host = itertools.islice(self._registry.by_host[place.hostname], _MOST_ON_HOST)
            rows = [each for each in on_host if self._memory_faults(each, at_ns, many)]
            key = Key(many.name, host)
            if len(rows) >= many.settings["count"]:
                values = _figures(xid) | {"value": float(len(rows)), "hostname": place.hostname}
                if key in self._book.events:
                    self._book.hold(key, at_ns)
                else:
                    self._book.open(key, at_ns, many.severity, EntityPlace(place.hostname), values)
                for each in rows:
                    one = Key("xid31_same_gpu", Entity("gpu", self._registry.gpus[each].id))
                    if one in self._book.events:
                        self._book.close(
                            one, at_ns, "other GPUs of the host have it too: it comes from an application", is_gone=True
                        )
        if same is None or self._memory_faults(row, at_ns, same) < same.settings["count"]:
            return
        key = Key(same.name, entity)
        if key in self._book.events:
            self._book.hold(key, at_ns)
        elif not self._book.is_inhibited(same, around(self._registry, row)):
            count = float(self._memory_faults(row, at_ns, same))
            self._book.open(key, at_ns, same.severity, place, _figures(xid) | {"value": count})

    def _memory_faults(self, row: int, at_ns: int, rule: Rule) -> int:
        past = self._pasts.get(row)
        window_ns = rule.settings["window_s"] * SECOND
        return (
            sum(each.code == FAULTED_MEMORY and at_ns - each.at_ns < window_ns for each in past.occurrences)
            if past
            else 0
        )

    # When it is over.

    def _see_recovery(self, arrivals: Arrivals) -> None:
        """The driver asked for an action after a fatal XID, and now asks for none: what was wrong is gone."""
        number = arrivals.number_of.get(RECOVERY)
        if number is None:
            return
        rule = self._rules["xid_fatal"]
        actions = arrivals.points[number]
        for at in np.flatnonzero(~np.isnan(actions)).tolist():
            past = self._pasts.get(int(arrivals.rows[at]))
            if past is None:
                continue
            entity = Entity("gpu", self._registry.gpus[int(arrivals.rows[at])].id)
            if actions[at]:
                self._raise_links(entity, int(arrivals.times_ns[at]))
            if not self._book.is_open("xid_fatal", entity):
                continue
            if actions[at]:
                past.action_was_asked, past.no_action = True, 0
            elif past.action_was_asked:
                past.no_action += 1
                if past.no_action >= rule.settings["clear_samples"]:
                    at_ns = int(arrivals.times_ns[at])
                    self._close_all(entity, at_ns, "the driver asks for no action any more", _is_fatal)

    def tick(self, now_of: Callable[[int], int]) -> None:
        """Close what has been quiet for long enough. ``now_of`` gives the time of the GPU of a row."""
        for key in [key for key in self._book.events if key.rule in _CLOSE_WHEN_QUIET or key.rule == "xid_fatal"]:
            event = self._book.events[key]
            rule = self._rules.get(key.rule)
            if rule is None:
                continue
            row = self._row_of(key.entity)
            if row is None:
                continue
            quiet_ns = int(rule.settings["quiet_s"] * SECOND)
            over_ns = event.last_ns + quiet_ns
            if now_of(row) < over_ns:
                continue
            if key.rule == "xid_fatal":
                past = self._pasts.get(row)
                reset = next((each for each in past.resets if each > event.last_ns), None) if past else None
                if reset is not None and now_of(row) >= reset + quiet_ns and self._registry.last_ns[row] >= reset:
                    self._book.close(key, max(over_ns, reset + quiet_ns), "it was reset, and was quiet since")
            else:
                self._book.close(key, over_ns, "it has not come again")

    def _row_of(self, entity: Entity) -> int | None:
        if entity.kind == "host":
            return next(iter(self._registry.by_host.get(entity.id, ())), None)
        return self._registry.row_of.get(entity.id)

    def _close_all(self, entity: Entity, at_ns: int, reason: str, which: Callable[[Key], bool]) -> None:
        for key in self._book.open_on(entity):
            if which(key):
                self._book.close(key, at_ns, reason)

    def _rule(self, name: str) -> Rule | None:
        rule = self._rules.get(name)
        return rule if rule is not None and rule.enabled else None

    def expire(self, now_ns: int) -> None:
        """Forget the past that no rule looks at any more."""
        for past in self._pasts.values():
            past.occurrences = [each for each in past.occurrences if now_ns - each.at_ns < _KEEP_NS]
            past.resets = [each for each in past.resets if now_ns - each < _KEEP_NS]

    def forget(self, key: Key) -> None:
        """A person closed the event: what led to it is not held against the GPU any more."""
        row = self._row_of(key.entity)
        past = self._pasts.get(row) if row is not None else None
        if past is not None and key.rule in {"xid_repeat_gpu", "xid_after_reset"}:
            past.occurrences = [each for each in past.occurrences if str(each.code) != key.subject]

    def state(self) -> XidState:
        """Everything, for ``restore``."""
        return XidState(self._pasts, self._families)

    def restore(self, state: XidState) -> None:
        """Take over the state of another judge."""
        self._pasts, self._families = dict(state.pasts), set(state.families)


_CLOSE_WHEN_QUIET = frozenset({"xid_warning", "xid_nvlink5", "xid_unknown", "xid31_same_gpu", "xid31_many_gpus"})


def _code_of(name: str) -> int:
    """The code that a count's name ends in, 0 without one."""
    text = name.partition(_PART)[2]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def _is_fatal(key: Key) -> bool:
    return key.rule == "xid_fatal"


def _values(xid: Xid) -> Values:
    return _figures(xid) | {"action": xid.action}


def _figures(xid: Xid) -> Values:
    """Those of rules about the history of an XID, which have an action of their own."""
    return {"xid": float(xid.code), "mnemonic": xid.mnemonic, "title": xid.title}
