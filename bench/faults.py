"""A made-up fleet with faults, near-misses and noise, and the truth about them, for bench.health.

The truth is written from the descriptions of the rules (their thresholds, samples and times), and nothing of ``health`` is imported.
A case is one fault or one near-miss on a GPU or a host: what it does to the readings at which steps, and the events that should come.
The noise (gaps, restarts of exporters, blanks, late and repeated points, points in two messages, pods that come and go) is of hosts
that have no case at the time, and of cases that say so.
"""

from __future__ import annotations

import math
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from readings.model import DRIVER_LABEL, Gpu, Point, PointBlock

SECOND = 1_000_000_000
STEP_S = 30
STEP = STEP_S * SECOND
START_NS = 1_772_323_200_000_000_000  # 2026-03-01T00:00:00Z
ABSENT = math.nan
LINKS = 4
# The source each of whose points comes in two messages.
SPLIT = "second"
# The host whose last slot never had a GPU.
LACKING = 1
NAMESPACE = uuid.UUID("6a3c7d3e-23b9-5b7e-9c1f-000000000000")

_DEV = (
    "GPU_UTIL", "SM_CLOCK", "POWER_USAGE", "TOTAL_ENERGY_CONSUMPTION", "GPU_TEMP", "GPU_TEMP_MARGIN_CELSIUS", "MEMORY_TEMP",
    "MEM_MAX_OP_TEMP", "FB_USED", "FB_FREE", "XID_ERRORS", "GPU_RECOVERY_ACTION", "ECC_SBE_VOL_TOTAL", "ECC_DBE_VOL_TOTAL",
    "ROW_REMAP_FAILURE", "ROW_REMAP_PENDING", "UNCORRECTABLE_REMAPPED_ROWS", "BANKS_REMAP_ROWS_AVAIL_NONE",
    "MEMORY_UNREPAIRABLE_FLAG", "INFOROM_VALID", "THERMAL_VIOLATION", "POWER_VIOLATION", "CLOCKS_EVENT_REASONS",
    "ENFORCED_POWER_LIMIT", "PCIE_REPLAY_COUNTER", "PCIE_LINK_GEN", "PCIE_MAX_LINK_GEN", "PCIE_LINK_WIDTH",
    "PCIE_MAX_LINK_WIDTH", "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
    "NVLINK_REPLAY_ERROR_COUNT_TOTAL", "NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "NVLINK_COUNT_EFFECTIVE_BER_FLOAT",
    "FABRIC_HEALTH_SUMMARY", "ECC_MODE", "PERSISTENCE_MODE", "MEM_COPY_UTIL", "RETIRED_SBE", "RETIRED_DBE", "RETIRED_PENDING",
)  # fmt: skip
NAMES = (
    *(f"DCGM_FI_DEV_{name}" for name in _DEV),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_EXP_GPU_HEALTH_STATUS:health_watch:PCIE",
    *(f"DCGM_FI_DEV_NVLINK_GET_STATE:nvlink:{link}" for link in range(LINKS)),
    # One for each XID that the cases have: rows of the exporter that come with the first error of a code.
    *(f"DCGM_EXP_XID_ERRORS_TOTAL:xid:{code}" for code in (13, 31, 39, 79, 119)),
)
COLUMN = {name: number for number, name in enumerate(NAMES)}
_SHORT = {
    **{name: COLUMN[f"DCGM_FI_DEV_{name}"] for name in _DEV},
    "GR": COLUMN["DCGM_FI_PROF_GR_ENGINE_ACTIVE"],
    "HEALTH": COLUMN["DCGM_EXP_GPU_HEALTH_STATUS:health_watch:PCIE"],
    **{f"LINK{link}": COLUMN[f"DCGM_FI_DEV_NVLINK_GET_STATE:nvlink:{link}"] for link in range(LINKS)},
    **{f"TOTAL{code}": COLUMN[f"DCGM_EXP_XID_ERRORS_TOTAL:xid:{code}"] for code in (13, 31, 39, 79, 119)},
    "UTIL": COLUMN["DCGM_FI_DEV_GPU_UTIL"],
    "POWER": COLUMN["DCGM_FI_DEV_POWER_USAGE"],
    "ENERGY": COLUMN["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"],
    "TEMP": COLUMN["DCGM_FI_DEV_GPU_TEMP"],
    "MARGIN": COLUMN["DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS"],
    "XID": COLUMN["DCGM_FI_DEV_XID_ERRORS"],
    "ACTION": COLUMN["DCGM_FI_DEV_GPU_RECOVERY_ACTION"],
    "REASONS": COLUMN["DCGM_FI_DEV_CLOCKS_EVENT_REASONS"],
    "SBE": COLUMN["DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"],
    "DBE": COLUMN["DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"],
    "REPLAYS": COLUMN["DCGM_FI_DEV_PCIE_REPLAY_COUNTER"],
    "BER": COLUMN["DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER_FLOAT"],
    "FABRIC": COLUMN["DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY"],
}
# What a longer metric list adds on the second day.
_GROWN = (
    "XID", "SBE", "DBE", "UNCORRECTABLE_REMAPPED_ROWS", "REPLAYS", "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
    "NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "NVLINK_REPLAY_ERROR_COUNT_TOTAL", "NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "THERMAL_VIOLATION",
)  # fmt: skip
_VOLATILE = ("ENERGY", "SBE", "DBE", "THERMAL_VIOLATION", "POWER_VIOLATION")
MEMORY = 81_000.0
H100, A100, V100, GB200 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "Tesla V100-SXM2-32GB", "NVIDIA GB200"
_LIMITS = {H100: 700.0, A100: 400.0, V100: 300.0, GB200: 1200.0}
_GENERATIONS = {H100: 5.0, A100: 4.0, V100: 3.0, GB200: 5.0}
Floats = NDArray[np.float64]


