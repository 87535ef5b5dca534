"""Who is not heard of: GPUs, slots where no GPU was ever seen, hosts, whole sources; and hosts whose clock is wrong.

Times of events are those at which silence became too long, not those at which somebody looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from health.engine.book import Book
from health.engine.events import Entity, EntityPlace, Key
from health.engine.facts import Facts
from health.engine.intake import Arrivals
from health.engine.places import FleetLayout, FleetPlaces, Times, of_boards, place_of
from health.engine.registry import GAP_STEPS, Ints, Mask, Registry
from health.rules.model import Rule, Rules
from inventory.expected import learned_counts
from readings.times import SECOND

# A host is quiet, if not yet stale, after so long or three steps.
_QUIET_NS = 60 * SECOND
FLEET = Entity("fleet", "")
# A source of so many hosts is judged as one.
_FEWEST_HOSTS = 2
NEVER_SEEN = "The host should have a GPU in this slot, and none was ever seen"


class SlotWait(msgspec.Struct):
    """Since when a slot lacks its GPU, by the samples of its host."""

    host: str
    slot: int
    since_ns: int


class SkewStreak(msgspec.Struct):
    """Messages in a row with (``ahead``) or without times that are ahead."""

    ahead: int = 0
    sound: int = 0
    last_ns: int = 0


class AbsenceState(msgspec.Struct):
    """The stored state of an AbsenceJudge."""

    waits: list[SlotWait]
    skews: dict[str, SkewStreak]
    settled: dict[str, int]
    resumed: dict[str, int] = {}


class _HostGroup(NamedTuple):
    """Hosts that are judged as one: a source's, or all. ``members`` are their numbers in the layout."""

    entity: Entity
    members: Ints


