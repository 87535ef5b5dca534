"""A synthetic fleet that behaves like real GPUs: jobs come and go, power follows load, temperature follows power.

All names in it say "synthetic". The same seed and the same steps give the same values.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from readings.catalogue import CATALOGUE
from readings.model import DRIVER_LABEL, Gpu

MODEL = "Synthetic GPU 80GB"
DRIVER = "0.0.0-synthetic"
MEMORY_MIB = 81_007
RESERVED_MIB = 552.0
FAULTS = {
    "xid": "an XID error of a GPU whose job then dies",
    "overheat": "a GPU whose cooling fails",
    "throttle": "a GPU that the power brake holds at a low clock",
    "missing": "a GPU that falls off the bus",
    "blank": "DCGM's blank numbers in place of values",
    "spike": "values of other fields in place of the utilisation",
    "silent": "a host that reports nothing",
}
DEFAULT_METRICS = tuple(
    f"DCGM_FI_{name}"
    for name in (
        "DEV_SM_CLOCK",
        "DEV_MEM_CLOCK",
        "DEV_MEMORY_TEMP",
        "DEV_GPU_TEMP",
        "DEV_POWER_USAGE",
        "DEV_TOTAL_ENERGY_CONSUMPTION",
        "DEV_PCIE_REPLAY_COUNTER",
        "DEV_GPU_UTIL",
        "DEV_MEM_COPY_UTIL",
        "DEV_ENC_UTIL",
        "DEV_DEC_UTIL",
        "DEV_XID_ERRORS",
        "DEV_FB_FREE",
        "DEV_FB_USED",
        "DEV_FB_RESERVED",
        "DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "DEV_CORRECTABLE_REMAPPED_ROWS",
        "DEV_ROW_REMAP_FAILURE",
        "DEV_NVLINK_BANDWIDTH_TOTAL",
        "DEV_VGPU_LICENSE_STATUS",
        "PROF_GR_ENGINE_ACTIVE",
        "PROF_PIPE_TENSOR_ACTIVE",
        "PROF_DRAM_ACTIVE",
        "PROF_PCIE_TX_BYTES",
        "PROF_PCIE_RX_BYTES",
    )
)
# What deploy/dcgm-exporter/health.csv adds for events of health.
HEALTH_METRICS = DEFAULT_METRICS + tuple(
    f"DCGM_FI_DEV_{name}"
    for name in (
        "ECC_SBE_VOL_TOTAL",
        "ECC_DBE_VOL_TOTAL",
        "ROW_REMAP_PENDING",
        *(f"BANKS_REMAP_ROWS_AVAIL_{left}" for left in ("MAX", "HIGH", "PARTIAL", "LOW", "NONE")),
        "MEMORY_UNREPAIRABLE_FLAG",
        "GPU_RECOVERY_ACTION",
        "POWER_VIOLATION",
        "THERMAL_VIOLATION",
        "CLOCKS_EVENT_REASONS",
        *(
            f"CLOCKS_EVENT_REASON_{reason}_NS"
            for reason in (
                "SW_POWER_CAP",
                "SYNC_BOOST",
                "SW_THERM_SLOWDOWN",
                "HW_THERM_SLOWDOWN",
                "HW_POWER_BRAKE_SLOWDOWN",
            )
        ),
        "PSTATE",
        "GPU_TEMP_MARGIN_CELSIUS",
        "GPU_TEMP_SLOWDOWN_CELSIUS",
        "GPU_MAX_OP_TEMP",
        "MEM_MAX_OP_TEMP",
        "FAN_SPEED",
        "ENFORCED_POWER_LIMIT",
        "POWER_MGMT_LIMIT",
        "POWER_MGMT_LIMIT_DEF",
        "PCIE_LINK_GEN",
        "PCIE_MAX_LINK_GEN",
        "PCIE_LINK_WIDTH",
        "PCIE_MAX_LINK_WIDTH",
        "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        "NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
        "NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        "NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
        "NVLINK_GET_STATE",
        "NVLINK_COUNT_EFFECTIVE_BER_FLOAT",
        "FABRIC_HEALTH_SUMMARY",
        "ECC_MODE",
        "PERSISTENCE_MODE",
        "INFOROM_VALID",
    )
)
ALL_METRICS = tuple(CATALOGUE)
# The names of the sets in settings and flags. Figures of benches are of the default set.
METRIC_SETS = {"default": DEFAULT_METRICS, "health": HEALTH_METRICS, "all": ALL_METRICS}

BLANK = 9223372036854775794.0
# UUIDs are made from this and the names alone, so a fleet is the same on every machine.
_NAMESPACE = uuid.UUID("7d3e1f7e-6f0c-5d5e-9a43-000000000000")
_IDLE_W, _FULL_W = 68.0, 640.0
_AMBIENT, _DEGREES_PER_W = 24.0, 0.062
_WARM_UP_S = 25.0
_JOB_SIZES = (1, 1, 2, 4, 8)
_MEAN_JOB_S, _MEAN_PAUSE_S = 900.0, 240.0
_FIRST_FAULT_S, _MEAN_FAULT_GAP_S, _FAULT_S = 5.0, 45.0, 30.0
_HEAT_S = 90.0  # heat builds up slowly
_TOO_HOT = 88.0
_OF_LOAD = {"overheat", "throttle"}  # these show only on a busy GPU
_LIMIT_W, _MAX_OP_TEMP, _MEMORY_MAX_OP_TEMP = 700.0, 85.0, 95.0
_BANKS = 2560
# What the driver asks for after an XID: to reset the GPU (1), to reboot (2).
_RECOVERY = {48: 1.0, 79: 2.0}
_XIDS = (13, 31, 48, 63, 79, 94)


@dataclass(frozen=True, slots=True)
class FleetShape:
    """The size of the fleet, its metrics, its faults and its scenario (a name in ingest.simulator.demo.SCENARIOS)."""

    hosts: int = 4
    gpus_per_host: int = 8
    seed: int = 1
    metrics: tuple[str, ...] = DEFAULT_METRICS
    faults: tuple[str, ...] = ()
    scenario: str = "random"


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
    """One GPU: its identity and its state. ``faults`` maps each current fault to its end. Its air is ``warmer`` by so many °C."""

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
        self.remapped_rows += xid in {48, 63}

    def end_job(self) -> None:
        """Run nothing."""
        self.job = None
        self.identity = replace(self.identity, namespace="", pod="", container="")

    def step(self, seconds: float) -> None:
        """Move on by ``seconds``."""
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
    "DCGM_FI_DEV_GPU_RECOVERY_ACTION": lambda gpu: _RECOVERY.get(int(gpu.xid), 0.0),
    "DCGM_FI_DEV_ROW_REMAP_PENDING": lambda gpu: float(gpu.xid in {48, 63}),
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


class SimFleet:
    """The fleet at one moment; ``step`` moves it on. ``seconds`` is its own time; what comes before 0 is its history."""

    job_namespace = "synthetic"

    def __init__(self, shape: FleetShape, seconds: float = 0.0) -> None:
        self.shape = shape
        self.seconds = seconds
        self._rng = random.Random(shape.seed)  # noqa: S311 - made-up load, nothing secret
        self._jobs = 0
        self.hosts = [self._make_host(number) for number in range(1, shape.hosts + 1)]
        self._next_fault = dict.fromkeys(shape.faults, _FIRST_FAULT_S)
        for host in self.hosts:  # start in the middle of the day
            self._start_jobs(host)
            for gpu in host.gpus:
                for _ in range(3):
                    gpu.step(20.0)

    def step(self, seconds: float) -> None:
        """Move the whole fleet on by ``seconds``."""
        self.seconds += seconds
        for fault, due in self._next_fault.items():
            if self.seconds >= due:
                self._break(fault)
                self._next_fault[fault] = self.seconds + self._rng.expovariate(1 / _MEAN_FAULT_GAP_S)
        for host in self.hosts:
            for gpu in host.gpus:
                if gpu.job is not None and self.seconds >= gpu.job.ends:
                    gpu.end_job()
                for fault in [fault for fault, until in gpu.faults.items() if self.seconds >= until]:
                    del gpu.faults[fault]
                gpu.step(seconds)
            if self.seconds >= host.next_job:
                self._start_jobs(host)

    def readings(self, host: SimHost) -> Iterator[tuple[Gpu, str, float]]:
        """The host's current readings, GPU by GPU; none of a silent host or a missing GPU."""
        if self.seconds < host.silent_until:
            return
        for gpu in host.gpus:
            if "missing" not in gpu.faults:
                for name in self.shape.metrics:
                    yield gpu.identity, name, gpu.value(name)

    def _make_host(self, number: int) -> SimHost:
        name = f"synthetic-{number:03d}"
        gpus = [
            SimGpu(
                Gpu(
                    uuid=f"GPU-{uuid.uuid5(_NAMESPACE, f'{name}/{index}')}",
                    hostname=name,
                    gpu_id=index,
                    device=f"nvidia{index}",
                    model_name=MODEL,
                    labels={DRIVER_LABEL: DRIVER},
                ),
                random.Random(self._rng.random()),  # noqa: S311
                energy_mj=float(self._rng.randrange(10**9, 10**11)),
            )
            for index in range(self.shape.gpus_per_host)
        ]
        return SimHost(number, name, gpus)

    def _start_jobs(self, host: SimHost) -> None:
        """Start jobs on free GPUs of a host, or leave them idle for a while."""
        rng = self._rng
        free = [gpu for gpu in host.gpus if gpu.job is None]
        while free and rng.random() < 0.7:
            size = min(rng.choice(_JOB_SIZES), len(free))
            self._jobs += 1
            job = Job(
                name=f"train-{self._jobs}" if size > 1 else f"notebook-{self._jobs}",
                ends=self.seconds + 30 + rng.expovariate(1 / _MEAN_JOB_S),
                load=rng.choice((35.0, 80.0, 96.0, 99.0)),
                swing=rng.choice((1.0, 3.0, 10.0)),
                memory_mib=float(round(MEMORY_MIB * rng.uniform(0.25, 0.95))),
                tensor=rng.uniform(0.1, 0.8),
                namespace=self.job_namespace,
            )
            for gpu in free[:size]:
                gpu.start_job(job)
            free = free[size:]
        host.next_job = self.seconds + 15 + rng.expovariate(1 / _MEAN_PAUSE_S)

    def _break(self, fault: str) -> None:
        rng = self._rng
        host = rng.choice(self.hosts)
        busy = [gpu for gpu in host.gpus if gpu.job is not None]
        gpu = rng.choice(busy if busy and fault in _OF_LOAD else host.gpus)
        if fault == "silent":
            host.silent_until = self.seconds + _FAULT_S
        elif fault == "xid":
            gpu.report_xid(rng.choice(_XIDS))
            gpu.end_job()
        else:
            gpu.faults[fault] = self.seconds + (_HEAT_S if fault == "overheat" else _FAULT_S)
            gpu.clock_events += fault == "throttle"