# Events that are over at once. Another one soon after is a repeat of the same.
POINT_RULES = frozenset({"xid_app", "gpu_reset", "gpu_replaced"})


class Expect(NamedTuple):
    """An event that should come: its first bad sample is of step ``bad``, its first good one of ``good`` (None: it stays).

    It opens with the sample at which the condition has held for ``samples`` samples and ``for_s`` seconds, and may come up to
    ``early`` steps before and ``late`` after. It closes likewise, ``close_early`` and ``close_late``. ``closes`` None: either way.
    ``point``: it is over at once, and another one soon after is a repeat.
    ``entity`` is empty where any will do. ``subject`` None: any.
    """

    rule: str
    entity: tuple[str, str]
    severity: str
    bad: int
    good: int | None = None
    samples: int = 1
    for_s: float = 0.0
    clear_samples: int = 1
    clear_s: float = 0.0
    early: int = 1
    late: int = 1
    close_early: int = 1
    close_late: int = 1
    closes: bool | None = True
    subject: str | None = ""
    row: int = -1  # whose samples count; -1: the steps as they are


class Op(NamedTuple):
    """What a case does to a row from step ``since`` to before ``until``."""

    since: int
    until: int
    do: Callable[[World, int, int], None]


@dataclass(slots=True)
class Case:
    """A fault (``fault``) or a near-miss. Its rows are ``host``'s GPUs, or the one at ``row``."""

    label: str
    rule: str
    fault: bool
    start: int
    until: int
    row: int
    host: int
    ops: list[Op] = field(default_factory=list)
    expects: list[Expect] = field(default_factory=list)

    def op(self, since: int, until: int, do: Callable[[World, int, int], None]) -> None:
        """Add what happens between two steps, counted from the case's start."""
        self.ops.append(Op(self.start + since, self.start + until, do))

    def set(self, since: int, until: int, **values: float) -> None:
        """Replace readings."""
        columns = [(_SHORT[name], value) for name, value in values.items()]

        def do(world: World, row: int, step: int) -> None:
            for column, value in columns:
                world.values[row, column] = value

        self.op(since, until, do)

    def freeze(self, since: int, until: int, name: str) -> None:
        """Let a reading stand still."""
        column = _SHORT[name]
        kept: dict[int, float] = {}

        def do(world: World, row: int, step: int) -> None:
            kept.setdefault(row, world.sent[row, column])
            world.values[row, column] = kept[row]

        self.op(since, until, do)

    def grow(self, since: int, until: int, **amounts: float) -> None:
        """Let counters grow by so much each step; what they grew by stays."""
        columns = [(_SHORT[name], amount) for name, amount in amounts.items()]

        def do(world: World, row: int, step: int) -> None:
            for column, amount in columns:
                world.added[row, column] += amount
                world.values[row, column] += amount

        self.op(since, until, do)

    def keep(self, since: int, **values: float) -> None:
        """Replace readings for good."""
        self.set(since, 10**9, **values)

    def drop(self, *steps: int) -> None:
        """Lose the samples of these steps."""
        for step in steps:
            self.op(step, step + 1, lambda world, row, _: world.present.__setitem__(row, False))

    def gone(self, since: int, until: int) -> None:
        """Lose all samples between two steps."""
        self.op(since, until, lambda world, row, _: world.present.__setitem__(row, False))

    def reset(self, step: int) -> None:
        """Start the volatile counters again."""

        def do(world: World, row: int, _: int) -> None:
            for name in _VOLATILE:
                column = _SHORT[name]
                world.added[row, column] -= world.values[row, column]
                world.values[row, column] = 0.0

        self.op(step, step + 1, do)

    def late(self, step: int, behind: int, **values: float) -> None:
        """Send a point again whose time is ``behind`` steps before, with other readings."""
        columns = {_SHORT[name]: value for name, value in values.items()}
        self.op(step, step + 1, lambda world, row, now: world.extra.append((row, now - behind, columns)))

    def pod(self, since: int, until: int, name: str) -> None:
        """Have a pod, or none (empty)."""
        self.op(since, since + 1, lambda world, row, _: world.hold(row, name))
        self.op(until, until + 1, lambda world, row, _: world.hold(row, world.usual_pod(row)))


