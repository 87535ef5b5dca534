"""The same GPU, told by exporters of every generation and by captures of each, is one series from end to end: real processes all."""

from __future__ import annotations

import csv
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ingest.simulator.fleet import ALL_METRICS, FleetShape, SimFleet
from ingest.simulator.versions import GENERATIONS, labels_of, other_rows, written
from readings.catalogue import unit_of
from readings.model import Gpu
from readings.times import SECOND, format_time
from tests.api.serving import Service as Web
from tests.api.serving import serving
from tests.ingest.processes import Fleet, Service, wait_until

pytestmark = pytest.mark.acceptance

Readings = list[tuple[Gpu, str, float]]
LINK = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "state")
    exporters = Service("exporters", fleet, "fakeexporter")
    listed = tmp_path / "targets.txt"
    try:
        fleet.migrate()
        fleet.broker.start()
        fleet.collector.start()
        exporters.start(
            *("--hosts", "1", "--gpus-per-host", "2", "--metrics", "all", "--still", "--each", "--port", "0"),
            *("--list", str(listed)),
        )
        fleet.broker.wait_for("listening on")
        wait_until(listed.exists, "the exporters")
        yield fleet
    finally:
        fleet.kill_all()
        exporters.kill()


def the_gpus() -> Readings:
    """What the exporters tell: a fleet with the same seed is the same fleet in every process."""
    simulated = SimFleet(FleetShape(hosts=1, gpus_per_host=2, metrics=ALL_METRICS))
    return list(simulated.readings(simulated.hosts[0]))


def write_captures(folder: Path, readings: Readings, newest_ns: int) -> None:
    """What each generation's exporter tells, as Prometheus gives it in a table: one capture each, a second apart."""
    folder.mkdir()
    for number, generation in enumerate(GENERATIONS):
        time_text = format_time(newest_ns - number * SECOND)
        with (folder / f"{generation}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["timestamp", "metric_name", "uuid", "value", "labels_raw"])
            for gpu, metric, value in readings:
                style = written(metric, generation)
                shown = value if style.scale is None else style.scale(value)
                labels = f'__name__="{style.name}",job="dcgm",{labels_of(gpu, generation)}'
                rows.writerow([time_text, style.name, gpu.uuid, repr(shown), labels])


def asked(web: Web, path: str, **parameters: object) -> dict[str, object]:
    answer = web.get(f"{path}?{urlencode(parameters)}" if parameters else path)
    assert answer.status == 200, answer.body
    found: dict[str, object] = json.loads(answer.body)
    return found


def told_of(web: Web, uuid: str) -> dict[str, dict[str, tuple[float, str]]]:
    """What the API tells of a GPU: by time, each metric's value and unit."""
    by_time: dict[str, dict[str, tuple[float, str]]] = defaultdict(dict)
    offset = 0
    while True:
        page = asked(web, f"/api/v1/gpus/{uuid}/telemetry", limit=1000, offset=offset)
        for row in page["data"]:  # type: ignore[attr-defined]
            assert row["uuid"] == uuid
            by_time[row["timestamp"]][row["metric_name"]] = row["value"], row["unit"]
        if not page["next"]:
            return by_time
        offset += 1000


def test_every_generation_as_text_and_as_capture_is_one_series(fleet: Fleet, tmp_path: Path) -> None:
    readings = the_gpus()
    uuids = sorted({gpu.uuid for gpu, _, _ in readings})
    write_captures(tmp_path / "captures", readings, time.time_ns() - 60 * SECOND)
    fleet.streamer.start("--source", "dcgm", "--targets", str(tmp_path / "targets.txt"), "--once")
    assert fleet.streamer.wait() == 0, fleet.streamer.log
    fleet.streamer.start("--csv-path", str(tmp_path / "captures"))
    assert fleet.streamer.wait() == 0, fleet.streamer.log
    fleet.collector.stop()

    with serving(fleet.state_dir, "--retention-period", "0", MQ_HOST="127.0.0.1", MQ_PORT=str(fleet.port)) as web:
        assert sorted(asked(web, "/api/v1/gpus")["data"]) == uuids  # type: ignore[call-overload]
        for uuid in uuids:
            expected = {metric: (value, unit_of(metric)) for gpu, metric, value in readings if gpu.uuid == uuid}
            parts = {
                f"{LINK}:nvlink:0": (0.0, "count"),
                f"{LINK}:nvlink:1": (1.0, "count"),
                "DCGM_EXP_XID_ERRORS_COUNT:xid:79": (1.0, "count"),
                "DCGM_EXP_CLOCK_EVENTS_COUNT:clock_event:sw_thermal": (2.0, "count"),
            }
            forms = list(told_of(web, uuid).values())
            # Newest first: five scrapes, of which that of 1.x knows no parts, then five captures.
            assert len(forms) == 2 * len(GENERATIONS)
            assert [form for form in forms if form == expected | parts] == [expected | parts] * 4
            assert [form for form in forms if form != expected | parts] == [expected] * 6
            last = asked(web, f"/api/v1/gpus/{uuid}")
            assert last["uuid"] == uuid
        catalogue = {each["name"]: each for each in asked(web, "/api/v1/metrics")["data"]}  # type: ignore[attr-defined]
        assert all(catalogue[metric]["seen"] for metric in ALL_METRICS)
        # CPUs and switches of the four generations that tell of them are counted, and are no GPUs.
        assert asked(web, "/api/v1/stats")["readings"]["passed_over"] == {"not_a_gpu": 8}  # type: ignore[index]


def test_what_exporters_tell_beside_gpus_is_there_to_be_told() -> None:
    gpu = Gpu(uuid="GPU-1", gpu_id=0, hostname="node-1", model_name="A")
    assert other_rows([gpu], "1.x") == ""
    assert 'nvlink="1",gpu="0",gpu_uuid="GPU-1",model_name="A",Hostname="node-1"} 1' in other_rows([gpu], "4.5")
    assert "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL{" in other_rows([gpu], "4.9")
