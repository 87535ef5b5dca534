"""The cases of bench.health: for every rule its faults and its near-misses, from the descriptions of the rules."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from bench.faults import (
    A100,
    ABSENT,
    GB200,
    H100,
    MEMORY,
    NAMESPACE,
    SPLIT,
    STEP,
    STEP_S,
    V100,
    Case,
    Expect,
    Spec,
    World,
)


class Gauge(NamedTuple):
    """A rule that looks at readings as they are, in the words of its description."""

    rule: str
    severity: str
    bad: Mapping[str, float]
    edge: Mapping[str, float]  # just under the threshold
    samples: int = 1
    for_s: float = 0.0
    clear_samples: int = 1
    clear_s: float = 0.0
    inside: Mapping[str, float] | None = None  # between the threshold and that to close
    busy: bool | None = True
    models: tuple[str, ...] = (H100,)
    stays: bool = False
    pod: bool = False

    @property
    def needed(self) -> int:
        """How many bad steps on end make the event."""
        return max(self.samples, math.ceil(self.for_s / STEP_S) + 1)

    @property
    def to_clear(self) -> int:
        """How many good steps on end close it."""
        return max(self.clear_samples, math.ceil(self.clear_s / STEP_S) + 1)


_BUSY = {"UTIL": 97.0, "GR": 0.94, "POWER": 500.0, "SM_CLOCK": 1980.0, "PCIE_LINK_GEN": 5.0}
_IDLE = {"UTIL": 0.0, "GR": 0.0, "FB_USED": 20_000.0, "FB_FREE": 61_000.0, "POWER": 90.0, "REASONS": 1.0}
GAUGES = (
    Gauge("prof_dead", "warning", {**_BUSY, "UTIL": 90.0, "GR": 0.0}, {**_BUSY, "UTIL": 89.0, "GR": 0.0}, for_s=600),
    Gauge("recovery_action", "critical", {"ACTION": 1.0}, {"ACTION": 0.0}, clear_samples=3),
    Gauge("recovery_action", "critical", {"ACTION": 4.0}, {"ACTION": 0.0}, clear_samples=3),
    Gauge("recovery_action", "warning", {"ACTION": 3.0}, {"ACTION": 0.0}, clear_samples=3),
    Gauge("remap_failed", "critical", {"ROW_REMAP_FAILURE": 1.0}, {"ROW_REMAP_FAILURE": 0.0}, stays=True),
    Gauge("remap_pending", "warning", {"ROW_REMAP_PENDING": 1.0}, {"ROW_REMAP_PENDING": 0.0}, clear_samples=3),
    Gauge("remap_spare_gone", "warning", {"BANKS_REMAP_ROWS_AVAIL_NONE": 1.0}, {"BANKS_REMAP_ROWS_AVAIL_NONE": 0.0}, stays=True),
    Gauge("memory_unrepairable", "critical", {"MEMORY_UNREPAIRABLE_FLAG": 1.0}, {"MEMORY_UNREPAIRABLE_FLAG": 0.0}, stays=True),
    Gauge("inforom_invalid", "warning", {"INFOROM_VALID": 0.0}, {"INFOROM_VALID": 1.0}, samples=3),
    Gauge("temp_margin", "critical", {"MARGIN": -3.0}, {"MARGIN": -2.0}, samples=3, clear_samples=3),
    Gauge("temp_high", "warning", {"TEMP": 86.0, "MARGIN": 5.0}, {"TEMP": 85.0, "MARGIN": 5.0}, for_s=300, clear_samples=3,
          inside={"TEMP": 84.0, "MARGIN": 5.0}),
    Gauge("temp_high", "critical", {"TEMP": 96.0, "MARGIN": 1.0}, {"TEMP": 85.0, "MARGIN": 9.0}, for_s=120, clear_samples=3),
    Gauge("temp_high", "warning", {"TEMP": 90.0}, {"TEMP": 85.0}, for_s=300, clear_samples=3, models=(V100,)),
    Gauge("mem_temp_high", "warning", {"MEMORY_TEMP": 96.0}, {"MEMORY_TEMP": 95.0}, for_s=300, clear_samples=3,
          inside={"MEMORY_TEMP": 94.0}, models=(H100, V100)),
    Gauge("hw_power_brake", "critical", {"REASONS": 0x80 + 8.0}, {"REASONS": 4.0}, samples=3, clear_samples=3),
    Gauge("power_out_of_range", "warning", {"POWER": 841.0}, {"POWER": 840.0}, samples=3, clear_samples=3),
    Gauge("power_out_of_range", "critical", {"POWER": 64.0}, {"POWER": 65.0}, samples=3, clear_samples=3, models=(GB200,)),
    Gauge("clock_low", "warning", {**_BUSY, "SM_CLOCK": 1180.0}, {**_BUSY, "SM_CLOCK": 1190.0}, for_s=600,
          inside={**_BUSY, "SM_CLOCK": 1500.0}),
    Gauge("pcie_downgraded", "warning", {**_BUSY, "PCIE_LINK_GEN": 4.0}, {**_BUSY, "UTIL": 5.0, "GR": 0.05, "PCIE_LINK_GEN": 4.0},
          for_s=300, clear_samples=3),
    Gauge("pcie_downgraded", "warning", {**_BUSY, "PCIE_LINK_WIDTH": 8.0}, {**_BUSY, "PCIE_LINK_WIDTH": 16.0}, for_s=300,
          clear_samples=3),
    Gauge("nvlink_inactive", "critical", {"LINK2": 0.0}, {"LINK2": 1.0}, samples=3, clear_samples=3),
    Gauge("nvlink_ber", "warning", {"BER": 1.1e-6}, {"BER": 1e-6}, samples=3, clear_samples=3),
    Gauge("fabric_unhealthy", "critical", {"FABRIC": 2.0}, {"FABRIC": 1.0}, samples=3, clear_samples=3),
    Gauge("fabric_unhealthy", "warning", {"FABRIC": 3.0}, {"FABRIC": 1.0}, samples=3, clear_samples=3),
    Gauge("dcgm_health", "critical", {"HEALTH": 20.0}, {"HEALTH": 0.0}, samples=3, clear_samples=3),
    Gauge("dcgm_health", "warning", {"HEALTH": 10.0}, {"HEALTH": 0.0}, samples=3, clear_samples=3),
    Gauge("idle_held", "info", {**_IDLE, "UTIL": 4.0}, {**_IDLE, "UTIL": 5.0, "GR": 0.05}, for_s=900, clear_samples=3,
          inside={**_IDLE, "UTIL": 7.0, "GR": 0.07}),
    Gauge("memory_full", "info", {"FB_USED": 0.951 * MEMORY, "FB_FREE": 0.049 * MEMORY},
          {"FB_USED": 0.95 * MEMORY, "FB_FREE": 0.05 * MEMORY}, for_s=300,
          inside={"FB_USED": 0.92 * MEMORY, "FB_FREE": 0.08 * MEMORY}),
    Gauge("busy_but_cold", "info", {**_BUSY, "UTIL": 96.0, "POWER": 209.0}, {**_BUSY, "UTIL": 96.0, "POWER": 210.0}, for_s=900),
    Gauge("power_unreadable", "warning", {"POWER": ABSENT}, {"POWER": 400.0}, samples=3, clear_samples=3),
    Gauge("pages_retired", "warning", {"RETIRED_PENDING": 1.0}, {"RETIRED_PENDING": 0.0}, models=(V100,)),
    Gauge("pages_retired", "critical", {"RETIRED_SBE": 50.0, "RETIRED_DBE": 13.0}, {"RETIRED_SBE": 50.0, "RETIRED_DBE": 12.0},
          models=(V100,), stays=True),
)  # fmt: skip


def gauge_specs(gauge: Gauge) -> Iterator[Spec]:
    """Three faults and three near-misses of a rule that looks at readings as they are."""
    need, clear = gauge.needed, gauge.to_clear
    critical = gauge.severity == "critical"
    tail = clear + 6

    def expect(case: Case, world: World, bad: int, good: int | None) -> None:
        good = None if gauge.stays else good
        case.expects = [
            Expect(
                gauge.rule, world.entity(case.row), gauge.severity, case.start + bad,
                None if good is None else case.start + good, gauge.samples, gauge.for_s, gauge.clear_samples, gauge.clear_s,
                closes=good is not None, row=case.row,
            )
        ]  # fmt: skip

    def plain(case: Case, world: World) -> None:
        case.set(0, 10**9 if gauge.stays else need + 5, **gauge.bad)
        expect(case, world, 0, need + 5)

    def noisy(case: Case, world: World) -> None:
        """A lost sample in the middle, good readings that come late, and the same points again."""
        case.set(0, 10**9 if gauge.stays else need + 9, **gauge.bad)
        if need > 1:
            case.drop(need // 2)
        case.drop(need + 1, need + 2)
        case.late(1, 3, **gauge.edge)
        case.late(need + 3, 1, **gauge.bad)
        case.late(need + 12, 6, **gauge.bad)
        expect(case, world, 0, need + 9)

    def hysteresis(case: Case, world: World) -> None:
        """It goes nearly back, or back for too short a time, before it ends."""
        case.set(0, need + 2, **gauge.bad)
        back = max(1, clear - 1 - (world.sources[case.host] == SPLIT and len(gauge.bad) > 1))
        if gauge.inside is not None:
            back = clear + 8
            case.set(need + 2, need + 2 + back, **gauge.inside)
        elif clear == 1:
            back = 0
        case.set(need + 2 + back, need + 5 + back, **gauge.bad)
        expect(case, world, 0, need + 5 + back)

    def edge(case: Case, world: World) -> None:
        case.set(0, 2 * need + 10, **gauge.edge)

    def just_short(case: Case, world: World) -> int:
        """One step less than needed. Where the metrics come in two messages, one half of a sample is judged with the other of before."""
        return need - 1 - (world.sources[case.host] == SPLIT and len(gauge.bad) > 1)

    def short(case: Case, world: World) -> None:
        case.set(0, just_short(case, world), **gauge.bad)

    def broken(case: Case, world: World) -> None:
        """Again and again nearly long enough, with a good sample between."""
        for turn in range(3):
            case.set(turn * need, turn * need + just_short(case, world), **gauge.bad)

    def too_late(case: Case, world: World) -> None:
        """Bad readings that come after newer good ones."""
        for step in (3, 5, 6):
            case.late(step, 2, **gauge.bad)

    def blank(case: Case, world: World) -> None:
        case.set(0, 6, **dict.fromkeys(gauge.bad, ABSENT))

    def late_edge(case: Case, world: World) -> None:
        case.set(0, 12, **gauge.edge)
        case.late(14, 8, **gauge.edge)

    builds: list[tuple[str, bool, int, Callable[[Case, World], None]]] = [
        ("plain", True, need + 5 + tail, plain),
        ("noisy", True, need + 14 + tail, noisy),
        ("hysteresis", True, 2 * need + 20 + 2 * tail, hysteresis if not gauge.stays else noisy),
        ("edge", False, 2 * need + 12, edge),
    ]
    if need > 1:
        builds += [("one too short", False, need + 4, short), ("broken", False, 3 * need + 4, broken)]
    else:
        builds += [("too late", False, 12, too_late), ("late edge", False, 20, late_edge)]
        if gauge.rule != "power_unreadable":
            builds.append(("blank", False, 12, blank))
    for label, fault, steps, build in builds:
        yield Spec(
            f"{gauge.rule} {label}", gauge.rule, fault, steps, build, gauge.busy, gauge.models, critical=fault and critical,
            stays=fault and gauge.stays,
        )  # fmt: skip


def all_specs() -> list[Spec]:
    """The cases of every rule that is about one GPU or host. What is about more is of World."""
    found = [spec for gauge in GAUGES for spec in gauge_specs(gauge)]
    found.append(Spec("temp_margin of an A100", "temp_margin", False, 50, _cold_margin, True, (A100,)))
    return found + counter_specs() + xid_specs() + absence_specs()


def make_world(gpus: int = 1000, hours: float = 24.0, seed: int = 1) -> World:
    """A fleet with all cases that there is room for."""
    return World(all_specs(), gpus, hours, seed)


def _cold_margin(case: Case, world: World) -> None:
    """An A100 has no such limit."""
    case.set(0, 40, MARGIN=-30.0, TEMP=80.0)


def counter_specs() -> list[Spec]:
    """Rules that look at how counters grow."""
    found: list[Spec] = []

    def add(
        label: str, rule: str, steps: int, build: Callable[[Case, World], None], *, fault: bool = True, critical: bool = False,
        stays: bool = False, models: tuple[str, ...] = (H100,), busy: bool | None = True,
    ) -> None:  # fmt: skip
        found.append(Spec(f"{rule} {label}", rule, fault, steps, build, busy, models, critical=critical, stays=stays))

    def expecting(
        rule: str, severity: str, *, good: int | None = None, **more: float
    ) -> Callable[[Case, World, int], Expect]:
        def make(case: Case, world: World, bad: int) -> Expect:
            return Expect(
                rule, world.entity(case.row), severity, case.start + bad, None if good is None else case.start + good,
                closes=good is not None, row=case.row,
            )._replace(**more)  # type: ignore[arg-type]  # fmt: skip

        return make

    # Energy that stands still. The first sample that shows it is the second of the same value.
    def energy_stuck(length: int, power: float, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.freeze(0, length, "ENERGY")
            if power:
                case.set(0, length, POWER=power, UTIL=50.0)
            if fault:
                case.expects = [expecting("energy_stuck", "warning", good=length, for_s=600)(case, world, 0)]

        return build

    for length in (24, 30, 40):
        add(f"{length} steps", "energy_stuck", length + 8, energy_stuck(length, 0, True))
    add("one too short", "energy_stuck", 30, energy_stuck(20, 0, False), fault=False)
    add("shorter", "energy_stuck", 30, energy_stuck(15, 0, False), fault=False)
    add("30 W", "energy_stuck", 40, energy_stuck(30, 30.0, False), fault=False)

    # Double-bit errors: every growth counts, and only a reset and a quiet hour end it.
    def dbe(case: Case, world: World) -> None:
        case.grow(0, 1, DBE=1)
        case.expects = [expecting("ecc_dbe", "critical")(case, world, 0)]

    def dbe_reset(case: Case, world: World) -> None:
        case.grow(0, 1, DBE=2)
        case.reset(40)
        case.expects = [
            expecting("ecc_dbe", "critical", good=40, clear_s=3600, close_late=2)(case, world, 0),
            Expect(
                "gpu_reset", world.entity(case.row), "info", case.start + 40, closes=None, subject=None, row=case.row
            ),
        ]

    def dbe_gap(case: Case, world: World) -> None:
        case.grow(0, 1, DBE=1)
        case.drop(0, 1)
        case.expects = [expecting("ecc_dbe", "critical")(case, world, 2)]

    def old_dbe(case: Case, world: World) -> None:
        """Errors from before the fleet was watched, a late point without them, a repeat with them."""
        case.start, start = 0, case.start
        case.set(0, 10**9, DBE=3.0)
        case.start = start
        case.late(3, 2, DBE=0.0)
        case.late(8, 3, DBE=3.0)
        case.drop(12, 13)

    add("grows", "ecc_dbe", 10, dbe, critical=True, stays=True)
    add("and a reset", "ecc_dbe", 175, dbe_reset, critical=True)
    add("within a gap", "ecc_dbe", 10, dbe_gap, critical=True, stays=True)
    for _ in range(3):
        add("old errors", "ecc_dbe", 20, old_dbe, fault=False, stays=True)

    # Single-bit errors: more than 10 an hour over 10 minutes.
    def sbe(every: int, times: int, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            for turn in range(times):
                case.grow(turn * every, turn * every + 1, SBE=1)
            last = (times - 1) * every
            if fault:
                case.expects = [
                    expecting("ecc_sbe_rate", "warning", good=last + 1, clear_s=3600, close_early=2, close_late=24, early=0, late=21)(
                        case, world, every
                    )
                ]  # fmt: skip

        return build

    for every in (2, 4, 6):
        add(f"each {every} steps", "ecc_sbe_rate", every * 20 + 160, sbe(every, 20, True))
    for every in (22, 25, 40):
        add(f"each {every} steps", "ecc_sbe_rate", every * 5 + 5, sbe(every, 5, False), fault=False)

    # Rows remapped for uncorrectable errors.
    def remapped(case: Case, world: World) -> None:
        case.grow(0, 1, UNCORRECTABLE_REMAPPED_ROWS=1)
        case.expects = [expecting("remap_uncorrectable", "warning")(case, world, 0)]

    def many_remapped(case: Case, world: World) -> None:
        case.grow(0, 1, UNCORRECTABLE_REMAPPED_ROWS=2)
        case.grow(6, 7, UNCORRECTABLE_REMAPPED_ROWS=600)
        case.expects = [expecting("remap_uncorrectable", "warning")(case, world, 0)]

    def old_remapped(rows: float) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            start, case.start = case.start, 0
            case.set(0, 10**9, UNCORRECTABLE_REMAPPED_ROWS=rows)
            case.start = start
            case.late(4, 3, UNCORRECTABLE_REMAPPED_ROWS=rows - 1)

        return build

    add("grow", "remap_uncorrectable", 10, remapped, stays=True)
    add("grow", "remap_uncorrectable", 10, remapped, stays=True)
    add("grow twice", "remap_uncorrectable", 12, many_remapped, stays=True)
    for rows in (5.0, 100.0, 511.0):
        add(f"{rows:g} of old", "remap_uncorrectable", 10, old_remapped(rows), fault=False, stays=True)

    # Time in which heat holds the clocks down.
    def thermal(share: float, length: int, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.grow(0, length, THERMAL_VIOLATION=share * STEP)
            if fault:
                case.grow(length, length + 14, THERMAL_VIOLATION=0.05 * STEP)  # too much to close
                case.expects = [
                    expecting("thermal_throttle", "warning", good=length + 14, for_s=300, clear_s=300)(case, world, 0)
                ]

        return build

    for share in (0.12, 0.3, 0.9):
        add(f"{share:.0%}", "thermal_throttle", 50, thermal(share, 16, True))
    add("9 %", "thermal_throttle", 50, thermal(0.09, 40, False), fault=False)
    add("one too short", "thermal_throttle", 20, thermal(0.5, 10, False), fault=False)
    add("shorter", "thermal_throttle", 20, thermal(0.9, 8, False), fault=False)

    # PCIe replays: Gen5 x16 allows 31 a minute, Gen4 x16 16.
    def replays(each: float, length: int, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.grow(0, length, REPLAYS=each)
            if fault:
                case.expects = [
                    expecting("pcie_replay", "warning", good=length, samples=3, clear_s=600, late=2, close_late=2)(
                        case, world, 0
                    )
                ]

        return build

    add("32 a minute", "pcie_replay", 45, replays(16, 12, True))
    add("200 a minute", "pcie_replay", 45, replays(100, 12, True))
    add("18 a minute on Gen4", "pcie_replay", 45, replays(9, 12, True), models=(A100,))
    add("30 a minute", "pcie_replay", 45, replays(15, 40, False), fault=False)
    add("16 a minute on Gen4", "pcie_replay", 45, replays(8, 40, False), fault=False, models=(A100,))
    add("two samples", "pcie_replay", 10, replays(200, 2, False), fault=False)

    # NVLink: one replay or recovery a minute is a failure, one CRC error a warning.
    def nvlink(name: str, amount: float, severity: str, length: int) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.grow(0, length, **{f"NVLINK_{name}_ERROR_COUNT_TOTAL": amount})
            case.expects = [
                expecting("nvlink_errors", severity, good=length, clear_s=600, late=2, close_late=3)(case, world, 0)
            ]

        return build

    def old_nvlink(name: str) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            start, case.start = case.start, 0
            case.set(0, 10**9, **{f"NVLINK_{name}_ERROR_COUNT_TOTAL": 40.0})
            case.start = start
            case.late(4, 2, **{f"NVLINK_{name}_ERROR_COUNT_TOTAL": 0.0})

        return build

    add("replay", "nvlink_errors", 40, nvlink("REPLAY", 1, "critical", 1), critical=True)
    add("recoveries", "nvlink_errors", 40, nvlink("RECOVERY", 2, "critical", 6), critical=True)
    add("CRC", "nvlink_errors", 40, nvlink("CRC_FLIT", 1, "warning", 3))
    add("CRC storm", "nvlink_errors", 40, nvlink("CRC_DATA", 3600, "critical", 6), critical=True)
    for name in ("REPLAY", "RECOVERY", "CRC_FLIT"):
        add(f"old {name}", "nvlink_errors", 10, old_nvlink(name), fault=False, stays=True)

    # A temperature that rises at a steady load.
    def ramp(per_step: float, length: int, fault: bool, climbing: bool = False) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            for step in range(length):
                case.set(
                    step, step + 1, TEMP=40 + per_step * step, MARGIN=30.0, UTIL=30.0 + 5 * step if climbing else 60.0
                )
            if climbing:
                case.set(length, length + 24, UTIL=30.0 + 5 * length)
            case.set(-14, 0, TEMP=40.0, UTIL=30.0 if climbing else 60.0)
            case.set(
                length, length + 24, TEMP=40 + per_step * length, MARGIN=30.0, **({} if climbing else {"UTIL": 60.0})
            )
            if fault:
                case.expects = [
                    expecting("temp_ramp", "info", good=length, for_s=300, early=3, late=2, close_early=1, close_late=12)(case, world, 0)
                ]  # fmt: skip

        return build

    for per_step in (1.5, 2.0, 2.5):
        add(f"{2 * per_step:g} °C a minute", "temp_ramp", 48, ramp(per_step, 18, True))
    add("1.6 °C a minute", "temp_ramp", 60, ramp(0.8, 30, False), fault=False)
    add("for 2.5 minutes", "temp_ramp", 36, ramp(1.5, 5, False), fault=False)
    add("with the load", "temp_ramp", 50, ramp(1.5, 13, False, climbing=True), fault=False)

    # Retired pages of GPUs before Ampere: more than 15 for double-bit errors, and more than one more within a week.
    def pages(before: float, more: float, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            start, case.start = case.start, 0
            case.set(0, start, RETIRED_DBE=before)
            case.set(start, 10**9, RETIRED_DBE=before + more)
            case.start = start
            if fault:
                case.expects = [expecting("pages_retired", "critical")(case, world, 0)]

        return build

    for before in (14.0, 16.0, 20.0):
        add(
            f"{before:g} and 2 more",
            "pages_retired",
            10,
            pages(before, 2, True),
            critical=True,
            stays=True,
            models=(V100,),
        )
    for before, more in ((16.0, 1.0), (10.0, 4.0), (40.0, 0.0)):
        add(
            f"{before:g} and {more:g} more",
            "pages_retired",
            10,
            pages(before, more, False),
            fault=False,
            stays=True,
            models=(V100,),
        )

    # Clocks that the hardware holds down: for six of ten minutes, however they lie.
    def slowdown(reasons: float, on: int, off: int, turns: int, opens: int) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            for turn in range(turns):
                case.set(turn * (on + off), turn * (on + off) + on, REASONS=reasons)
            if opens:
                end = turns * (on + off) - off
                case.expects = [
                    expecting("hw_slowdown", "warning", good=end, for_s=opens * STEP_S, clear_s=600, row=-1)(
                        case, world, 0
                    )
                ]

        return build

    for label, reasons, on, off, turns, opens in (
        ("7 minutes", 8.0, 14, 0, 1, 11), ("on and off", 0x40 + 4.0, 4, 2, 6, 15), ("mostly", 0x20, 6, 1, 5, 12)
    ):  # fmt: skip
        add(label, "hw_slowdown", turns * (on + off) + 30, slowdown(reasons, on, off, turns, opens))
    for label, reasons, on, off, turns in (
        ("5 minutes", 8.0, 10, 0, 1), ("half of the time", 0x48, 2, 2, 15), ("the power cap", 0x14, 60, 0, 1)
    ):  # fmt: skip
        add(label, "hw_slowdown", turns * (on + off) + 6, slowdown(reasons, on, off, turns, 0), fault=False)

    # Resets, and what looks like one.
    def reset(case: Case, world: World) -> None:
        case.reset(0)
        case.expects = [
            Expect("gpu_reset", world.entity(case.row), "info", case.start, closes=None, subject=None, row=case.row)
        ]

    def late_energy(case: Case, world: World) -> None:
        for step, behind in ((2, 1), (6, 4), (9, 1)):
            case.late(step, behind, ENERGY=5.0)

    for _ in range(3):
        add("counters fall", "gpu_reset", 10, reset)
        add("late counters", "gpu_reset", 14, late_energy, fault=False)

    # Another configuration than the others'.
    def drift(name: str, length: int, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.set(0, length, **{name: 0.0})
            if fault:
                case.expects = [
                    expecting("config_drift", "info", good=length, for_s=3600, early=2, late=4, close_late=4)(case, world, 0)._replace(subject=None)
                ]  # fmt: skip

        return build

    for name, length in (("ECC_MODE", 140), ("PERSISTENCE_MODE", 150), ("ECC_MODE", 130)):
        add(f"{name} {length} steps", "config_drift", length + 12, drift(name, length, True))
    for name, length in (("ECC_MODE", 115), ("PERSISTENCE_MODE", 60), ("PERSISTENCE_MODE", 115)):
        add(f"{name} {length} steps", "config_drift", length + 8, drift(name, length, False), fault=False)

    # A metric that is no longer there while others are. It is looked for every five minutes, so an absence of 15 to 20 is at the edge.
    def vanish(length: int, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.set(0, length, MEMORY_TEMP=ABSENT)
            if fault:
                case.expects = [
                    expecting(
                        "metric_vanished",
                        "info",
                        good=length,
                        for_s=900,
                        clear_samples=3,
                        early=2,
                        late=11,
                        close_late=11,
                    )(case, world, 0)._replace(subject="DCGM_FI_DEV_MEMORY_TEMP")
                ]

        return build

    for length in (42, 45, 60):
        add(f"{length} steps", "metric_vanished", length + 10, vanish(length, True))
    for length in (28, 20, 10):
        add(f"{length} steps", "metric_vanished", length + 4, vanish(length, False), fault=False)
    return found


def xid_specs() -> list[Spec]:
    """XIDs: each class, repeats, resets, what is folded, and what is old."""
    found: list[Spec] = []

    def add(
        label: str, rule: str, steps: int, build: Callable[[Case, World], None], *, fault: bool = True, critical: bool = False,
        stays: bool = True, whole_host: bool = False,
    ) -> None:  # fmt: skip
        found.append(
            Spec(
                f"{rule} {label}",
                rule,
                fault,
                steps,
                build,
                None if whole_host else True,
                (H100,),
                whole_host,
                critical,
                "XID 31" if rule == "xid31_same_gpu" or label == "31" else "",
                stays,
            )
        )

    def event(
        case: Case, world: World, rule: str, severity: str, at: int, subject: str | None, **more: float
    ) -> Expect:
        return Expect(
            rule, world.entity(case.row), severity, case.start + at, closes=False, subject=subject, row=case.row
        )._replace(**more)  # type: ignore[arg-type]

    def once(code: int, rule: str, severity: str) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.keep(0, XID=code)
            case.drop(3, 4)  # the same code after a gap is no news
            case.late(8, 2, XID=0.0)
            case.expects = [event(case, world, rule, severity, 0, str(code))]
            if rule == "xid_app":
                case.expects = [case.expects[0]._replace(closes=True, good=case.start, close_late=2)]

        return build

    for code in (119, 95, 140):
        add(str(code), "xid_fatal", 12, once(code, "xid_fatal", "critical"), critical=True)
    for code in (94, 63, 92):
        add(str(code), "xid_warning", 12, once(code, "xid_warning", "warning"))
    for code in (13, 43, 31):
        add(str(code), "xid_app", 12, once(code, "xid_app", "info"))
    for code in (145, 149, 150):
        add(str(code), "xid_nvlink5", 12, once(code, "xid_nvlink5", "warning"))
    for code in (7, 59, 900):
        add(str(code), "xid_unknown", 12, once(code, "xid_unknown", "warning"))

    def old(code: int) -> Callable[[Case, World], None]:
        """A code from before the fleet was watched, gaps, late points without it, repeats."""

        def build(case: Case, world: World) -> None:
            start, case.start = case.start, 0
            case.set(0, 10**9, XID=code)
            case.start = start
            case.drop(2, 3, 4)
            case.late(8, 1, XID=0.0)
            case.late(10, 4, XID=code)

        return build

    for code, rule in ((119, "xid_fatal"), (79, "xid_fatal"), (48, "xid_fatal"), (94, "xid_warning"), (63, "xid_warning"),
                       (92, "xid_warning"), (13, "xid_app"), (31, "xid_app"), (43, "xid_app"), (145, "xid_nvlink5"),
                       (146, "xid_nvlink5"), (147, "xid_nvlink5"), (7, "xid_unknown"), (59, "xid_unknown"), (900, "xid_unknown")):  # fmt: skip
        add(f"old {code}", rule, 14, old(code), fault=False)

    def until_reset(case: Case, world: World) -> None:
        case.set(0, 30, XID=119)
        case.reset(30)
        case.expects = [
            event(case, world, "xid_fatal", "critical", 0, "119", good=case.start + 30, clear_s=3600, closes=True, close_late=3),
            Expect("gpu_reset", world.entity(case.row), "info", case.start + 30, closes=None, subject=None, row=case.row),
        ]  # fmt: skip

    add("until a reset", "xid_fatal", 165, until_reset, critical=True, stays=False)

    def fallen_off(case: Case, world: World) -> None:
        """XID 79, and the GPU is gone: one event."""
        case.keep(0, XID=79)
        case.gone(2, 60)
        case.expects = [event(case, world, "xid_fatal", "critical", 0, "79")]

    add("79 and gone", "xid_fatal", 70, fallen_off, critical=True)

    def folded(case: Case, world: World) -> None:
        """XID 45 after another is of the other."""
        case.set(0, 1, XID=13)
        case.keep(1, XID=45)
        case.expects = [event(case, world, "xid_app", "info", 0, "13", closes=True, good=case.start, close_late=2)]

    for _ in range(3):
        add("13, then 45", "xid_app", 10, folded)

    def good_news(case: Case, world: World) -> None:
        """XID 162 ends 163; itself it is an info."""
        case.set(0, 20, XID=163)
        case.keep(20, XID=162)
        case.expects = [
            event(case, world, "xid_warning", "warning", 0, "163", closes=True, good=case.start + 20, close_late=2),
            event(case, world, "xid_app", "info", 20, "162", closes=True, good=case.start + 20, close_late=2),
        ]

    add("163, then 162", "xid_warning", 26, good_news)

    def raised(case: Case, world: World) -> None:
        """The driver asks for a reset within five minutes of an NVLink XID."""
        case.keep(0, XID=145)
        case.set(4, 30, ACTION=1.0)
        case.expects = [
            event(case, world, "xid_nvlink5", "critical", 0, "145"),
            event(
                case, world, "recovery_action", "critical", 4, "", good=case.start + 30, clear_samples=3, closes=True
            ),
        ]

    add("and an action", "xid_nvlink5", 40, raised, critical=True)

    def repeated(code: int, every: int, times: int) -> Callable[[Case, World], None]:
        """The count by code rises again and again."""

        def build(case: Case, world: World) -> None:
            case.keep(0, XID=code)
            for turn in range(times):
                case.set(turn * every, 10**9, **{f"TOTAL{code}": 1.0 + turn})
            case.expects = [event(case, world, "xid_fatal", "critical", 0, str(code))]
            if times >= 5 and every * STEP_S > 180:
                case.expects.append(event(case, world, "xid_repeat_gpu", "critical", 4 * every, None))

        return build

    for every in (10, 14, 20):
        add(f"each {every} steps", "xid_repeat_gpu", every * 6 + 6, repeated(119, every, 6), critical=True)
    add("four times", "xid_repeat_gpu", 70, repeated(119, 15, 4), fault=False, critical=True)
    add("one burst", "xid_repeat_gpu", 20, repeated(119, 1, 6), fault=False, critical=True)
    add("three times", "xid_repeat_gpu", 40, repeated(79, 10, 3), fault=False, critical=True)

    def twice(code: int, gap: int, times: int) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.keep(0, XID=code)
            for turn in range(times):
                case.set(turn * gap, 10**9, **{f"TOTAL{code}": 1.0 + turn})
                case.expects.append(
                    event(case, world, "xid_app", "info", turn * gap, str(code), closes=True, good=case.start + turn * gap,
                          close_late=2)
                )  # fmt: skip
            if code == 31 and times > 1:
                case.expects.append(event(case, world, "xid31_same_gpu", "warning", gap, None))
            if code == 39 and times > 1:
                # The second is an event of the warning, not of the application.
                case.expects[1] = event(case, world, "xid_warning", "warning", gap, "39")

        return build

    for gap in (10, 30, 60):
        add(f"{gap} steps apart", "xid31_same_gpu", gap + 8, twice(31, gap, 2))
        add("once", "xid31_same_gpu", 8, twice(31, 5, 1), fault=False)
        add(f"39 twice, {gap} steps apart", "xid_warning", gap + 8, twice(39, gap, 2))

    def after_resets(resets: int) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            for turn in range(resets + 1):
                since = turn * 40
                case.set(since, since + 20 if turn < resets else 10**9, XID=119)
                if turn < resets:
                    case.reset(since + 20)
                    case.expects.append(
                        Expect("gpu_reset", world.entity(case.row), "info", case.start + since + 20, closes=None, subject=None,
                               row=case.row)
                    )  # fmt: skip
            case.expects.append(event(case, world, "xid_fatal", "critical", 0, "119"))
            if resets >= 2:
                case.expects.append(event(case, world, "xid_after_reset", "critical", 80, None))

        return build

    for _ in range(3):
        add("twice", "xid_after_reset", 100, after_resets(2), critical=True)
        add("once", "xid_after_reset", 70, after_resets(1), fault=False, critical=True)

    def many(count: int) -> Callable[[Case, World], None]:
        """XID 31 on several GPUs of a host, on one of them twice: the application's fault."""

        def build(case: Case, world: World) -> None:
            rows = world.rows[case.host]
            for place in range(count):
                part = Case(case.label, case.rule, case.fault, case.start, case.until, rows[place], case.host)
                part.keep(place * 6, XID=31.0, TOTAL31=1.0)
                part.expects = [
                    event(
                        part,
                        world,
                        "xid_app",
                        "info",
                        place * 6,
                        "31",
                        closes=True,
                        good=part.start + place * 6,
                        close_late=2,
                    )
                ]
                world.cases.append(part)
            if count > 1:
                case.expects = [
                    Expect(
                        "xid31_many_gpus",
                        ("host", world.hosts[case.host]),
                        "info",
                        case.start + 6,
                        closes=False,
                        subject=None,
                    )
                ]

        return build

    for count in (2, 3, 4):
        add(f"{count} GPUs", "xid31_many_gpus", 40, many(count), whole_host=True)
    for _ in range(3):
        add("one GPU", "xid31_many_gpus", 40, many(1), whole_host=True, fault=False)

    def lemon(count: int) -> Callable[[Case, World], None]:
        """Critical events of different rules on one host."""
        kinds = (
            ("remap_failed", {"ROW_REMAP_FAILURE": 1.0}, "", 1),
            ("memory_unrepairable", {"MEMORY_UNREPAIRABLE_FLAG": 1.0}, "", 1),
            ("xid_fatal", {"XID": 95.0}, "95", 1),
            ("recovery_action", {"ACTION": 2.0}, "", 1),
            ("fabric_unhealthy", {"FABRIC": 2.0}, "", 3),
        )

        def build(case: Case, world: World) -> None:
            rows = world.rows[case.host]
            for place, (rule, values, subject, samples) in enumerate(kinds[:count]):
                part = Case(case.label, case.rule, case.fault, case.start, case.until, rows[place], case.host)
                part.keep(place * 8, **values)
                part.expects = [event(part, world, rule, "critical", place * 8, subject, samples=samples)]
                world.cases.append(part)
            if count >= 5:
                case.expects = [
                    Expect(
                        "lemon_node", ("host", world.hosts[case.host]), "critical", case.start + 8 * 4, samples=3, closes=False,
                        subject=None, row=rows[4],
                    )
                ]  # fmt: skip

        return build

    for _ in range(3):
        add("five", "lemon_node", 50, lemon(5), whole_host=True)
        add("four", "lemon_node", 50, lemon(4), whole_host=True, fault=False)
    return found


