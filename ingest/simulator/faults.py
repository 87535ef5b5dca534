"""The faults that a synthetic fleet can have by name, what each does to its readings, and the events that it should make.

What should come of a fault is written from the descriptions of the rules, by hand: the code that judges readings has no part in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from readings.times import SECOND, parse_duration

DEV, PROF = "DCGM_FI_DEV_", "DCGM_FI_PROF_"
UTIL, POWER, ENERGY, TEMP = DEV + "GPU_UTIL", DEV + "POWER_USAGE", DEV + "TOTAL_ENERGY_CONSUMPTION", DEV + "GPU_TEMP"
ENGINE, SM_CLOCK, REASONS = PROF + "GR_ENGINE_ACTIVE", DEV + "SM_CLOCK", DEV + "CLOCKS_EVENT_REASONS"
MARGIN = DEV + "GPU_TEMP_MARGIN_CELSIUS"
USED, FREE, XID = DEV + "FB_USED", DEV + "FB_FREE", DEV + "XID_ERRORS"
LONGEST_S = 30 * 86_400.0


class Frozen(Enum):
    """In place of a value: the reading stays as it was when the fault began."""

    READING = 0


# What a reading becomes: a value, nothing (None: the metric is absent), or a function of the fault's argument and its age in s.
Force = float | None | Frozen | Callable[[float, float], float]


def _given(argument: float, seconds: float) -> float:
    return argument


class Expected(NamedTuple):
    """An event that a fault makes: once it has lasted for ``samples`` samples and ``for_s`` seconds; it closes likewise after the
    fault. ``stays``: the end of the fault alone does not close it."""

    rule: str
    severity: str
    samples: int = 1
    for_s: float = 0.0
    clear_samples: int = 1
    clear_s: float = 0.0
    kind: str = "gpu"
    subject: str = ""
    stays: bool = False

    def opens(self, length_s: float, step_s: float) -> bool:
        """Whether a fault of that length, sampled at that step, makes it."""
        if math.isinf(length_s):
            return True
        samples = -(-length_s // step_s)
        return samples >= self.samples and (samples - 1) * step_s >= self.for_s

    def opens_after(self, step_s: float) -> float:
        """The latest time from the first bad sample to the opening, in seconds: that of the rule, and one sample."""
        return max(self.for_s, (self.samples - 1) * step_s) + step_s

    def closes_after(self, step_s: float) -> float:
        """The same from the first good sample to the closing."""
        return max(self.clear_s, (self.clear_samples - 1) * step_s) + step_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of a GPU, a host or the whole fleet. It lasts ``length_s`` unless said otherwise, for ever with 0.

    ``forced`` replaces readings, ``rates`` lets counters grow (a second, times the argument), ``adds`` counts up once. ``argument`` is
    the default of what may stand after the name. ``events`` come of it.
    """

    text: str
    events: tuple[Expected, ...] = ()
    length_s: float = 300.0
    argument: float = 0.0
    place: str = "gpu"
    forced: Mapping[str, Force] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    adds: Mapping[str, float] = field(default_factory=dict)
    held: bool = False  # its GPU has a pod
    needs: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics without which it cannot be seen."""
        return self.needs or (*self.forced, *self.rates, *self.adds)


_BUSY: dict[str, Force] = {UTIL: 97.0, ENGINE: 0.94, SM_CLOCK: 1980.0, POWER: 520.0}
_IDLE: dict[str, Force] = {UTIL: 0.0, ENGINE: 0.0, PROF + "PIPE_TENSOR_ACTIVE": 0.0, PROF + "DRAM_ACTIVE": 0.0}

# XIDs by what they are for us.
FATAL_XIDS = frozenset(
    {46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 151, 155, 156, 158, 167, 169, 173}
)
NVLINK5_XIDS = frozenset(range(144, 151))
WARNING_XIDS = frozenset({54, 63, 78, 92, 94, 121, 142, 157, 159, 160, 163, 165, 166, 168, 170, 171, 172})
APP_XIDS = frozenset(
    {8, 11, 13, 25, 31, 32, 37, 38, 43, 44, 45, 60, 66, 67, 68, 69, 80, 93, 106, 107, 137, 141, 152, 153, 154, 161, 162, 164}
    | {39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136)}
    | {82, *range(99, 106), 83, 84, 88, 89, 96, 97, 98, 86, 139}
)  # fmt: skip
# What the driver asks for after an XID: to reset the GPU (1), to reboot (2).
RECOVERY_OF_XID = {48: 1.0, 79: 2.0}
REMAPPING_XIDS = frozenset({48, 63})


def events_of_xid(code: int) -> tuple[Expected, ...]:
    """The events of an XID, and those of what the synthetic driver says with it."""
    subject = str(code)
    if code in FATAL_XIDS:
        own = Expected("xid_fatal", "critical", subject=subject, stays=True)
    elif code in NVLINK5_XIDS:
        own = Expected("xid_nvlink5", "warning", subject=subject, stays=True)
    elif code in WARNING_XIDS:
        own = Expected("xid_warning", "warning", subject=subject, stays=True)
    elif code in APP_XIDS:
        own = Expected("xid_app", "info", subject=subject, stays=True)
    else:
        own = Expected("xid_unknown", "warning", subject=subject, stays=True)
    events = [own]
    if code in RECOVERY_OF_XID:
        events.append(Expected("recovery_action", "critical", stays=True))
    if code == 48:
        events.append(Expected("ecc_dbe", "critical", stays=True))
    if code in REMAPPING_XIDS:
        events.append(Expected("remap_pending", "warning", stays=True))
    return tuple(events)


# What each event needs beside its fault's own metrics; without it nobody sees it.
EVENT_NEEDS = {
    "recovery_action": DEV + "GPU_RECOVERY_ACTION",
    "remap_pending": DEV + "ROW_REMAP_PENDING",
    "ecc_dbe": DEV + "ECC_DBE_VOL_TOTAL",
    "hw_slowdown": REASONS,
    "hw_power_brake": REASONS,
}
_SLOW = Expected("hw_slowdown", "warning", samples=6, for_s=360.0, clear_s=600.0)
_BRAKE = Expected("hw_power_brake", "critical", samples=3, clear_samples=3)


def _once(rule: str, severity: str, subject: str = "", *, stays: bool = False, clear: int = 1) -> tuple[Expected]:
    return (Expected(rule, severity, subject=subject, clear_samples=clear, stays=stays),)


def _three(rule: str, severity: str) -> tuple[Expected]:
    return (Expected(rule, severity, samples=3, clear_samples=3),)


def _for(rule: str, severity: str, minutes: float, clear_minutes: float = 0.0, clear: int = 1) -> tuple[Expected]:
    return (Expected(rule, severity, for_s=minutes * 60, clear_s=clear_minutes * 60, clear_samples=clear),)


NAMED: Mapping[str, Fault] = {
    # Those that also come by chance.
    "xid": Fault(
        text="an XID error, by its number", length_s=0.0, argument=79.0, needs=(XID,)
    ),
    "overheat": Fault(text="a GPU whose cooling fails", length_s=90.0, needs=(TEMP,)),
    "throttle": Fault(
        text="a GPU that the power brake holds at a low clock", events=(_BRAKE, _SLOW), length_s=540.0, needs=(REASONS,)
    ),
    "missing": Fault(
        text="a GPU that falls off the bus",
        events=(Expected("gpu_missing", "critical", samples=3, for_s=120.0, clear_samples=2),),
        needs=(UTIL,),
    ),
    "blank": Fault(
        text="DCGM's blank numbers in place of power and memory temperature",
        events=_three("power_unreadable", "warning"),
        length_s=120.0,
        needs=(POWER,),
    ),
    "spike": Fault(text="values of other fields in place of the utilisation", length_s=120.0, needs=(UTIL,)),
    "silent": Fault(
        text="a host that reports nothing",
        events=(Expected("host_stale", "critical", for_s=900.0, clear_samples=2, kind="host"),),
        length_s=1200.0,
        place="host",
        needs=(UTIL,),
    ),
    # Those that are only asked for. A name is that of the rule which should see it.
    "source_silent": Fault(
        text="the whole fleet falls silent",
        # Its hosts are stale after five minutes, and that for two.
        events=(Expected("source_silent", "critical", for_s=420.0, kind="source"),),
        length_s=600.0,
        place="fleet",
        needs=(UTIL,),
    ),
    "gpu_replaced": Fault(
        text="another GPU in the place of one", events=_once("gpu_replaced", "info", stays=True), length_s=0.0, needs=(UTIL,)
    ),
    "gpu_reset": Fault(
        text="a GPU that is reset: its counters start again",
        events=_once("gpu_reset", "info", stays=True),
        length_s=0.0,
        needs=(ENERGY,),
    ),
    "sample_loss": Fault(
        text="a GPU half of whose samples are lost",
        events=_for("sample_loss", "warning", 60, 60),
        length_s=7800.0,
        needs=(UTIL,),
    ),
    "metric_vanished": Fault(
        text="a metric that a GPU no longer has",
        events=(
            Expected("metric_vanished", "info", for_s=1200.0, clear_samples=3, subject=DEV + "MEMORY_TEMP"),
        ),
        length_s=1500.0,
        forced={DEV + "MEMORY_TEMP": None},
    ),
    "prof_dead": Fault(
        text="profiling counters at 0 on a busy GPU",
        # Only a busy GPU shows that it is over; likewise a low clock.
        events=(Expected("prof_dead", "warning", for_s=600.0, stays=True),),
        length_s=900.0,
        forced={**_BUSY, ENGINE: 0.0, PROF + "PIPE_TENSOR_ACTIVE": 0.0, PROF + "DRAM_ACTIVE": 0.0},
        needs=(UTIL, ENGINE),
    ),
    "energy_stuck": Fault(
        text="an energy counter that stands still",
        events=_for("energy_stuck", "warning", 10),
        length_s=900.0,
        forced={ENERGY: Frozen.READING},
    ),
    "power_unreadable": Fault(
        text="a GPU without a reading of its power", events=_three("power_unreadable", "warning"), forced={POWER: None}
    ),
    "recovery_action": Fault(
        text="the driver asks for a reset (1), a reboot (2) and so on",
        events=_once("recovery_action", "critical", clear=3),
        argument=1.0,
        forced={DEV + "GPU_RECOVERY_ACTION": _given},
    ),
    "ecc_dbe": Fault(
        text="double-bit memory errors, so many at once",
        events=_once("ecc_dbe", "critical", stays=True),
        length_s=0.0,
        argument=1.0,
        adds={DEV + "ECC_DBE_VOL_TOTAL": 1.0},
    ),
    "ecc_sbe_rate": Fault(
        text="single-bit memory errors, so many an hour",
        events=_for("ecc_sbe_rate", "warning", 10, 70),
        length_s=1800.0,
        argument=120.0,
        rates={DEV + "ECC_SBE_VOL_TOTAL": 1 / 3600},
    ),
    "remap_failed": Fault(
        text="rows of memory that could not be remapped",
        events=_once("remap_failed", "critical", stays=True),
        length_s=0.0,
        forced={DEV + "ROW_REMAP_FAILURE": 1.0},
    ),
    "remap_pending": Fault(
        text="rows to remap at the next reset",
        events=_once("remap_pending", "warning", clear=3),
        forced={DEV + "ROW_REMAP_PENDING": 1.0},
    ),
    "remap_uncorrectable": Fault(
        text="rows remapped for uncorrectable errors, so many at once",
        events=_once("remap_uncorrectable", "warning", stays=True),
        length_s=0.0,
        argument=1.0,
        adds={DEV + "UNCORRECTABLE_REMAPPED_ROWS": 1.0},
    ),
    "remap_spare_gone": Fault(
        text="memory banks without spare rows, so many",
        events=_once("remap_spare_gone", "warning", stays=True),
        length_s=0.0,
        argument=1.0,
        forced={DEV + "BANKS_REMAP_ROWS_AVAIL_NONE": _given},
    ),
    "memory_unrepairable": Fault(
        text="memory that cannot be repaired",
        events=_once("memory_unrepairable", "critical", stays=True),
        length_s=0.0,
        forced={DEV + "MEMORY_UNREPAIRABLE_FLAG": 1.0},
    ),
    "inforom_invalid": Fault(
        text="a damaged InfoROM",
        events=(Expected("inforom_invalid", "warning", samples=3),),
        forced={DEV + "INFOROM_VALID": 0.0},
    ),
    "temp_margin": Fault(
        text="degrees left to the thermal slowdown",
        events=_three("temp_margin", "critical"),
        argument=-5.0,
        forced={MARGIN: _given},
    ),
    "temp_high": Fault(
        text="a hot core, in °C",
        events=_for("temp_high", "warning", 5, clear=3),
        length_s=600.0,
        argument=91.0,
        forced={TEMP: _given, MARGIN: 4.0, DEV + "GPU_TEMP_SLOWDOWN_CELSIUS": lambda argument, seconds: argument + 4.0},
        needs=(TEMP,),
    ),
    "mem_temp_high": Fault(
        text="hot memory, in °C",
        events=_for("mem_temp_high", "warning", 5, clear=3),
        length_s=600.0,
        argument=103.0,
        forced={DEV + "MEMORY_TEMP": _given},
    ),
    "temp_ramp": Fault(
        text="a core that grows hotter by so many °C a minute at a steady load",
        events=(Expected("temp_ramp", "info", for_s=360.0, clear_s=360.0),),  # looked at each minute
        length_s=600.0,
        argument=4.0,
        forced={**_BUSY, TEMP: lambda argument, seconds: round(40.0 + argument * seconds / 60)},
        needs=(UTIL, TEMP),
    ),
    "thermal_throttle": Fault(
        text="clocks that heat holds down for a part of the time",
        events=_for("thermal_throttle", "warning", 5, 5),
        length_s=900.0,
        argument=0.5,
        rates={DEV + "THERMAL_VIOLATION": 1e9},
    ),
    "hw_slowdown": Fault(
        text="clocks that the hardware holds down",
        events=(_SLOW,),
        length_s=1200.0,
        argument=0x08,
        forced={REASONS: _given},
    ),
    "hw_power_brake": Fault(
        text="the server's power brake", events=(_BRAKE,), length_s=240.0, argument=0x80, forced={REASONS: _given}
    ),
    "power_out_of_range": Fault(
        text="power above the limit, in W",
        events=_three("power_out_of_range", "warning"),
        argument=900.0,
        forced={POWER: _given},
        needs=(POWER, DEV + "ENFORCED_POWER_LIMIT"),
    ),
    "clock_low": Fault(
        text="a busy GPU at a low clock, in MHz",
        events=(Expected("clock_low", "warning", for_s=600.0, stays=True),),
        length_s=900.0,
        argument=700.0,
        forced={**_BUSY, SM_CLOCK: _given},
        needs=(UTIL, SM_CLOCK),
    ),
    "pcie_replay": Fault(
        text="PCIe transfers sent again, so many a second",
        events=(Expected("pcie_replay", "warning", samples=3, for_s=60.0, clear_s=600.0),),
        argument=2.0,
        rates={DEV + "PCIE_REPLAY_COUNTER": 1.0},
    ),
    "pcie_downgraded": Fault(
        text="a busy GPU on a PCIe link of an older generation",
        events=_for("pcie_downgraded", "warning", 5, clear=3),
        length_s=600.0,
        argument=3.0,
        forced={**_BUSY, DEV + "PCIE_LINK_GEN": _given},
        needs=(UTIL, DEV + "PCIE_LINK_GEN", DEV + "PCIE_MAX_LINK_GEN"),
    ),
    "nvlink_errors": Fault(
        text="NVLink replays, so many a minute",
        events=(Expected("nvlink_errors", "critical", for_s=60.0, clear_s=600.0),),
        argument=30.0,
        rates={DEV + "NVLINK_REPLAY_ERROR_COUNT_TOTAL": 1 / 60},
    ),
    "nvlink_inactive": Fault(
        text="NVLinks that are off; no rule judges it, since cards of an unknown model may have none",
        forced={DEV + "NVLINK_GET_STATE": 0.0},
    ),
    "nvlink_ber": Fault(
        text="NVLinks with many bit errors, the share",
        events=_three("nvlink_ber", "warning"),
        argument=1e-5,
        forced={DEV + "NVLINK_COUNT_EFFECTIVE_BER_FLOAT": _given},
    ),
    "fabric_unhealthy": Fault(
        text="the state of the NVLink fabric: unhealthy (2) or limited (3)",
        events=_three("fabric_unhealthy", "critical"),
        argument=2.0,
        forced={DEV + "FABRIC_HEALTH_SUMMARY": _given},
    ),
    "dcgm_health": Fault(
        text="DCGM's own health watch: warning (10) or failure (20)",
        events=_three("dcgm_health", "critical"),
        argument=20.0,
        forced={"DCGM_EXP_GPU_HEALTH_STATUS": _given},
    ),
    "idle_held": Fault(
        text="a GPU that a pod holds and does not use",
        events=_for("idle_held", "info", 15, clear=3),
        length_s=1800.0,
        forced={**_IDLE, USED: 28_000.0, FREE: 53_007.0},
        held=True,
        needs=(UTIL, USED),
    ),
    "memory_full": Fault(
        text="memory that is nearly full",
        events=_for("memory_full", "info", 5),
        length_s=900.0,
        forced={USED: 80_500.0, FREE: 507.0},
    ),
    "busy_but_cold": Fault(
        text="a busy GPU at the power of an idle one, in W",
        events=_for("busy_but_cold", "info", 15),
        length_s=1500.0,
        argument=110.0,
        forced={**_BUSY, UTIL: 99.0, POWER: _given},
        held=True,
        needs=(UTIL, POWER),
    ),
    "config_drift": Fault(
        text="a GPU without ECC among others that have it",
        events=(Expected("config_drift", "info", for_s=3660.0, clear_s=60.0),),  # looked at each minute
        length_s=5400.0,
        forced={DEV + "ECC_MODE": 0.0},
    ),
}  # fmt: skip
# Faults that last are the fleet's end for those who look at it: nobody draws these by lot.
_NOT_BY_LOT = {"source_silent", "gpu_replaced", "overheat", "spike"}
BY_LOT = tuple(name for name in NAMED if name not in _NOT_BY_LOT)
# The argument of an XID that is drawn by lot.
XIDS_BY_LOT = (13, 31, 43, 48, 63, 74, 79, 94, 95, 119, 145)

_FORM = "NAME[:NUMBER]@HOST[/GPU]+START[+LENGTH], as xid:79@3/5+60s or temp_high:97@2/0+5m+10m"
_PLANNED = re.compile(
    r"([a-z_]+)(?::(-?[0-9.]+(?:e-?[0-9]+)?))?@(\*|(?:[a-z]+-)?([0-9]{1,6}))(?:/([0-9]{1,4}))?\+([0-9a-z.]+)(?:\+([0-9a-z.]+))?"
)


class PlannedFault(NamedTuple):
    """A named fault at its place and time. ``host`` counts from 1 (None: the whole fleet); ``ends_s`` is inf if it stays."""

    name: str
    argument: float
    host: int | None
    gpu: int | None
    starts_s: float
    ends_s: float

    @property
    def fault(self) -> Fault:
        """What it is."""
        return NAMED[self.name]


def planned_fault(text: str) -> PlannedFault:
    """Read one fault as a setting names it. Raises ValueError with what is allowed."""
    match = _PLANNED.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a fault: write {_FORM}")
    name, number, place, host, gpu, start, length = match.groups()
    fault = NAMED.get(name)
    if fault is None:
        raise ValueError(f"{text!r}: there is no fault {name!r}: use {', '.join(NAMED)}")
    if (place == "*") != (fault.place == "fleet"):
        raise ValueError(f"{text!r}: {name} is of {'the whole fleet: its place is *' if place != '*' else 'one place'}")
    if fault.place == "gpu" and gpu is None:
        raise ValueError(f"{text!r}: {name} is of one GPU: name it, as @{host}/0")
    if fault.place != "gpu" and gpu is not None:
        raise ValueError(f"{text!r}: {name} is of no single GPU: leave out /{gpu}")
    try:
        argument = float(number) if number else fault.argument
    except ValueError:
        raise ValueError(f"{text!r}: {number!r} is no number") from None
    starts, lasts = _seconds(text, start), _seconds(text, length) if length else fault.length_s
    return PlannedFault(
        name,
        argument,
        int(host) if host else None,
        int(gpu) if gpu else None,
        starts,
        starts + lasts if lasts else float("inf"),
    )


def _seconds(text: str, duration: str) -> float:
    try:
        seconds = parse_duration(duration) / SECOND
    except ValueError as error:
        raise ValueError(f"{text!r}: {duration!r} {error}") from None
    if seconds > LONGEST_S:
        raise ValueError(f"{text!r}: {duration!r} is too long: use at most 30d")
    return seconds


def events_of(name: str, argument: float) -> tuple[Expected, ...]:
    """The events that a fault with this argument makes, if it lasts."""
    events = NAMED[name].events
    match name:
        case "xid":
            return events_of_xid(int(argument))
        case "recovery_action":
            if argument == 0:
                return ()
            return tuple(event._replace(severity="warning" if argument == 3 else "critical") for event in events)
        case "fabric_unhealthy":
            return tuple(event._replace(severity="warning" if argument == 3 else "critical") for event in events)
        case "dcgm_health":
            return tuple(event._replace(severity="warning" if argument == 10 else "critical") for event in events)
        case "temp_high" if argument > 95:
            return tuple(event._replace(severity="critical", for_s=120.0) for event in events)
        case "hw_slowdown" if int(argument) & 0x80:
            return (_BRAKE, *events)
    return events