class Message(NamedTuple):
    """What the broker gives: a block of a source, and when it came."""

    source: str
    received_ns: int
    block: PointBlock


class Spec(NamedTuple):
    """A case to be placed: ``build`` fills it in. ``steps`` is how long it lasts, with what comes after."""

    label: str
    rule: str
    fault: bool
    steps: int
    build: Callable[[Case, World], None]
    busy: bool | None = True  # what its GPU does; None: whatever
    models: tuple[str, ...] = (H100, A100, GB200)
    whole_host: bool = False
    critical: bool = False
    once_a_host: str = ""  # no other case of the host has this mark
    stays: bool = False  # for good: nothing else may be on this GPU afterwards


class World:
    """The fleet, its cases and its messages. ``sent`` are the readings of the step before, ``added`` what faults added to counters."""

    def __init__(self, specs: Sequence[Spec] = (), gpus: int = 1000, hours: float = 24.0, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.np_rng = np.random.default_rng(seed)
        self.steps = round(hours * 3600 / STEP_S)
        self._make_hosts(max(6, gpus // 8))
        count = len(self.gpus)
        self.values: Floats = np.zeros((count, len(NAMES)))
        self.sent: Floats = np.zeros((count, len(NAMES)))
        self.added: Floats = np.zeros((count, len(NAMES)))
        self.present = np.ones(count, bool)
        self.extra: list[tuple[int, int, dict[int, float]]] = []
        self.delivered: dict[int, list[int]] = defaultdict(list)
        self.silent_sources: set[str] = set()
        self.skew_s = np.zeros(len(self.hosts))
        self.cases: list[Case] = []
        self._base = self.np_rng.uniform(40, 99, count).round()
        self._busy = self.np_rng.random(count) > 0.04
        self._energy = self.np_rng.uniform(1e9, 1e11, count).round()
        self._capped = np.zeros(count)
        self._singles = np.zeros(count)
        self._last_single = np.full(count, -(10**6))
        self._models = np.array([gpu.model_name for gpu in self.gpus])
        self._restarting: list[tuple[int, int]] = []
        self._noisy_until: dict[int, int] = defaultdict(int)
        self._limit = np.array([_LIMITS[gpu.model_name] for gpu in self.gpus])
        self._generation = np.array([_GENERATIONS[gpu.model_name] for gpu in self.gpus])
        self.idle_rows: set[int] = set()
        self._occupied: set[int] = set()  # rows that ever have a case
        self._whole_hosts: set[int] = set()
        self._marks: set[tuple[int, str]] = set()
        self._critical: dict[int, int] = defaultdict(int)
        self._case_hosts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row in range(count):
            self.hold(row, self.usual_pod(row))
        # Everything is silent for twelve minutes.
        self.silence = (round(self.steps * 0.55), round(self.steps * 0.55) + 24)
        self.grows_at = round(self.steps * 0.7)
        self._plan(specs)
        self._caseless = np.ones(count, bool)
        self._caseless[list(self._occupied)] = False

    # --- the fleet

    def _make_hosts(self, count: int) -> None:
        """Hosts by source: two of H100s, one with MIG, one of several models, and one whose metric list grows."""
        grow, mixed = max(1, count // 20), max(1, count // 5)
        old = count // 10 if count >= 20 else 0
        second = max(1, count // 4)
        kinds = (
            ["first"] * (count - grow - mixed - old - second)
            + [SPLIT] * second
            + ["mixed"] * mixed
            + ["old"] * old
            + ["grow"] * grow
        )
        self.hosts: list[str] = []
        self.sources: list[str] = []  # by host
        self.gpus: list[Gpu] = []
        self.host_of: list[int] = []
        self.rows: list[list[int]] = []
        self.parts: list[int] = []  # rows of MIG instances
        self.board: list[int] = []
        for number, source in enumerate(kinds):
            name = f"node-{number:03d}"
            self.hosts.append(name)
            self.sources.append(source)
            self.rows.append([])
            place = kinds[:number].count(source)
            model = {"mixed": A100, "old": V100 if place % 3 else GB200}.get(source, H100)
            mig = source == "mixed" and place == 0
            for slot in range(7 if number == LACKING else 8):
                gpu = Gpu(
                    uuid=f"GPU-{uuid.uuid5(NAMESPACE, f'{name}/{slot}')}",
                    hostname=name,
                    gpu_id=slot,
                    device=f"nvidia{slot}",
                    model_name=model,
                    labels={DRIVER_LABEL: "580.95.05"},
                )
                for part in ("1", "2") if mig else ("",):
                    self.rows[-1].append(len(self.gpus))
                    self.host_of.append(number)
                    if part:
                        self.parts.append(len(self.gpus))
                        gpu = replace(gpu, mig_id=part, mig_profile="3g.40gb")
                    self.gpus.append(gpu)
        self.is_part = np.zeros(len(self.gpus), bool)
        self.is_part[self.parts] = True

    def usual_pod(self, row: int) -> str:
        """The pod that a row has when nothing else is said."""
        return f"train-{row}" if self._busy[row] else ""

    def hold(self, row: int, pod: str) -> None:
        """Have a pod on a GPU, or none."""
        self.gpus[row] = replace(
            self.gpus[row], pod=pod, namespace="team" if pod else "", container="main" if pod else ""
        )

    # --- readings

    def _healthy(self, step: int) -> None:
        count, rng, values = len(self.gpus), self.np_rng, self.values
        util = np.where(self._busy, np.clip(self._base + rng.integers(-3, 4, count), 20, 100), 0.0)
        power = np.round((0.1 + 0.8 * util / 100) * self._limit + rng.uniform(-2, 2, count), 1)
        temperature = np.round(30 + 35 * power / self._limit + rng.uniform(-0.5, 0.5, count))
        self._energy += np.round(power * STEP_S * 1000)
        capped = self._busy & (rng.random(count) < 0.3)
        self._capped += capped * 0.5 * STEP
        single = (rng.random(count) < STEP_S / (20 * 86_400)) & (step - self._last_single > 120) & self._caseless
        self._last_single[single] = step
        self._singles += single
        columns: dict[str, float | Floats] = {
            "UTIL": util,
            "MEM_COPY_UTIL": np.round(util * 0.6),
            "SM_CLOCK": np.where(self._busy, 1980.0, 345.0),
            "POWER": power,
            "ENERGY": self._energy,
            "TEMP": temperature,
            "MARGIN": 88 - temperature,
            "MEMORY_TEMP": temperature + 8,
            "MEM_MAX_OP_TEMP": 95.0,
            "FB_USED": np.where(self._busy, 40_000.0, 7.0),
            "FB_FREE": np.where(self._busy, MEMORY - 40_000, MEMORY - 7),
            "INFOROM_VALID": 1.0,
            "SBE": self._singles,
            "POWER_VIOLATION": self._capped,
            "REASONS": np.where(self._busy, capped * 4.0, 1.0),
            "ENFORCED_POWER_LIMIT": self._limit,
            # The link slows down when the GPU idles, by design.
            "PCIE_LINK_GEN": np.where(self._busy, self._generation, 1.0),
            "PCIE_MAX_LINK_GEN": self._generation,
            "PCIE_LINK_WIDTH": 16.0,
            "PCIE_MAX_LINK_WIDTH": 16.0,
            "BER": 1e-15,
            "FABRIC": 1.0,
            "ECC_MODE": 1.0,
            "PERSISTENCE_MODE": 1.0,
            "GR": np.round(util / 100 * 0.97, 4),
        }
        values[:] = 0.0
        for name, value in columns.items():
            values[:, _SHORT[name]] = value
        for link in range(LINKS):
            values[:, _SHORT[f"LINK{link}"]] = 1.0
        values[:, [COLUMN[name] for name in NAMES if "XID_ERRORS_TOTAL" in name]] = ABSENT
        values += self.added
        models = self._models
        values[models == V100, _SHORT["MEM_MAX_OP_TEMP"]] = ABSENT
        values[models == V100, _SHORT["MARGIN"]] = ABSENT
        retired = [_SHORT[name] for name in ("RETIRED_SBE", "RETIRED_DBE", "RETIRED_PENDING")]
        values[np.ix_(np.flatnonzero(models != V100), np.array(retired))] = ABSENT
        # These cards have no bridges: their links are off from the start.
        links = [_SHORT[f"LINK{link}"] for link in range(LINKS)]
        values[np.ix_(np.flatnonzero(models == V100), np.array(links))] = 0.0
        # The instances of a board repeat its values, except for what they do themselves.
        own = [_SHORT[name] for name in ("GR", "FB_USED", "FB_FREE")]
        kept = values[self.parts[1::2]][:, own]
        values[self.parts[1::2]] = values[self.parts[::2]]
        values[np.ix_(np.array(self.parts[1::2], int), np.array(own))] = kept
        values[self.is_part, _SHORT["UTIL"]] = ABSENT
        for host in range(len(self.hosts)):
            if self.sources[host] == "grow":
                rows = np.array(self.rows[host])
                for name in _GROWN:
                    if step < self.grows_at:
                        values[rows, _SHORT[name]] = ABSENT
                    else:
                        values[rows[::2], _SHORT[name]] += {"XID": 79.0, "THERMAL_VIOLATION": 5e12}.get(name, 40.0)

    def messages(self) -> Iterator[Message | int]:
        """The messages of all steps in the order in which they come; between them the time, as the clock goes on."""
        last_time = np.full(len(self.gpus), -1, np.int64)
        held: list[tuple[int, str, list[tuple[int, int, list[float | None]]]]] = []
        past: list[Message] = []
        ops = sorted((op for case in self.cases for op in case.ops), key=lambda op: op.since)
        rows_of = {id(op): self._rows_of(case) for case in self.cases for op in case.ops}
        running: list[Op] = []
        order = list(dict.fromkeys(self.sources))
        for step in range(self.steps):
            now = START_NS + step * STEP
            self.present[:] = True
            self.extra.clear()
            self._healthy(step)
            while ops and ops[0].since <= step:
                running.append(ops.pop(0))
            running = [op for op in running if op.until > step]
            for op in running:
                for row in rows_of[id(op)]:
                    op.do(self, row, step)
            quiet = self._quiet_hosts(step)
            self._noise(step, quiet)
            silent = self.silence[0] <= step < self.silence[1]
            for number, source in enumerate(order):
                if silent or source in self.silent_sources:
                    continue
                rows = [row for host in self._hosts_of(source) for row in self.rows[host] if self.present[row]]
                time_ns = now + number * 2 * SECOND
                points = [(row, time_ns + int(self.skew_s[self.host_of[row]]) * SECOND) for row in rows]
                for row, _ in points:
                    if time_ns > last_time[row]:
                        last_time[row] = time_ns
                        if row in self._occupied:
                            self.delivered[row].append(step)
                held_now = quiet and self.rng.random() < 0.03
                late_host = self.rng.choice(quiet) if held_now and quiet else -1
                if late_host >= 0 and self.sources[late_host] == source:
                    kept = [(row, moment) for row, moment in points if self.host_of[row] == late_host]
                    points = [(row, moment) for row, moment in points if self.host_of[row] != late_host]
                    held.append((step + self.rng.randint(1, 3), source, self._lists(kept)))
                lists = self._lists(points)
                for row, earlier, changed in self.extra:
                    if self.sources[self.host_of[row]] == source:
                        cells = self._cells(row)
                        for column, value in changed.items():
                            cells[column] = value
                        lists.append((row, START_NS + earlier * STEP + number * 2 * SECOND, cells))
                received = time_ns + SECOND
                sent = list(self._blocks(source, received, lists))
                yield from sent
                if self.rng.random() < 0.02:
                    yield from sent  # the same again
                past = (past + sent)[-20:]
                if past and self.rng.random() < 0.01:
                    again = self.rng.choice(past)
                    yield Message(again.source, received, again.block)
                for due, of, kept_points in [entry for entry in held if entry[0] <= step and entry[1] == source]:
                    held.remove((due, of, kept_points))
                    yield from self._blocks(source, received, kept_points)
            self.sent[:] = self.values
            for beat in range(1, 4):
                yield now + beat * 9 * SECOND

    def _cells(self, row: int) -> list[float | None]:
        return [None if value != value else value for value in self.values[row].tolist()]

    def _lists(self, points: Sequence[tuple[int, int]]) -> list[tuple[int, int, list[float | None]]]:
        if not points:
            return []
        rows = [row for row, _ in points]
        picked = self.values[rows]
        lists: list[list[float | None]] = picked.tolist()
        for place in np.flatnonzero(np.isnan(picked).any(1)):
            lists[place] = [None if value != value else value for value in lists[place]]
        return [(row, moment, cells) for (row, moment), cells in zip(points, lists, strict=True)]

    def _blocks(
        self, source: str, received_ns: int, points: Sequence[tuple[int, int, list[float | None]]]
    ) -> Iterator[Message]:
        """One block, or of the second source two, each with half of the metrics."""
        if not points:
            return
        rows = list(dict.fromkeys(row for row, _, _ in points))
        place = {row: number for number, row in enumerate(rows)}
        gpus = [self.gpus[row] for row in rows]
        columns = [number for number in range(len(NAMES)) if any(cells[number] is not None for _, _, cells in points)]
        halves = [columns] if source != SPLIT else [columns[::2], columns[1::2]]
        for half in halves:
            whole = len(half) == len(NAMES)
            block: list[Point] = [
                (place[row], moment, cells if whole else [cells[number] for number in half])
                for row, moment, cells in points
            ]
            yield Message(source, received_ns, PointBlock(gpus, [NAMES[number] for number in half], block))

    # --- noise

    def _quiet_hosts(self, step: int) -> list[int]:
        return [
            host
            for host in range(len(self.hosts))
            if not any(since <= step <= until for since, until in self._case_hosts[host])
            and self.sources[host] != "grow"
        ]

    def _noise(self, step: int, quiet: Sequence[int]) -> None:
        rng = self.rng
        if not quiet:
            return
        rows = [row for host in quiet for row in self.rows[host]]
        # One sample of a host at a time, so that the noise does not add up to a fault.
        for _ in range(math.ceil(len(rows) / 300)):
            row = rng.choice(rows)
            if self._noisy_until[self.host_of[row]] <= step and rng.random() < len(rows) / 300:
                self._noisy_until[self.host_of[row]] = step + 8
                self.present[row] = False
        for _ in range(math.ceil(len(rows) / 100)):
            self.values[rng.choice(rows), rng.randrange(len(_DEV))] = ABSENT
        if rng.random() < 0.02:  # pods come and go
            row = rng.choice(rows)
            if self._busy[row]:
                self.hold(row, f"train-{row}-{step}")
        # An exporter restarts: three samples are lost.
        self._restarting = [(host, until) for host, until in self._restarting if until > step]
        host = rng.choice(quiet)
        if rng.random() < 0.01 and self._noisy_until[host] <= step:
            self._noisy_until[host] = step + 20
            self._restarting.append((host, step + 3))
        for host, _ in self._restarting:
            if host in quiet:
                self.present[self.rows[host]] = False

    def _hosts_of(self, source: str) -> list[int]:
        return [host for host, name in enumerate(self.sources) if name == source]

    def _rows_of(self, case: Case) -> list[int]:
        return self.rows[case.host] if case.row < 0 else [case.row]

    # --- cases

    def entity(self, row: int) -> tuple[str, str]:
        """The GPU (the board of a MIG instance) as an entity."""
        return ("gpu", self.gpus[row].uuid)

    def place(self, spec: Spec) -> Case | None:
        """Find a GPU or host and a time for a case; None if there is no room."""
        rng = self.rng
        for _ in range(300):
            host = rng.randrange(len(self.hosts))
            if self.sources[host] == "grow" or self.gpus[self.rows[host][0]].model_name not in spec.models:
                continue
            free = [row for row in self.rows[host] if row not in self._occupied and not self.is_part[row]]
            if spec.whole_host and (
                len(free) < 8 or self._critical[host] or 4 * len(self._whole_hosts) >= len(self.hosts)
            ):
                continue
            if spec.critical and self._critical[host] >= 3:
                continue
            if spec.once_a_host and (host, spec.once_a_host) in self._marks:
                continue
            rows = [row for row in free if spec.busy is None or self._busy[row] == spec.busy]
            if not rows and free and spec.busy is False and len(self.idle_rows) < len(self.gpus) // 25:
                rows = [rng.choice(free)]
            if not rows:
                continue
            row = -1 if spec.whole_host else rng.choice(rows)
            start = self._start_of(spec)
            if start is None:
                return None
            until = start + spec.steps
            if spec.whole_host and any(since <= until and start <= end for since, end in self._case_hosts[host]):
                continue
            case = Case(spec.label, spec.rule, spec.fault, start, until, row, host)
            if row >= 0 and spec.busy is False and self._busy[row]:
                self._busy[row] = False
                self.hold(row, "")
            if row >= 0 and not self._busy[row]:
                self.idle_rows.add(row)
            self._occupied.update(self.rows[host] if row < 0 else [row])
            if row < 0:
                self._whole_hosts.add(host)
            if spec.once_a_host:
                self._marks.add((host, spec.once_a_host))
            self._critical[host] += spec.critical + 10 * spec.whole_host
            self._case_hosts[host].append((max(0, start - 2), self.steps if spec.stays else until))
            spec.build(case, self)
            self.cases.append(case)
            return case
        return None

    def _start_of(self, spec: Spec) -> int | None:
        """A step after the first 70 minutes, so that the case ends in time and nothing of it falls into the silence."""
        first = min(140, self.steps // 4)
        low, high = self.silence[0] - 4, self.silence[1] + 130
        for _ in range(200):
            last = self.steps - spec.steps - 6
            if last <= first:
                return None
            start = self.rng.randrange(first, last)
            if start + spec.steps < low or start > high:
                return start
        return None

    def _plan(self, specs: Sequence[Spec]) -> None:
        by_kind: dict[str, list[Spec]] = defaultdict(list)
        for spec in specs:
            by_kind["host" if spec.whole_host else "gpu"].append(spec)
        for kind in by_kind.values():
            self.rng.shuffle(kind)
        self.unplaced: list[Spec] = []
        for spec in by_kind["host"] + by_kind["gpu"]:
            if self.place(spec) is None:
                self.unplaced.append(spec)
        self._fixed_cases()

    def _fixed_cases(self) -> None:
        """What is not of one GPU or host: the silence of everything and of a source, an idle fleet, a list that grows, a MIG host."""
        low, high = self.silence
        if low > 20:
            self._add_silence("everything falls silent", "", low, high - low, fault=True)
        grow = self._hosts_of("grow")
        if self.steps >= 1400:
            if len(grow) > 1:
                for share, length in ((0.16, 24), (0.24, 30), (0.32, 60), (0.4, 8), (0.47, 8), (0.9, 7)):
                    self._add_silence(
                        "a source is silent", "grow", round(share * self.steps), length, fault=length > 16
                    )
            for place, (share, idle, length) in enumerate(
                (
                    (0.12, 0.23, 50),
                    (0.2, 0.26, 45),
                    (0.28, 0.3, 40),
                    (0.36, 0.15, 50),
                    (0.43, 0.25, 20),
                    (0.85, 0.25, 26),
                )
            ):
                self._add_idleness(round(share * self.steps), idle, length, fault=place < 3)
        alike = sum(source in {"first", SPLIT, "grow"} for source in self.sources)
        if alike - 1 >= max(5, 0.9 * alike):  # so many hosts of the model agree on how many GPUs a host has
            self._critical[LACKING] += 1
            lacking = Case("a slot without a GPU", "gpu_missing", True, 0, self.steps, -1, LACKING)
            lacking.expects = [
                Expect(
                    "gpu_missing", ("slot", f"{self.hosts[LACKING]}/7"), "critical", 0, samples=3, for_s=120, late=4, closes=False
                )
            ]  # fmt: skip
            self.cases.append(lacking)
        if self.steps - self.grows_at > 60:
            row = self.rows[grow[0]][1]
            case = Case(
                "a new XID after the list grew", "xid_fatal", True, self.grows_at + 40, self.steps, row, grow[0]
            )
            self._occupied.add(row)
            case.keep(0, XID=119.0)
            case.expects = [
                Expect("xid_fatal", self.entity(row), "critical", case.start, closes=False, subject="119", row=row)
            ]
            self.cases.append(case)
            label = "a longer metric list with old counts"
            self.cases.append(Case(label, "xid_fatal", False, self.grows_at, self.steps, -1, grow[0]))
        if self.silence[0] > 210:
            rows = self.parts[4:6]
            case = Case("a MIG board that is hot", "temp_high", True, 140, 200, rows[0], self.host_of[rows[0]])
            other = Case("its other instance", "temp_high", True, 140, 200, rows[1], self.host_of[rows[0]])
            self._occupied.update(rows)
            for each in (case, other):
                each.set(0, 20, TEMP=90.0, MARGIN=5.0)
            case.expects = [
                Expect("temp_high", self.entity(rows[0]), "warning", 140, 160, for_s=300, clear_samples=3, row=rows[0])
            ]
            self.cases += [case, other]
            self._case_hosts[case.host].append((130, 210))

    def _add_silence(self, label: str, source: str, start: int, length: int, *, fault: bool) -> None:
        """No message of a source, or of any. Its hosts are stale after five minutes, and it is silent when they are so for two."""
        host = self._hosts_of(source)[0] if source else 0
        case = Case(label, "source_silent", fault, start, start + length, -1, host)
        if source:
            case.op(0, length, lambda world, row, step: world.silent_sources.add(source))
            case.op(length, length + 1, lambda world, row, step: world.silent_sources.discard(source))
        if fault:
            entity = ("source", source) if source else ("", "")
            case.expects = [
                Expect(
                    "source_silent", entity, "critical", start, start + length, for_s=390, late=2, close_early=2, close_late=4,
                    subject=None,
                )
            ]  # fmt: skip
        self.cases.append(case)

    def _add_idleness(self, start: int, share: float, length: int, *, fault: bool) -> None:
        """So many of the GPUs have nothing to do for a while."""
        free = [
            row
            for row in range(len(self.gpus))
            if row not in self._occupied and self._busy[row] and not self.is_part[row]
        ]
        count = round(share * len(self.gpus)) - int((~self._busy).sum())
        if len(free) < count:
            return
        rows = self.rng.sample(free, count)

        def change(busy: bool) -> None:
            for row in rows:
                self._busy[row] = busy
                self.hold(row, self.usual_pod(row))

        case = Case(
            f"{share:.0%} of the fleet idle", "fleet_idle", fault, start, start + length, rows[0], self.host_of[rows[0]]
        )
        case.op(0, 1, lambda world, row, step: change(False))
        case.op(length, length + 1, lambda world, row, step: change(True))
        if fault:
            # What a case does is seen a step later: the readings of its first step were made before.
            case.expects = [
                Expect(
                    "fleet_idle", ("fleet", ""), "info", start + 1, start + length + 1, for_s=900, early=2, late=2, close_early=2,
                    close_late=2, subject=None,
                )
            ]  # fmt: skip
        self.cases.append(case)
