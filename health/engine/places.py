"""The fleet by host, slot and source, as the readings show it: what rules about absence compare."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from health.engine.events import Entity, EntityPlace
from health.engine.facts import Facts
from health.engine.registry import Ints, Mask, Registry, Rows


class FleetLayout(NamedTuple):
    """Boards by host. ``rows`` are the registry's rows of boards that are neither retired nor replaced; ``host`` is each one's host.

    ``of_source`` is each host's source, by its newest board; ``live`` whether that is a live one.
    """

    hosts: tuple[str, ...]
    rows: Rows
    host: Rows
    sources: tuple[str, ...]
    of_source: Rows
    live: Mask
    models: tuple[str, ...]
    slots: tuple[frozenset[int], ...]


class Times(NamedTuple):
    """When boards (``board_ns``) and hosts (``host_ns``) had their newest samples, and what time it is for each host (``now_ns``).

    ``board_heard_ns`` and ``heard_ns`` are when these samples arrived, ``before_ns`` when the host's one before did: what waited in a
    spool is late, but nobody is silent. ``step_ns`` is the usual time between its samples.
    """

    board_ns: Ints
    board_heard_ns: Ints
    host_ns: Ints
    heard_ns: Ints
    before_ns: Ints
    step_ns: Ints
    now_ns: Ints


class FleetPlaces:
    """Keeps the layout until GPUs or what people decided about them change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        # Boards whose slot another one has taken.
        self.replaced: set[str] = set()
        self._layout: FleetLayout | None = None
        self._key: object = None
        self._facts: Facts | None = None

    def layout(self, facts: Facts) -> FleetLayout:
        """The boards that should report, by host."""
        key = (self._registry.changes, len(self.replaced))
        if self._layout is None or self._key != key or self._facts is not facts:
            self._layout, self._key, self._facts = self._made(facts), key, facts
        return self._layout

    def _made(self, facts: Facts) -> FleetLayout:
        registry = self._registry
        hosts = sorted(
            host for host, rows in registry.by_host.items() if host and rows and host not in facts.retired_hosts
        )
        rows: list[int] = []
        host_of: list[int] = []
        sources: dict[str, int] = {}
        of_source: list[int] = []
        live: list[bool] = []
        models: list[str] = []
        slots: list[frozenset[int]] = []
        kept: list[str] = []
        for host in hosts:
            boards = [
                row
                for row in registry.by_host[host]
                if not (gpu := registry.gpus[row]).mig_id
                and gpu.id not in facts.retired_gpus
                and gpu.id not in self.replaced
            ]
            if not boards:
                continue
            newest = registry.gpus[max(boards, key=lambda row: int(registry.last_ns[row]))]
            rows += boards
            host_of += [len(kept)] * len(boards)
            of_source.append(sources.setdefault(newest.source, len(sources)))
            live.append(newest.live)
            models.append(_most_common([registry.gpus[row].model for row in boards]))
            slots.append(frozenset(slot for row in boards if (slot := registry.gpus[row].slot) is not None))
            kept.append(host)
        return FleetLayout(
            tuple(kept),
            np.array(rows, np.int32),
            np.array(host_of, np.int32),
            tuple(sources),
            np.array(of_source, np.int32),
            np.array(live, np.bool_),
            tuple(models),
            tuple(slots),
        )

    def times(self, layout: FleetLayout, now_ns: int) -> Times:
        """The newest samples. Live hosts go by ``now_ns``, those of a capture by the newest sample of their capture."""
        registry = self._registry
        newest, heard, before, step = (
            of_boards(each, registry.board)
            for each in (registry.last_ns, registry.heard_ns, registry.heard_before_ns, registry.step_ns)
        )
        board_ns = newest[layout.rows]
        host_ns, heard_ns, before_ns, step_ns = (
            _of_hosts(each[layout.rows], layout) for each in (newest, heard, before, step)
        )
        of_capture = np.zeros(len(layout.sources), np.int64)
        captured = ~layout.live
        np.maximum.at(of_capture, layout.of_source[captured], host_ns[captured])
        now = np.where(layout.live, now_ns, of_capture[layout.of_source])
        return Times(board_ns, heard[layout.rows], host_ns, heard_ns, before_ns, step_ns, now)


def of_boards(times_ns: Ints, board: Rows) -> Ints:
    """What counts for a board: the largest of its own and its instances'."""
    largest = times_ns.copy()
    np.maximum.at(largest, board, times_ns)
    return largest


def _of_hosts(times_ns: Ints, layout: FleetLayout) -> Ints:
    largest = np.zeros(len(layout.hosts), np.int64)
    np.maximum.at(largest, layout.host, times_ns)
    return largest


def _most_common(names: list[str]) -> str:
    return Counter(names).most_common(1)[0][0] if names else ""


def place_of(registry: Registry, row: int) -> EntityPlace:
    """Where the GPU of this row is."""
    gpu = registry.gpus[row]
    return EntityPlace(gpu.hostname, gpu.slot, gpu.model, gpu.namespace, gpu.pod)


def around(registry: Registry, row: int) -> tuple[Entity, ...]:
    """The GPU of this row, its board, its host, its source and the fleet: what may explain an event of it."""
    gpu = registry.gpus[row]
    own = (Entity("gpu", gpu.id),) if not gpu.mig_id else (Entity("gpu", gpu.id), Entity("gpu", gpu.uuid))
    return (*own, Entity("host", gpu.hostname), Entity("source", gpu.source), Entity("fleet", ""))