class AbsenceJudge:
    """Judges whenever the clock moves on."""

    def __init__(self, rules: Rules, registry: Registry, places: FleetPlaces, book: Book) -> None:
        self._rules = rules
        self._registry = registry
        self._places = places
        self._book = book
        self._waits: dict[tuple[str, int], int] = {}
        self._skews: dict[str, SkewStreak] = {}
        # Since when so many of a group's hosts are stale.
        self._settled: dict[str, int] = {}
        # Since when hosts that had a gap report again: in it nobody can be seen to be missing.
        self._resumed: dict[str, int] = {}

    def take(self, arrivals: Arrivals, live: bool, received_ns: int) -> None:
        """Look at the times of a message, before its readings are kept."""
        self._see_gaps(arrivals)
        rule = self._rule("clock_skew")
        if rule is None or not live or (not arrivals.ahead_ns and not self._skews):
            return
        hosts = {self._registry.gpus[row].hostname for row in set(arrivals.rows.tolist())}
        for host in sorted(hosts | set(arrivals.ahead_ns)):
            self._see_clock(rule, host, arrivals.ahead_ns.get(host, 0), received_ns)

    def _see_gaps(self, arrivals: Arrivals) -> None:
        """Note which hosts report again after a gap."""
        registry, rows = self._registry, arrivals.rows
        steps = arrivals.times_ns - arrivals.newest_ns
        gaps = (arrivals.newest_ns > 0) & (steps > GAP_STEPS * np.maximum(registry.step_ns[rows], SECOND))
        if not gaps.any():
            return
        newest_of: dict[str, int] = {}
        for at in np.flatnonzero(gaps).tolist():
            row, time_ns = int(rows[at]), int(arrivals.times_ns[at])
            host = registry.gpus[row].hostname
            newest = newest_of.get(host)
            if newest is None:
                newest = newest_of[host] = int(registry.last_ns[list(registry.by_host[host])].max())
            if time_ns - newest > GAP_STEPS * max(int(registry.step_ns[row]), SECOND):
                self._resumed[host] = (
                    min(time_ns, self._resumed.get(host, 0)) if self._resumed.get(host, 0) > newest else time_ns
                )

    def _see_clock(self, rule: Rule, host: str, ahead_ns: int, at_ns: int) -> None:
        streak = self._skews.get(host)
        if streak is None:
            if not ahead_ns:
                return
            streak = self._skews[host] = SkewStreak()
        if at_ns <= streak.last_ns:
            return
        streak.last_ns = at_ns
        key = Key(rule.name, Entity("host", host))
        if ahead_ns:
            streak.ahead, streak.sound = streak.ahead + 1, 0
            if key in self._book.events:
                self._book.hold(key, at_ns)
            elif streak.ahead >= rule.settings["samples"]:
                values: dict[str, float | str] = {"value": ahead_ns / SECOND, "hostname": host}
                self._book.open(key, at_ns, rule.severity, EntityPlace(host), values)
            return
        streak.ahead, streak.sound = 0, streak.sound + 1
        if streak.sound >= rule.settings["clear_samples"]:
            self._book.close(key, at_ns, "its clock is right again")
            if key not in self._book.events:
                del self._skews[host]

    def tick(self, now_ns: int, facts: Facts) -> None:
        """Look for silence, as of ``now_ns`` for live sources."""
        layout = self._places.layout(facts)
        self._close_departed(layout, facts, now_ns)
        if not layout.hosts:
            return
        times = self._places.times(layout, now_ns)
        excused = np.array([host in facts.excused_hosts for host in layout.hosts], np.bool_)
        self._judge_groups(layout, times, excused)
        self._judge_hosts(layout, times, excused)
        self._judge_gpus(layout, times, facts)
        self._judge_slots(layout, times, facts)
        self._mark_lost(layout, times)

    def _rule(self, name: str) -> Rule | None:
        rule = self._rules.get(name)
        return rule if rule is not None and rule.enabled else None

    # Sources.

    def _stale_after(self, times: Times) -> Ints:
        """After how much silence each host is stale."""
        rule = self._rules["host_stale"]
        return np.maximum(int(rule.settings["warning_s"] * SECOND), GAP_STEPS * times.step_ns)

    def _groups(self, layout: FleetLayout, excused: Mask) -> list[_HostGroup]:
        judged = layout.live & ~excused
        groups = []
        sources = np.unique(layout.of_source[judged])
        if len(sources) > 1:
            groups.append(_HostGroup(FLEET, np.flatnonzero(judged)))
        by_source = np.argsort(layout.of_source, kind="stable")
        starts = np.searchsorted(layout.of_source[by_source], np.arange(len(layout.sources) + 1))
        for number in sources.tolist():
            members = by_source[starts[number] : starts[number + 1]]
            members = members[judged[members]]
            if len(members) >= _FEWEST_HOSTS:
                groups.append(_HostGroup(Entity("source", layout.sources[number]), members))
        return groups

    def _judge_groups(self, layout: FleetLayout, times: Times, excused: Mask) -> None:
        rule = self._rule("source_silent")
        groups = self._groups(layout, excused)
        # Hosts whose whole group is quiet: it may be about to be silent, which explains them.
        self._settling = np.zeros(len(layout.hosts), np.bool_)
        if rule is None:
            return
        share, for_ns = rule.settings["share"], int(rule.settings["for_s"] * SECOND)
        stale_at = times.heard_ns + self._stale_after(times)
        quiet = times.now_ns - times.heard_ns > np.maximum(_QUIET_NS, GAP_STEPS * times.step_ns)
        stale = times.now_ns > stale_at
        for group in groups:
            key = Key(rule.name, group.entity)
            count = len(group.members)
            needed = int(np.ceil(share * count))
            if quiet[group.members].sum() >= needed:
                self._settling[group.members] = True
            held_until = self._settled.get(group.entity.id or "*")
            if stale[group.members].sum() >= needed:
                since = int(np.sort(stale_at[group.members])[needed - 1])
                self._settled[group.entity.id or "*"] = since
                now_ns = int(times.now_ns[group.members].max())
                if key in self._book.events:
                    self._book.hold(key, now_ns)
                elif now_ns >= since + for_ns and not self._is_inside(rule, group.entity):
                    hosts = float(stale[group.members].sum())
                    place = EntityPlace()
                    values: dict[str, float | str] = {"value": hosts, "hosts": float(count), "source": group.entity.id}
                    self._book.open(key, since + for_ns, rule.severity, place, values)
            elif held_until is not None and key not in self._book.events:
                del self._settled[group.entity.id or "*"]
            if self._book.opened_ns(key) is not None and stale[group.members].mean() < rule.settings["clear_share"]:
                self._settled.pop(group.entity.id or "*", None)
                self._book.close(key, int(times.heard_ns[group.members].max()), "its hosts report again")

    def _is_inside(self, rule: Rule, entity: Entity) -> bool:
        """Whether the fleet's silence explains this source's."""
        return entity != FLEET and Key(rule.name, FLEET) in self._book.events

    # Hosts.

    def _judge_hosts(self, layout: FleetLayout, times: Times, excused: Mask) -> None:
        rule = self._rule("host_stale")
        if rule is None:
            return
        after = self._stale_after(times)
        critical = np.maximum(int(rule.settings["critical_s"] * SECOND), GAP_STEPS * times.step_ns)
        silence = times.now_ns - times.heard_ns
        for number in np.flatnonzero(silence > after).tolist():
            host = layout.hosts[number]
            key = Key(rule.name, Entity("host", host))
            last = int(times.heard_ns[number])
            values: dict[str, float | str] = {"value": float(silence[number]) / SECOND, "hostname": host}
            worst = silence[number] > critical[number]
            if key in self._book.events:
                if excused[number]:
                    self._book.close(key, int(times.now_ns[number]), "the host is in maintenance", is_gone=True)
                    continue
                self._book.hold(key, int(times.now_ns[number]))
            elif not excused[number] and not self._settling[number]:
                source = Entity("source", layout.sources[layout.of_source[number]])
                if not self._book.is_inhibited(rule, (Entity("host", host), source, FLEET)):
                    values["value"] = float(after[number]) / SECOND
                    self._book.open(key, last + int(after[number]), "warning", EntityPlace(host), values)
            if worst and key in self._book.events:
                values["value"] = float(critical[number]) / SECOND
                self._book.raise_to(key, last + int(critical[number]), "critical", values)
        for number in np.flatnonzero(silence <= after).tolist():
            key = Key(rule.name, Entity("host", layout.hosts[number]))
            opened = self._book.opened_ns(key)
            if opened is not None and times.before_ns[number] > opened:
                self._book.close(key, int(times.heard_ns[number]), "it reports again")

    # GPUs.

    def _judge_gpus(self, layout: FleetLayout, times: Times, facts: Facts) -> None:
        rule = self._rule("gpu_missing")
        if rule is None:
            return
        host_ns, now_ns = times.host_ns[layout.host], times.now_ns[layout.host]
        after = self._missing_after(rule, times)[layout.host]
        resumed = np.array([self._resumed.get(host, 0) for host in layout.hosts], np.int64)[layout.host]
        since_ns = np.maximum(times.board_ns, resumed)
        absent = host_ns - since_ns
        hears = (now_ns - times.heard_ns[layout.host] <= self._stale_after(times)[layout.host]) & (absent >= after)
        # What waited somewhere may arrive GPU by GPU.
        hears &= times.heard_ns[layout.host] - times.board_heard_ns >= after
        recent = absent <= int(rule.settings["seen_within_s"] * SECOND)
        for at in np.flatnonzero(hears).tolist():
            row = int(layout.rows[at])
            gpu = self._registry.gpus[row]
            entity = Entity("gpu", gpu.id)
            key = Key(rule.name, entity)
            excused = gpu.id in facts.excused_gpus or gpu.hostname in facts.excused_hosts
            if key in self._book.events:
                if excused:
                    self._book.close(key, int(now_ns[at]), "it is in maintenance", is_gone=True)
                else:
                    self._book.hold(key, int(host_ns[at]))
            elif not excused and recent[at]:
                source = Entity("source", gpu.source)
                if not self._book.is_inhibited(rule, (entity, Entity("host", gpu.hostname), source, FLEET)):
                    values: dict[str, float | str] = {"value": float(after[at]) / SECOND, "hostname": gpu.hostname}
                    opened = int(since_ns[at] + after[at])
                    self._book.open(key, opened, rule.severity, place_of(self._registry, row), values)
        before_ns = of_boards(self._registry.before_ns, self._registry.board)
        for key in self._book.keys_of(rule.name, "gpu"):
            found = self._registry.row_of.get(key.entity.id)
            # Two samples since, so that one stray reading is no return.
            if found is not None and before_ns[found] >= (self._book.opened_ns(key) or 0):
                self._book.close(key, int(self._registry.last_ns[found]), "it is seen again")

    def _missing_after(self, rule: Rule, times: Times) -> Ints:
        """How long a GPU has to be absent, by host."""
        samples, seconds = int(rule.settings["samples"]), int(rule.settings["after_s"] * SECOND)
        return np.maximum(seconds, samples * times.step_ns)

    # Slots.

    def _judge_slots(self, layout: FleetLayout, times: Times, facts: Facts) -> None:
        rule = self._rule("gpu_missing")
        if rule is None:
            return
        lacking = self._lacking(layout, facts)
        fresh = times.now_ns - times.heard_ns <= self._stale_after(times)
        after = self._missing_after(rule, times)
        number_of = {host: number for number, host in enumerate(layout.hosts)}
        self._waits = {place: since for place, since in self._waits.items() if place in lacking}
        for host, slot in sorted(lacking):
            number = number_of[host]
            if not fresh[number] or host in facts.excused_hosts:
                continue
            since = self._waits.setdefault((host, slot), int(times.heard_ns[number]))
            entity = Entity("slot", f"{host}/{slot}")
            key = Key(rule.name, entity)
            if key in self._book.events:
                self._book.hold(key, int(times.host_ns[number]))
            elif times.heard_ns[number] - since >= after[number]:
                source = Entity("source", layout.sources[layout.of_source[number]])
                if not self._book.is_inhibited(rule, (entity, Entity("host", host), source, FLEET)):
                    values: dict[str, float | str] = {"value": float(after[number]) / SECOND, "hostname": host}
                    place = EntityPlace(host, slot, layout.models[number])
                    self._book.open(key, since + int(after[number]), rule.severity, place, values, NEVER_SEEN)
        for key in self._book.keys_of(rule.name, "slot"):
            host, _, slot_text = key.entity.id.rpartition("/")
            if host in number_of and fresh[number_of[host]] and (host, int(slot_text)) not in lacking:
                self._book.close(key, int(times.host_ns[number_of[host]]), "no GPU is lacking there any more")

    def _counts(self, layout: FleetLayout) -> list[int]:
        """How many GPUs each host has: without those that fell silent before another came to their slot."""
        counts: list[int] = np.bincount(layout.host, minlength=len(layout.hosts)).tolist()
        first_ns, last_ns = self._registry.first_ns, self._registry.last_ns
        starts = np.searchsorted(layout.host, np.arange(len(layout.hosts) + 1)).tolist()  # rows are by host
        for number, slots in enumerate(layout.slots):
            if len(slots) == counts[number]:
                continue
            newest: dict[int, int] = {}
            placed = [
                (row, self._registry.gpus[row].slot)
                for row in layout.rows[starts[number] : starts[number + 1]].tolist()
            ]
            for row, slot in placed:
                if slot is not None:
                    newest[slot] = max(newest.get(slot, 0), int(first_ns[row]))
            counts[number] = sum(slot is None or int(last_ns[row]) >= newest[slot] for row, slot in placed)
        return counts

    def _lacking(self, layout: FleetLayout, facts: Facts) -> set[tuple[str, int]]:
        """Slots that should have a GPU where none was ever seen."""
        counts = self._counts(layout)
        retired = self._retired_slots(facts)
        whole = [
            count + len(retired.get(host, set()) - layout.slots[number])
            for number, (host, count) in enumerate(zip(layout.hosts, counts, strict=True))
        ]
        learned = learned_counts(list(zip(layout.models, whole, strict=True)))
        found: set[tuple[str, int]] = set()
        for number, host in enumerate(layout.hosts):
            given = facts.expected.get(host)
            expected = given if given is not None else learned.get(layout.models[number], 0)
            excluded = retired.get(host, set()) if given is None else set()
            taken = layout.slots[number] | excluded
            lacking = expected - counts[number] - len(excluded - layout.slots[number])
            if lacking > 0:
                free = (slot for slot in range(expected) if slot not in taken)
                found.update((host, slot) for slot, _ in zip(free, range(lacking), strict=False))
        return found

    def _retired_slots(self, facts: Facts) -> Mapping[str, set[int]]:
        found: dict[str, set[int]] = {}
        for gpu_id in facts.retired_gpus:
            row = self._registry.row_of.get(gpu_id)
            if row is not None and (slot := self._registry.gpus[row].slot) is not None:
                found.setdefault(self._registry.gpus[row].hostname, set()).add(slot)
        return found

    # All of them.

    def _close_departed(self, layout: FleetLayout, facts: Facts, now_ns: int) -> None:
        """Events of what a person retired, or of a GPU that another one has replaced, are over."""
        for key in list(self._book.events):
            kind, name = key.entity
            if kind == "gpu":
                gpu_id = name.partition(":")[0]
                row = self._registry.row_of.get(name)
                host = self._registry.gpus[row].hostname if row is not None else ""
                if gpu_id in facts.retired_gpus or host in facts.retired_hosts:
                    self._book.close(key, now_ns, "retired", is_gone=True)
                elif gpu_id in self._places.replaced:
                    self._book.close(key, now_ns, "another GPU is in its place", is_gone=True)
            elif kind in {"host", "slot"}:
                host = name if kind == "host" else name.rpartition("/")[0]
                if host in facts.retired_hosts:
                    self._book.close(key, now_ns, "retired", is_gone=True)
                elif kind == "slot" and host in facts.excused_hosts and key.rule == "gpu_missing":
                    self._book.close(key, now_ns, "it is in maintenance", is_gone=True)

    def _mark_lost(self, layout: FleetLayout, times: Times) -> None:
        """Of a GPU that is not heard of it is not known whether its events still hold."""
        after = self._stale_after(times)[layout.host]
        silent = (times.now_ns - times.heard_ns)[layout.host] > after
        silent |= times.heard_ns[layout.host] - times.board_heard_ns > after
        boards = {self._registry.gpus[row].uuid for row in layout.rows[silent].tolist()}
        missing = {key.entity.id for key in self._book.keys_of("gpu_missing", "gpu")}
        now_ns = int(times.now_ns.max())
        for key in list(self._book.events):
            if key.entity.kind != "gpu" or key.rule == "gpu_missing":
                continue
            board = key.entity.id.partition(":")[0]
            if board in boards or board in missing:
                self._book.lose(key, now_ns)
            else:
                self._book.regain(key, now_ns)

    def expire(self) -> None:
        """Forget hosts that have no GPU any more: a GPU may be said to be on any number of hosts, one after the other."""
        hosts = self._registry.by_host
        self._resumed = {host: since for host, since in self._resumed.items() if host in hosts}
        for host in [host for host in self._skews if host not in hosts]:
            key = Key("clock_skew", Entity("host", host))
            self._book.close(key, self._skews.pop(host).last_ns, "no GPU is there any more", is_gone=True)

    def forget(self, key: Key) -> None:
        """A person closed the event: begin anew."""
        if key.entity.kind == "slot":
            host, _, slot = key.entity.id.rpartition("/")
            self._waits.pop((host, int(slot)), None)
        if key.rule == "clock_skew":
            self._skews.pop(key.entity.id, None)

    def state(self) -> AbsenceState:
        """Everything, for ``restore``."""
        waits = [SlotWait(host, slot, since) for (host, slot), since in self._waits.items()]
        return AbsenceState(waits, self._skews, self._settled, self._resumed)

    def restore(self, state: AbsenceState) -> None:
        """Take over the state of another judge."""
        self._waits = {(wait.host, wait.slot): wait.since_ns for wait in state.waits}
        self._skews = dict(state.skews)
        self._settled = dict(state.settled)
        self._resumed = dict(state.resumed)
