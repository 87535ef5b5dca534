"""A synthetic capture, for trying the pipeline without a GPU: the simulated fleet's readings as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from ingest.atomic import replacing
from ingest.simulator.fleet import METRIC_SETS, FleetShape, SimFleet
from readings.model import Gpu
from readings.times import format_time

COLUMNS = (
    "timestamp",
    "metric_name",
    "gpu_id",
    "device",
    "uuid",
    "modelName",
    "Hostname",
    "container",
    "pod",
    "namespace",
    "value",
    "labels_raw",
)
# The metrics of common captures, in their order.
METRICS = tuple(
    f"DCGM_FI_DEV_{name}"
    for name in (
        "GPU_UTIL",
        "MEM_COPY_UTIL",
        "POWER_USAGE",
        "GPU_TEMP",
        "FB_USED",
        "FB_FREE",
        "DEC_UTIL",
        "ENC_UTIL",
        "SM_CLOCK",
        "MEM_CLOCK",
    )
)
# The names of the sets in flags.
CAPTURE_SETS = {**METRIC_SETS, "default": METRICS}
_START_NS = 1_735_689_600_000_000_000  # 2025-01-01T00:00:00Z


@dataclass(frozen=True, slots=True)
class CaptureShape:
    """The size of a synthetic capture's fleet, and how often it is sampled."""

    hosts: int = 4
    gpus_per_host: int = 8
    samples: int = 30
    interval_s: int = 10
    seed: int = 1
    metrics: tuple[str, ...] = METRICS

    @property
    def readings(self) -> int:
        """The number of rows."""
        return self.hosts * self.gpus_per_host * self.samples * len(self.metrics)


def write_capture(path: Path, shape: CaptureShape) -> int:
    """Write the capture; returns the number of rows. The file appears only when it is whole. Raises OSError."""
    with replacing(path) as binary:
        file = TextIOWrapper(binary, "utf-8", newline="")
        file.write(",".join(COLUMNS) + "\n")
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(capture_rows(shape))
        file.detach()  # flushed, and left open
    return shape.readings


def capture_rows(shape: CaptureShape) -> Iterator[tuple[str, ...]]:
    """The rows in a real capture's order: by sample, then by metric, then by GPU."""
    fleet = SimFleet(FleetShape(shape.hosts, shape.gpus_per_host, shape.seed, shape.metrics))
    count = len(shape.metrics)
    for sample in range(shape.samples):
        fleet.step(shape.interval_s)
        readings = [reading for host in fleet.hosts for reading in fleet.readings(host)]
        for number in range(count):
            # Exporters read the metrics one after the other, so their times differ by up to three seconds.
            time_ns = _START_NS + (sample * shape.interval_s + number * 10 // count // 3) * 1_000_000_000
            time = format_time(time_ns)
            for gpu, name, value in readings[number::count]:
                yield _row(time, name, gpu, _shown(value))


def _shown(value: float) -> str:
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.001 else repr(value)


def _row(timestamp: str, metric: str, gpu: Gpu, value: str) -> tuple[str, ...]:
    labels = {
        **gpu.labels,
        "Hostname": gpu.hostname,
        "UUID": gpu.uuid,
        "__name__": metric,
        "device": gpu.device,
        "gpu": str(gpu.gpu_id),
        "instance": f"{gpu.hostname}:9400",
        "job": "synthetic_capture",
        "modelName": gpu.model_name,
    }
    raw = ",".join(f'{name}="{text}"' for name, text in labels.items())
    place = (str(gpu.gpu_id), gpu.device, gpu.uuid, gpu.model_name, gpu.hostname)
    return (timestamp, metric, *place, gpu.container, gpu.pod, gpu.namespace, value, raw)
