"""One GPU of a synthetic fleet: power follows load, temperature follows power."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from ingest.simulator.faults import RECOVERY_OF_XID, REMAPPING_XIDS
from readings.model import Gpu

MEMORY_MIB = 81_007
RESERVED_MIB = 552.0
BLANK = 9223372036854775794.0
# UUIDs are made from this and the names alone, so a fleet is the same on every machine.
NAMESPACE = uuid.UUID("7d3e1f7e-6f0c-5d5e-9a43-000000000000")
_IDLE_W, _FULL_W = 68.0, 640.0
_AMBIENT, _DEGREES_PER_W = 24.0, 0.062
_WARM_UP_S = 25.0
_TOO_HOT = 88.0
_LIMIT_W, _MAX_OP_TEMP, _MEMORY_MAX_OP_TEMP = 700.0, 85.0, 95.0
_BANKS = 2560


class Job(NamedTuple):
    """A job on some GPUs of a host, until ``ends`` (seconds of the fleet's own time)."""

    name: str
    ends: float
    load: float
    swing: float
    memory_mib: float
    tensor: float
    namespace: str


@dataclass(slots=True)
class SimGpu:
    """One GPU: its identity and its state. ``faults`` maps each current fault to its end. Its air is ``warmer`` by so many °C.

    ``forced`` are readings that faults replace (None: absent), ``counted`` is what they added to counters.
    """

    identity: Gpu
    rng: random.Random
    job: Job | None = None
    power_w: float = _IDLE_W
    temperature: float = _AMBIENT + _IDLE_W * _DEGREES_PER_W
    used_mib: float = 7.0
    utilisation: float = 0.0
    energy_mj: float = 0.0
    power_throttled_ns: float = 0.0
    heat_throttled_ns: float = 0.0
    clock_events: float = 0.0
    xid: float = 0.0
    xids: float = 0.0
    double_bit_errors: float = 0.0
    remapped_rows: float = 0.0
    replays: float = 0.0
    warmer: float = 0.0
    faults: dict[str, float] = field(default_factory=dict)
    forced: dict[str, float | None] = field(default_factory=dict)
    counted: dict[str, float] = field(default_factory=dict)
    samples: int = 0

    @property
    def slow(self) -> bool:
        """Whether its clocks are throttled."""
        return "throttle" in self.faults or self.temperature > _TOO_HOT

    @property
    def busy(self) -> float:
        """Its utilisation as a share of 1."""
        return self.utilisation / 100

    @property
    def tensor(self) -> float:
        """The share of time in which its tensor cores work."""
        return self.busy * self.job.tensor if self.job else 0.0

    def start_job(self, job: Job) -> None:
        """Run this job, in a pod of its own."""
        self.job = job
        self.identity = replace(self.identity, namespace=job.namespace, pod=job.name, container="main")

    def report_xid(self, xid: int) -> None:
        """Have an XID error, and what comes of it. The job that ran here is the caller's to end."""
        self.xid = float(xid)
        self.xids += 1
        self.double_bit_errors += xid == 48
        self.remapped_rows += xid in REMAPPING_XIDS

    def reset(self) -> None:
        """Start the counters again that a reset of the GPU or a restart of its driver starts again."""
        self.energy_mj = self.power_throttled_ns = self.heat_throttled_ns = 0.0
        self.double_bit_errors = self.xid = self.replays = 0.0
        self.counted.clear()

    def swap(self) -> None:
        """Become another GPU, new, in the same place."""
        self.reset()
        self.xids = self.remapped_rows = self.clock_events = 0.0
        self.faults.clear()
        self.identity = replace(self.identity, uuid=f"GPU-{uuid.uuid5(NAMESPACE, self.identity.uuid)}")

    def end_job(self) -> None:
        """Run nothing."""
        self.job = None
        self.identity = replace(self.identity, namespace="", pod="", container="")

    def step(self, seconds: float) -> None:
        """Move on by ``seconds``."""
        self.samples += 1
        job, rng = self.job, self.rng
        target = 0.0
        if job is not None:
            target = min(100.0, max(0.0, job.load + rng.uniform(-job.swing, job.swing)))
        self.utilisation = float(round(target))
        # A starting job takes memory step by step, and frees all of it when it ends.
        if job is None:
            self.used_mib = 7.0
        elif self.used_mib < job.memory_mib:
            self.used_mib = float(round(min(job.memory_mib, self.used_mib + job.memory_mib * min(1.0, seconds / 20))))
        share = self.utilisation / 100 * (0.45 if self.slow else 1.0)
        goal = _IDLE_W + share * (_FULL_W - _IDLE_W) * (0.75 + 0.25 * (job.tensor if job else 0))
        self.power_w += (goal - self.power_w) * min(1.0, seconds / 2) + rng.uniform(-1.5, 1.5)
        self.power_w = max(_IDLE_W - 6, self.power_w)
        warm = _AMBIENT + self.warmer + self.power_w * _DEGREES_PER_W + (40.0 if "overheat" in self.faults else 0.0)
        self.temperature += (warm - self.temperature) * min(1.0, seconds / _WARM_UP_S)
        self.energy_mj += self.power_w * seconds * 1000
        if "throttle" in self.faults:
            self.power_throttled_ns += seconds * 1e9
        if self.temperature > _TOO_HOT:
            self.heat_throttled_ns += seconds * 1e9
        if rng.random() < seconds / 86_400:
            self.replays += 1

    def value(self, name: str) -> float:
        """The metric's current value; 0 for metrics that the simulation leaves out."""
        formula = _VALUES.get(name)
        return 0.0 if formula is None else formula(self)


def _utilisation(gpu: SimGpu) -> float:
    return gpu.rng.choice((2619.0, 1980.0, 808_334_905.0)) if "spike" in gpu.faults else gpu.utilisation


def _unless_blank(gpu: SimGpu, value: float) -> float:
    return BLANK if "blank" in gpu.faults else value


def _clocks_event_reasons(gpu: SimGpu) -> float:
    """Bits: idle 1, slowdown by the hardware 8, because of heat 64, because the power brake is on 128."""
    hot = gpu.temperature > _TOO_HOT
    braked = "throttle" in gpu.faults
    return float((gpu.utilisation == 0) * 1 + (hot or braked) * 8 + hot * 64 + braked * 128)


_VALUES: dict[str, Callable[[SimGpu], float]] = {
    "DCGM_FI_DEV_GPU_UTIL": _utilisation,
    "DCGM_FI_DEV_MEM_COPY_UTIL": lambda gpu: float(round(gpu.utilisation * 0.6)),
    "DCGM_FI_DEV_POWER_USAGE": lambda gpu: _unless_blank(gpu, round(gpu.power_w, 3)),
    "DCGM_FI_DEV_GPU_TEMP": lambda gpu: float(round(gpu.temperature)),
    "DCGM_FI_DEV_MEMORY_TEMP": lambda gpu: _unless_blank(gpu, float(round(gpu.temperature + 6 + 8 * gpu.busy))),
    "DCGM_FI_DEV_FB_USED": lambda gpu: gpu.used_mib,
    "DCGM_FI_DEV_FB_FREE": lambda gpu: MEMORY_MIB - gpu.used_mib,
    "DCGM_FI_DEV_FB_RESERVED": lambda gpu: RESERVED_MIB,
    "DCGM_FI_DEV_FB_TOTAL": lambda gpu: MEMORY_MIB + RESERVED_MIB,
    "DCGM_FI_DEV_FB_USED_PERCENT": lambda gpu: round(gpu.used_mib / MEMORY_MIB, 6),
    "DCGM_FI_DEV_SM_CLOCK": lambda gpu: (855.0 if gpu.slow else 1980.0) if gpu.utilisation else 345.0,
    "DCGM_FI_DEV_MEM_CLOCK": lambda gpu: 2619.0,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": lambda gpu: float(round(gpu.energy_mj)),
    "DCGM_FI_DEV_XID_ERRORS": lambda gpu: gpu.xid,
    "DCGM_EXP_XID_ERRORS_COUNT": lambda gpu: gpu.xids,
    "DCGM_EXP_XID_ERRORS_TOTAL": lambda gpu: gpu.xids,
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": lambda gpu: gpu.replays,
    "DCGM_EXP_CLOCK_EVENTS_COUNT": lambda gpu: gpu.clock_events,
    "DCGM_EXP_CLOCK_EVENTS_TOTAL": lambda gpu: gpu.clock_events,
    "DCGM_FI_DEV_POWER_VIOLATION": lambda gpu: float(round(gpu.power_throttled_ns)),
    "DCGM_FI_DEV_THERMAL_VIOLATION": lambda gpu: float(round(gpu.heat_throttled_ns)),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": lambda gpu: gpu.double_bit_errors,
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL": lambda gpu: gpu.double_bit_errors,
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": lambda gpu: gpu.remapped_rows,
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": lambda gpu: float(round(gpu.tensor * 4500)),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": lambda gpu: round(gpu.busy * 0.97, 6),
    "DCGM_FI_PROF_SM_ACTIVE": lambda gpu: round(gpu.busy * 0.97, 6),
    "DCGM_FI_PROF_SM_OCCUPANCY": lambda gpu: round(gpu.busy * 0.4, 6),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": lambda gpu: round(gpu.tensor, 6),
    "DCGM_FI_PROF_DRAM_ACTIVE": lambda gpu: round(gpu.busy * 0.55, 6),
    "DCGM_FI_PROF_PIPE_FP16_ACTIVE": lambda gpu: round(gpu.busy * 0.2, 6),
    "DCGM_FI_PROF_PIPE_FP32_ACTIVE": lambda gpu: round(gpu.busy * 0.2, 6),
    "DCGM_FI_PROF_PCIE_TX_BYTES": lambda gpu: float(round(gpu.busy * 2.4e9)),
    "DCGM_FI_PROF_PCIE_RX_BYTES": lambda gpu: float(round(gpu.busy * 2.4e9)),
    "DCGM_FI_DEV_PCIE_TX_THROUGHPUT": lambda gpu: float(round(gpu.busy * 2.4e6)),
    "DCGM_FI_DEV_PCIE_RX_THROUGHPUT": lambda gpu: float(round(gpu.busy * 2.4e6)),
    "DCGM_FI_DEV_VGPU_LICENSE_STATUS": lambda gpu: 1.0,
    "DCGM_FI_DEV_GPU_RECOVERY_ACTION": lambda gpu: RECOVERY_OF_XID.get(int(gpu.xid), 0.0),
    "DCGM_FI_DEV_ROW_REMAP_PENDING": lambda gpu: float(gpu.xid in REMAPPING_XIDS),
    "DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_MAX": lambda gpu: _BANKS - gpu.remapped_rows,
    "DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_HIGH": lambda gpu: gpu.remapped_rows,
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": _clocks_event_reasons,
    "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS": lambda gpu: float(round(gpu.power_throttled_ns)),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS": lambda gpu: float(round(gpu.heat_throttled_ns)),
    "DCGM_FI_DEV_PSTATE": lambda gpu: 0.0 if gpu.utilisation else 8.0,
    "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS": lambda gpu: float(round(_TOO_HOT - gpu.temperature)),
    "DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS": lambda gpu: _TOO_HOT,
    "DCGM_FI_DEV_GPU_MAX_OP_TEMP": lambda gpu: _MAX_OP_TEMP,
    "DCGM_FI_DEV_MEM_MAX_OP_TEMP": lambda gpu: _MEMORY_MAX_OP_TEMP,
    "DCGM_FI_DEV_FAN_SPEED": lambda gpu: float(min(100, round(max(30.0, gpu.temperature)))),
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": lambda gpu: _LIMIT_W,
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": lambda gpu: _LIMIT_W,
    "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF": lambda gpu: _LIMIT_W,
    "DCGM_FI_DEV_PCIE_LINK_GEN": lambda gpu: 5.0,
    "DCGM_FI_DEV_PCIE_MAX_LINK_GEN": lambda gpu: 5.0,
    "DCGM_FI_DEV_PCIE_LINK_WIDTH": lambda gpu: 16.0,
    "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH": lambda gpu: 16.0,
    "DCGM_FI_DEV_NVLINK_GET_STATE": lambda gpu: 1.0,
    "DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER_FLOAT": lambda gpu: 1.5e-15,
    "DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY": lambda gpu: 1.0,
    "DCGM_FI_DEV_ECC_MODE": lambda gpu: 1.0,
    "DCGM_FI_DEV_PERSISTENCE_MODE": lambda gpu: 1.0,
    "DCGM_FI_DEV_INFOROM_VALID": lambda gpu: 1.0,
}


@dataclass(slots=True)
class SimHost:
    """A machine and its GPUs. It reports nothing before ``silent_until``."""

    number: int
    name: str
    gpus: list[SimGpu]
    silent_until: float = -math.inf
    next_job: float = 0.0
