"""A made-up capture for trying the pipeline without a GPU. Every host, GPU and driver in it says that it is synthetic."""

from __future__ import annotations

import csv
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

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
MODEL = "Synthetic GPU 80GB"
DRIVER = "0.0.0-synthetic"
# The names and bases are fixed, so the same numbers make the same file on every machine.
_NAMESPACE = uuid.UUID("7d3e1f7e-6f0c-5d5e-9a43-000000000000")
_START_NS = 1_735_689_600_000_000_000  # 2025-01-01T00:00:00Z
_MEMORY_MIB = 81_007


@dataclass(frozen=True, slots=True)
class FleetShape:
    """How large a synthetic fleet is and how often it is sampled. Ten metrics a GPU and sample."""

    hosts: int = 4
    gpus_per_host: int = 8
    samples: int = 30
    interval_s: int = 10
    seed: int = 1

    @property
    def readings(self) -> int:
        """How many rows the capture has."""
        return self.hosts * self.gpus_per_host * self.samples * 10


def write_capture(path: Path, shape: FleetShape) -> int:
    """Write the capture; returns its rows. It appears under its name only when it is whole. Raises OSError."""
    draft = path.with_name(path.name + ".draft")
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8", newline="") as file:
        rows = _write_rows(file, shape)
    draft.replace(path)
    return rows


def _write_rows(file: TextIO, shape: FleetShape) -> int:
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    file.write(",".join(COLUMNS) + "\n")
    count = 0
    for row in capture_rows(shape):
        writer.writerow(row)
        count += 1
    return count


def capture_rows(shape: FleetShape) -> Iterator[tuple[str, ...]]:
    """The rows in a real capture's order: sample by sample, in each the metrics one after the other, then GPU by GPU."""
    rng = random.Random(shape.seed)  # noqa: S311 - made-up load, nothing secret
    gpus = [(host, index) for host in range(1, shape.hosts + 1) for index in range(shape.gpus_per_host)]
    load = {gpu: rng.choice((0.0, 0.0, 35.0, 80.0, 98.0)) for gpu in gpus}
    for sample in range(shape.samples):
        values = {}
        for gpu in gpus:
            if rng.random() < 0.03:
                load[gpu] = rng.choice((0.0, 35.0, 80.0, 98.0))
            values[gpu] = _metrics(load[gpu], rng)
        for metric_number, metric in enumerate(values[gpus[0]]):
            # Exporters read the metrics one after the other: so their times differ by up to three seconds.
            time_ns = _START_NS + (sample * shape.interval_s + metric_number // 3) * 1_000_000_000
            for host, index in gpus:
                yield _row(format_time(time_ns), metric, host, index, values[host, index][metric])


def _metrics(load: float, rng: random.Random) -> dict[str, str]:
    busy = load > 0
    utilisation = min(100, max(0, round(load + rng.uniform(-3, 3)))) if busy else 0
    used = round(_MEMORY_MIB * (0.3 + load / 200)) if busy else 7
    return {
        "DCGM_FI_DEV_GPU_UTIL": str(utilisation),
        "DCGM_FI_DEV_MEM_COPY_UTIL": str(round(utilisation * 0.6)),
        "DCGM_FI_DEV_POWER_USAGE": f"{70 + utilisation * 5.2 + rng.uniform(0, 9):.3f}",
        "DCGM_FI_DEV_GPU_TEMP": str(round(28 + utilisation * 0.4 + rng.uniform(0, 3))),
        "DCGM_FI_DEV_FB_USED": str(used),
        "DCGM_FI_DEV_FB_FREE": str(_MEMORY_MIB - used),
        "DCGM_FI_DEV_DEC_UTIL": "0",
        "DCGM_FI_DEV_ENC_UTIL": "0",
        "DCGM_FI_DEV_SM_CLOCK": "1980" if busy else "345",
        "DCGM_FI_DEV_MEM_CLOCK": "2619",
    }


def _row(timestamp: str, metric: str, host: int, index: int, value: str) -> tuple[str, ...]:
    hostname = f"synthetic-{host:03d}"
    gpu = f"GPU-{uuid.uuid5(_NAMESPACE, f'{hostname}/{index}')}"
    labels = {
        "DCGM_FI_DRIVER_VERSION": DRIVER,
        "Hostname": hostname,
        "UUID": gpu,
        "__name__": metric,
        "device": f"nvidia{index}",
        "gpu": str(index),
        "instance": f"{hostname}:9400",
        "job": "synthetic_capture",
        "modelName": MODEL,
    }
    raw = ",".join(f'{name}="{text}"' for name, text in labels.items())
    return (timestamp, metric, str(index), f"nvidia{index}", gpu, MODEL, hostname, "", "", "", value, raw)
