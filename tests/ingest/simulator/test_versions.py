"""The same GPU as each generation of dcgm-exporter tells of it, and as a capture of each: one series."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from ingest.exporter.exposition import Exposition
from ingest.samples import Sample
from ingest.simulator.fleet import ALL_METRICS, FleetShape, SimFleet
from ingest.simulator.versions import GENERATIONS, exposition, labels_of, written
from readings.model import Gpu
from readings.times import parse_time
from tests.ingest.captures import read_capture

TIME = "2025-07-18T20:42:34Z"
MODEL = 'modelName="NVIDIA H100 80GB HBM3"'
LABELS = {
    "1.x": f'gpu="0",uuid="GPU-1",device="nvidia0",{MODEL},hostname="node-1",DCGM_FI_DRIVER_VERSION="535.129.03",pod_name="train-0",pod_namespace="ml",container_name="main"',
    "4.5": f'gpu="0",UUID="GPU-1",device="nvidia0",{MODEL},Hostname="node-1",DCGM_FI_DRIVER_VERSION="535.129.03",container="main",namespace="ml",pod="train-0"',
    "4.8.3": f'gpu="0",UUID="GPU-1",device="nvidia0",{MODEL},hostname="node-1",DCGM_FI_DRIVER_VERSION="535.129.03",container="main",namespace="ml",pod="train-0"',
    "4.9": f'gpu="0",UUID="GPU-1",device="nvidia0",{MODEL},hostname="node-1",DCGM_FI_SYSTEM_DRIVER_VERSION="535.129.03",container="main",namespace="ml",pod="train-0"',
}
# Name and value as stored; the names of 1.x (without dcgm_), of the aliases of 4.6 and of 4.9 (without DCGM_FI_), and 4.9's value.
TABLE = """
    DEV_SM_CLOCK 1980 sm_clock DEV_SM_CLOCK DEV_SM_CLOCK_HERTZ 1980000000
    DEV_MEM_CLOCK 2619 memory_clock DEV_MEM_CLOCK DEV_MEMORY_CLOCK_HERTZ 2619000000
    DEV_GPU_TEMP 64 gpu_temp DEV_GPU_TEMP_CELSIUS DEV_GPU_TEMP_CELSIUS 64
    DEV_POWER_USAGE 412.25 power_usage DEV_BOARD_POWER_WATTS DEV_BOARD_POWER_WATTS 412.25
    DEV_TOTAL_ENERGY_CONSUMPTION 123456789 total_energy_consumption DEV_TOTAL_ENERGY_CONSUMPTION DEV_GPU_ENERGY_JOULES_TOTAL 123456.789
    DEV_GPU_UTIL 57 gpu_utilization DEV_GPU_UTIL_RATIO DEV_GPU_UTIL_RATIO 0.57
    DEV_MEM_COPY_UTIL 29 mem_copy_utilization DEV_MEM_COPY_UTIL_RATIO DEV_MEM_COPY_UTIL_RATIO 0.29
    DEV_FB_FREE 1007 fb_free DEV_FB_FREE DEV_FB_FREE_BYTES 1055916032
    DEV_FB_USED 80000 fb_used DEV_FB_USED DEV_FB_USED_BYTES 83886080000
    DEV_PCIE_REPLAY_COUNTER 3 pcie_replay_counter DEV_PCIE_REPLAY_TOTAL DEV_PCIE_REPLAY_TOTAL 3
    DEV_XID_ERRORS 0 xid_errors DEV_XID_ERROR DEV_XID_ERROR 0
    DEV_NVLINK_BANDWIDTH_TOTAL 4100 nvlink_bandwidth_total DEV_NVLINK_THROUGHPUT_TOTAL DEV_NVLINK_THROUGHPUT_TOTAL 4100000000
    PROF_GR_ENGINE_ACTIVE 0.57 fi_prof_gr_engine_active PROF_GR_ENGINE_UTIL_RATIO PROF_GR_ENGINE_UTIL_RATIO 0.57
