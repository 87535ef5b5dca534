"""A synthetic fleet that behaves like real GPUs: jobs come and go, power follows load, temperature follows power.

All names in it say "synthetic". The same seed and the same steps give the same values.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from ingest.simulator.course import FaultCourse
from ingest.simulator.faults import NAMED, PlannedFault, events_of, planned_fault
from ingest.simulator.gpu import MEMORY_MIB, NAMESPACE, Job, SimGpu, SimHost
from readings.catalogue import CATALOGUE
from readings.model import DRIVER_LABEL, Gpu

MODEL = "Synthetic GPU 80GB"
DRIVER = "0.0.0-synthetic"
# The faults that can come now and then by chance.
FAULTS = ("xid", "overheat", "throttle", "missing", "blank", "spike", "silent")
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

_JOB_SIZES = (1, 1, 2, 4, 8)
_MEAN_JOB_S, _MEAN_PAUSE_S = 900.0, 240.0
_FIRST_FAULT_S, _MEAN_FAULT_GAP_S, _FAULT_S = 5.0, 45.0, 30.0
_HEAT_S = 90.0  # heat builds up slowly
_OF_LOAD = {"overheat", "throttle"}  # these show only on a busy GPU
_XIDS = (13, 31, 48, 63, 79, 94)


@dataclass(frozen=True, slots=True)
class FleetShape:
    """The size of the fleet, its metrics, its faults and its scenario (a name in ingest.simulator.demo.SCENARIOS).

    ``faults`` are names in FAULTS, which come by chance, and texts for ``planned_fault``; ``fault_rate`` an hour are drawn by lot.
    """

    hosts: int = 4
    gpus_per_host: int = 8
    seed: int = 1
    metrics: tuple[str, ...] = DEFAULT_METRICS
    faults: tuple[str, ...] = ()
    scenario: str = "random"
    fault_rate: float = 0.0

    def planned(self) -> list[PlannedFault]:
        """The faults that have a place and a time. Raises ValueError for one that cannot be."""
        found = [planned_fault(text) for text in self.faults if text not in FAULTS]
        for fault, text in zip(found, (text for text in self.faults if text not in FAULTS), strict=True):
            if fault.host is not None and not 1 <= fault.host <= self.hosts:
                raise ValueError(f"{text!r}: there is no host {fault.host}: use 1 to {self.hosts}")
            if fault.gpu is not None and fault.gpu >= self.gpus_per_host:
                raise ValueError(f"{text!r}: there is no GPU {fault.gpu}: use 0 to {self.gpus_per_host - 1}")
            if missing := [metric for metric in fault.fault.metrics if metric not in self.metrics]:
                raise ValueError(
                    f"{text!r}: it needs {missing[0]}, which is not in this set of metrics: use SIM_METRICS=health, or all"
                )
        return found


class SimFleet:
    """The fleet at one moment; ``step`` moves it on. ``seconds`` is its own time; what comes before 0 is its history."""

    job_namespace = "synthetic"

    def __init__(self, shape: FleetShape, seconds: float = 0.0) -> None:
        self.shape = shape
        self.seconds = seconds
        self._rng = random.Random(shape.seed)  # noqa: S311 - made-up load, nothing secret
        self._jobs = 0
        self.hosts = [self._make_host(number) for number in range(1, shape.hosts + 1)]
        self._next_fault = {name: _FIRST_FAULT_S for name in shape.faults if name in FAULTS}
        self.course = FaultCourse(shape.planned(), shape.fault_rate, shape.metrics, shape.seed)
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
        self.course.step(self, seconds)

    def fail(self, gpu: SimGpu, xid: int) -> None:
        """An XID error of a GPU, which ends its job."""
        gpu.report_xid(xid)
        gpu.end_job()

    def hold(self, gpu: SimGpu) -> None:
        """Have a pod on the GPU until its job is ended."""
        if gpu.job is None:
            self._jobs += 1
            name = f"notebook-{self._jobs}"
            gpu.start_job(Job(name, math.inf, 50.0, 1.0, 28_000.0, 0.0, self.job_namespace))
        else:
            gpu.job = gpu.job._replace(ends=math.inf)

    def readings(self, host: SimHost) -> Iterator[tuple[Gpu, str, float]]:
        """The host's current readings, GPU by GPU; none of a silent host or a missing GPU."""
        if self.seconds < host.silent_until:
            return
        for gpu in host.gpus:
            if "missing" in gpu.faults or ("sample_loss" in gpu.faults and gpu.samples % 2):
                continue
            if gpu.forced or gpu.counted:
                for name in self.shape.metrics:
                    value = gpu.forced[name] if name in gpu.forced else gpu.value(name) + gpu.counted.get(name, 0.0)
                    if value is not None:
                        yield gpu.identity, name, value
                continue
            for name in self.shape.metrics:
                yield gpu.identity, name, gpu.value(name)

    def _make_host(self, number: int) -> SimHost:
        name = f"synthetic-{number:03d}"
        gpus = [
            SimGpu(
                Gpu(
                    uuid=f"GPU-{uuid.uuid5(NAMESPACE, f'{name}/{index}')}",
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
            self.course.note(fault, host, None, _FAULT_S, NAMED[fault].events)
        elif fault == "xid":
            xid = rng.choice(_XIDS)
            gpu.report_xid(xid)
            gpu.end_job()
            self.course.note(fault, host, gpu, math.inf, events_of(fault, xid))
        else:
            lasts = _HEAT_S if fault == "overheat" else _FAULT_S
            gpu.faults[fault] = self.seconds + lasts
            gpu.clock_events += fault == "throttle"
            self.course.note(fault, host, gpu, lasts, NAMED[fault].events)
