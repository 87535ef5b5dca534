"""GPUs that take another's place, and GPUs that were reset: both are seen from what stands in their readings."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from health.engine.book import Book
from health.engine.events import Entity, Key
from health.engine.growth import RESET_BELOW
from health.engine.intake import Arrivals
from health.engine.places import FleetPlaces, place_of
from health.engine.registry import Registry
from health.rules.model import Rules
from readings.times import SECOND

# Counters that only a reset of the GPU or a reload of its driver sets back.
VOLATILE = (
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
)
# The other GPU may be seen in the same moments as the new one: two exporters can give one slot to both.
_SETTLE_NS = 60 * SECOND
_FORGET_NS = 3600 * SECOND
# GPUs of one slot that are compared: the newest ones.
_MOST_IN_SLOT = 16


class IdentityState(msgspec.Struct):
    """The stored state of an IdentityJudge: GPUs that are still to be judged, and when which was reset."""

    pending: list[int]
    resets: dict[int, int]


class IdentityJudge:
    """Judges new GPUs a minute after they came, and falls of counters as they arrive."""

    def __init__(
        self, rules: Rules, registry: Registry, places: FleetPlaces, book: Book, was_reset: Callable[[int, int], None]
    ) -> None:
        self._rules = rules
        self._registry = registry
        self._places = places
        self._book = book
        self._was_reset = was_reset
        # When each GPU was last reset.
        self.resets: dict[int, int] = {}
        self._pending: list[int] = []
        self._known = 0

    def take(self, arrivals: Arrivals) -> None:
        """Look for resets, and note GPUs that are new."""
        if len(self._registry) > self._known:
            self._pending += range(self._known, len(self._registry))
            self._known = len(self._registry)
        fell: dict[tuple[int, int], None] = {}
        for name in VOLATILE:
            number = arrivals.number_of.get(name)
            if number is None:
                continue
            for at in np.flatnonzero(arrivals.points[number] < RESET_BELOW * arrivals.before[number]).tolist():
                fell[int(arrivals.rows[at]), int(arrivals.times_ns[at])] = None
        rule = self._rules.get("gpu_reset")
        for row, at_ns in sorted(fell, key=lambda each: (each[1], each[0])):
            if self.resets.get(row) == at_ns:
                continue  # other counters of the same sample came in another message
            self._was_reset(row, at_ns)
            self.resets[row] = at_ns
            if rule is not None and rule.enabled:
                key = Key(rule.name, Entity("gpu", self._registry.gpus[row].id))
                self._book.point(key, at_ns, rule.severity, place_of(self._registry, row))

    def tick(self, now_of: Callable[[int], int]) -> None:
        """Decide whether a new GPU took the place of another."""
        left = []
        boards: dict[str, dict[int | None, list[int]]] = {}
        for row in self._pending:
            first_ns = int(self._registry.first_ns[row])
            gpu = self._registry.gpus[row]
            if not first_ns or gpu.mig_id or gpu.slot is None or not gpu.hostname:
                if not first_ns and not gpu.mig_id:
                    left.append(row)
                continue
            if gpu.hostname not in boards:
                boards[gpu.hostname] = self._boards_by_slot(gpu.hostname)
            others = [
                other
                for other in boards[gpu.hostname][gpu.slot]
                if other != row and 0 < self._registry.first_ns[other] < first_ns
            ]
            if not others:
                continue
            waits = int(self._registry.last_ns[row]) < first_ns + _SETTLE_NS
            if waits and now_of(row) < first_ns + _FORGET_NS:
                left.append(row)
                continue
            self._replace(row, others, first_ns)
        self._pending = left

    def _boards_by_slot(self, hostname: str) -> dict[int | None, list[int]]:
        """The boards of a host by slot; of one where too many were seen the newest."""
        found: dict[int | None, list[int]] = {}
        for row in self._registry.by_host[hostname]:
            gpu = self._registry.gpus[row]
            if not gpu.mig_id:
                found.setdefault(gpu.slot, []).append(row)
        return {slot: rows[-_MOST_IN_SLOT:] for slot, rows in found.items()}

    def _replace(self, row: int, others: list[int], first_ns: int) -> None:
        rule = self._rules.get("gpu_replaced")
        gpu = self._registry.gpus[row]
        for other in others:
            old = self._registry.gpus[other]
            if self._registry.last_ns[other] > first_ns or old.id in self._places.replaced:
                continue
            self._places.replaced.add(old.id)
            if rule is not None and rule.enabled:
                key = Key(rule.name, Entity("gpu", gpu.id))
                place = place_of(self._registry, row)
                self._book.point(key, first_ns, rule.severity, place, {"old": old.id, "new": gpu.id})

    def seen_again(self) -> None:
        """A GPU that was replaced and reports again is back, perhaps in another place."""
        newest_of: dict[str, dict[int | None, list[tuple[int, int]]]] = {}
        for gpu_id in sorted(self._places.replaced):
            row = self._registry.row_of.get(gpu_id)
            if row is None:
                self._places.replaced.discard(gpu_id)
                continue
            gpu = self._registry.gpus[row]
            if gpu.hostname not in newest_of:
                newest_of[gpu.hostname] = self._newest_by_slot(gpu.hostname)
            newest = next((first for first, other in newest_of[gpu.hostname][gpu.slot] if other != row), 0)
            if self._registry.last_ns[row] > newest:
                self._places.replaced.discard(gpu_id)
                self._registry.changes += 1

    def _newest_by_slot(self, hostname: str) -> dict[int | None, list[tuple[int, int]]]:
        """The first samples and rows of the two newest in each slot, the newest first."""
        found: dict[int | None, list[tuple[int, int]]] = {}
        first_ns = self._registry.first_ns
        for row in self._registry.by_host[hostname]:
            newest = found.setdefault(self._registry.gpus[row].slot, [])
            newest.append((int(first_ns[row]), row))
            newest.sort(reverse=True)
            del newest[2:]
        return found

    def state(self) -> IdentityState:
        """Everything, for ``restore``."""
        return IdentityState(self._pending, self.resets)

    def restore(self, state: IdentityState) -> None:
        """Take over the state of another judge."""
        self._pending = list(state.pending)
        self.resets.update(state.resets)
        self._known = len(self._registry)