def absence_specs() -> list[Spec]:
    """What does not come: GPUs, hosts, sources, samples; and whose clock is wrong."""
    found: list[Spec] = []

    def add(
        label: str, rule: str, steps: int, build: Callable[[Case, World], None], *, fault: bool = True, whole_host: bool = False,
        critical: bool = False, stays: bool = False,
    ) -> None:  # fmt: skip
        found.append(
            Spec(
                f"{rule} {label}",
                rule,
                fault,
                steps,
                build,
                None if whole_host else True,
                (H100,),
                whole_host,
                critical,
                stays=stays,
            )
        )

    def missing(length: int, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.gone(0, length)
            if fault:
                case.expects = [
                    Expect(
                        "gpu_missing", world.entity(case.row), "critical", case.start, case.start + length, samples=3, for_s=120,
                        clear_samples=2, early=2, late=1,
                    )
                ]  # fmt: skip

        return build

    for length in (8, 20, 60):
        add(f"{length} steps", "gpu_missing", length + 8, missing(length, True), critical=True)
    for length in (1, 2, 3):
        add(f"{length} steps", "gpu_missing", length + 6, missing(length, False), fault=False)

    def silent(length: int, severity: str) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.gone(0, length)
            if severity:
                case.expects = [
                    Expect(
                        "host_stale", ("host", world.hosts[case.host]), severity, case.start, case.start + length, for_s=300,
                        clear_samples=2, early=2, late=1,
                    )
                ]  # fmt: skip

        return build

    # The last sample is a step before the first that is missing. An hour is kept free of the host's other cases.
    for length, severity in ((12, "warning"), (20, "warning"), (40, "critical")):
        add(f"{length} steps", "host_stale", length + 130, silent(length, severity), whole_host=True)
    for length in (8, 7, 5):
        add(f"{length} steps", "host_stale", length + 130, silent(length, ""), whole_host=True, fault=False)

    def rebooted(case: Case, world: World) -> None:
        """Four minutes of silence, and all counters start again: eight resets, and nothing else."""
        case.gone(0, 8)
        case.reset(8)
        case.set(8, 16, LINK0=0.0, LINK1=0.0, LINK2=0.0, LINK3=0.0)  # links come up after a boot
        case.expects = [
            Expect("gpu_reset", world.entity(row), "info", case.start + 8, closes=None, subject=None, row=row)
            for row in world.rows[case.host]
        ]

    for _ in range(3):
        add("a reboot", "nvlink_inactive", 140, rebooted, whole_host=True, fault=False)

    def lossy(pattern: int, length: int, fault: bool) -> Callable[[Case, World], None]:
        """Every ``pattern``-th sample is lost."""

        def build(case: Case, world: World) -> None:
            case.drop(*range(0, length, pattern))
            if fault:
                case.expects = [
                    Expect(
                        "sample_loss", world.entity(case.row), "warning", case.start, case.start + length, for_s=2700, clear_s=3600,
                        early=50, late=40, close_early=36, close_late=12,
                    )
                ]  # fmt: skip

        return build

    for pattern in (2, 3, 2):
        add(f"one of {pattern}", "sample_loss", 240 + 270, lossy(pattern, 240, True))
    add("one of 7", "sample_loss", 250, lossy(7, 240, False), fault=False)
    add("one of 6", "sample_loss", 250, lossy(6, 240, False), fault=False)
    add("20 minutes", "sample_loss", 170, lossy(2, 40, False), fault=False)

    def replaced(case: Case, world: World) -> None:
        old = world.gpus[case.row].uuid
        new = f"GPU-{uuid.uuid5(NAMESPACE, old)}"
        case.op(0, 1, lambda w, row, _: w.gpus.__setitem__(row, replace(w.gpus[row], uuid=new)))
        case.reset(0)
        case.expects = [
            Expect("gpu_replaced", ("gpu", new), "info", case.start, closes=None, subject=None, row=case.row)
        ]

    def swapped(case: Case, world: World) -> None:
        """Two GPUs of a host have each other's number after a boot."""
        first, second = world.rows[case.host][:2]

        def do(w: World, row: int, _: int) -> None:
            if row == first:
                one, two = w.gpus[first], w.gpus[second]
                w.gpus[first] = replace(one, gpu_id=two.gpu_id, device=two.device)
                w.gpus[second] = replace(two, gpu_id=one.gpu_id, device=one.device)

        case.op(0, 1, do)

    for _ in range(3):
        add("another uuid", "gpu_replaced", 40, replaced, stays=True)
        add("two swapped", "gpu_replaced", 40, swapped, fault=False, whole_host=True)

    def skewed(ahead_s: int, length: int, fault: bool) -> Callable[[Case, World], None]:
        def build(case: Case, world: World) -> None:
            case.op(0, length, lambda w, row, _: w.skew_s.__setitem__(w.host_of[row], ahead_s))
            case.op(length, length + 1, lambda w, row, _: w.skew_s.__setitem__(w.host_of[row], 0))
            if fault:
                case.expects = [
                    Expect(
                        "clock_skew", ("host", world.hosts[case.host]), "warning", case.start, case.start + length, samples=3,
                        clear_samples=3, early=3, late=4, close_early=3, close_late=6,
                    )
                ]  # fmt: skip
                # A fault on that host is seen all the same.
                row = world.rows[case.host][3]
                part = Case(case.label, "hw_power_brake", True, case.start, case.until, row, case.host)
                part.set(20, 30, REASONS=0x80 + 8.0)
                part.expects = [
                    Expect(
                        "hw_power_brake", world.entity(row), "critical", case.start + 20, case.start + 30, samples=3, clear_samples=3,
                        early=3, late=4, close_early=3, close_late=4,
                    )
                ]  # fmt: skip
                world.cases.append(part)

        return build

    for ahead, length in ((3600, 100), (3600, 60), (300, 60)):
        add(f"{ahead} s ahead", "clock_skew", length + 20, skewed(ahead, length, True), whole_host=True)
    for ahead in (45, 20, 5):
        add(f"{ahead} s ahead", "clock_skew", 80, skewed(ahead, 60, False), whole_host=True, fault=False)
    return found