"""
VALUES: dict[str, list[tuple[str, str]]] = {generation: [] for generation in LABELS}
EXPECTED: dict[str, float] = {}
for stored, value, oldest, alias, newest, base in map(str.split, TABLE.strip().splitlines()):
    EXPECTED[f"DCGM_FI_{stored}"] = float(value)
    VALUES["1.x"].append((f"dcgm_{oldest}", value))
    VALUES["4.5"].append((f"DCGM_FI_{stored}", f"{float(value):f}" if "." in value else value))
    VALUES["4.8.3"].append((f"DCGM_FI_{alias}", value))
    VALUES["4.9"].append((f"DCGM_FI_{newest}", base))


def as_text(generation: str) -> list[Sample]:
    body = "".join(f"{name}{{{LABELS[generation]}}} {value}\n" for name, value in VALUES[generation])
    scraped = Exposition("exporter").read(body, parse_time(TIME))
    assert scraped.refused == []
    return scraped.samples


def as_capture(generation: str, path: Path, *, columns: bool) -> list[Sample]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["timestamp", "metric_name", "value", *(["uuid", "gpu"] if columns else []), "labels_raw"])
    for name, value in VALUES[generation]:
        labels = f'__name__="{name}",instance="10.0.0.1:9400",job="dcgm",{LABELS[generation]}'
        writer.writerow([TIME, name, value, *(["GPU-1", "0"] if columns else []), labels])
    path.write_text(text.getvalue())
    read = read_capture(path)
    assert read.refused == []
    return [Sample(*each) for each in read.readings]


@pytest.mark.parametrize("generation", sorted(LABELS))
@pytest.mark.parametrize("form", ["text", "csv", "csv with columns"])
def test_every_generation_in_every_form_gives_the_same_series(generation: str, form: str, tmp_path: Path) -> None:
    if form == "text":
        samples = as_text(generation)
    else:
        samples = as_capture(generation, tmp_path / "capture.csv", columns=form == "csv with columns")
    assert {sample.metric_name: sample.value for sample in samples} == EXPECTED
    assert len(samples) == len(EXPECTED)
    assert {sample.time_ns for sample in samples} == {parse_time(TIME)}
    assert all(sample.gpu == as_text("4.5")[0].gpu for sample in samples)


def test_a_capture_without_the_drivers_label_is_decided_by_what_metrics_it_has(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    ratio = f"{TIME},DCGM_FI_DEV_GPU_UTIL_RATIO,GPU-1,0.5\n"
    rest = f"{TIME},DCGM_FI_DEV_FB_USED_BYTES,GPU-1,1048576\n"
    for text, expected in (
        (ratio + rest, {"DCGM_FI_DEV_GPU_UTIL": 50.0, "DCGM_FI_DEV_FB_USED": 1.0}),
        (ratio, {"DCGM_FI_DEV_GPU_UTIL_RATIO": 0.5}),
    ):
        path.write_text("timestamp,metric_name,uuid,value\n" + text)
        assert {name: value for _, name, _, value in read_capture(path).readings} == expected


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_we_write_as_a_generation_we_read_back_as_it_was(generation: str) -> None:
    fleet = SimFleet(FleetShape(1, 3, metrics=ALL_METRICS))
    fleet.step(5.0)
    told = list(fleet.readings(fleet.hosts[0]))
    scraped = Exposition("synthetic-001").read(exposition(told, generation), 1)
    assert scraped.refused == []
    expected = {(gpu.id, name): value for gpu, name, value in told}
    found = {(sample.gpu.id, sample.metric_name): sample.value for sample in scraped.samples}
    assert found == pytest.approx(expected, rel=1e-9)
    assert {sample.gpu.hostname for sample in scraped.samples} == {"synthetic-001"}
    assert {sample.gpu.pod for sample in scraped.samples} == {gpu.pod for gpu, _, _ in told}


def test_help_and_type_stand_before_each_metric() -> None:
    gpu = Gpu(uuid="GPU-1", gpu_id=0, mig_id="3", mig_profile="1g.10gb", hostname='a"b')
    page = exposition([(gpu, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5.0)], "4.9").splitlines()
    assert page[:2] == [
        "# HELP DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL Total energy since boot (in J).",
        "# TYPE DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL counter",
    ]
    assert 'GPU_I_PROFILE="1g.10gb",GPU_I_ID="3"' in page[2]
    assert 'hostname="a\\"b"' in page[2]
    assert page[2].endswith("} 0.005")


@pytest.mark.parametrize(
    ("metric", "generation", "name", "kind", "text"),
    [
        ("DCGM_FI_DEV_GPU_UTIL", "1.x", "dcgm_gpu_utilization", "gauge", "GPU utilization (in %)."),
        (
            "DCGM_FI_DEV_CLOCKS_EVENT_REASONS",
            "1.x",
            "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
            "gauge",
            "Why clocks are held down (in bitmask).",
        ),
        ("DCGM_FI_DEV_ECC_MODE", "4.8.3", "DCGM_FI_DEV_ECC_CURRENT", "gauge", "ECC on (in bool)."),
        ("DCGM_FI_DEV_ECC_MODE", "4.9", "DCGM_FI_DEV_ECC_MODE", "gauge", "ECC on (in bool)."),
        ("DCGM_FI_DEV_PSTATE", "4.5", "DCGM_FI_DEV_PSTATE", "gauge", "Performance state (in state)."),
        ("DCGM_FI_DEV_PSTATE", "4.9", "DCGM_FI_DEV_GPU_PSTATE", "gauge", "Performance state (in state)."),
        ("DCGM_FI_DEV_GPU_UTIL", "4.5", "DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %)."),
        ("DCGM_FI_DEV_GPU_UTIL", "4.6", "DCGM_FI_DEV_GPU_UTIL_RATIO", "gauge", "GPU utilization (in %)."),
        ("DCGM_FI_DEV_GPU_UTIL", "4.9", "DCGM_FI_DEV_GPU_UTIL_RATIO", "gauge", "GPU utilization ratio (0-1)."),
        (
            "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
            "4.8.3",
            "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
            "counter",
            "Total number of NVLink bandwidth counters for all lanes.",
        ),
        (
            "DCGM_FI_DEV_POWER_VIOLATION",
            "4.5",
            "DCGM_FI_DEV_POWER_VIOLATION",
            "counter",
            "Throttling duration due to power constraints (in us).",
        ),
    ],
)
def test_help_and_type_are_the_exporters_own_right_or_not(
    metric: str, generation: str, name: str, kind: str, text: str
) -> None:
    assert written(metric, generation)[:3] == (name, kind, text)


def test_the_first_generation_tells_uuid_and_index_alone() -> None:
    gpu = Gpu(
        uuid="GPU-1", gpu_id=0, hostname="a", model_name="A", device="nvidia0", pod="p", namespace="n", container="c"
    )
    assert labels_of(gpu, "1.x") == 'gpu="0",uuid="GPU-1",container_name="c",pod_namespace="n",pod_name="p"'
