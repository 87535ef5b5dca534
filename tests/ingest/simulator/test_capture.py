from __future__ import annotations

import csv
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from ingest.simulator.capture import CaptureShape, capture_rows, write_capture
from ingest.simulator.fleet import HEALTH_METRICS


def test_a_capture_has_ten_metrics_for_each_gpu_and_sample(tmp_path: Path) -> None:
    shape = CaptureShape(hosts=2, gpus_per_host=3, samples=4)
    rows = write_capture(tmp_path / "capture.csv", shape)
    with (tmp_path / "capture.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert rows == len(read) == shape.readings == 240
    assert len({row["uuid"] for row in read}) == 6
    assert "0.0.0-synthetic" in read[0]["labels_raw"]
    assert set(Counter(row["metric_name"] for row in read).values()) == {24}
    assert len({(row["uuid"], row["metric_name"], row["timestamp"]) for row in read}) == 240


def test_the_same_numbers_make_the_same_file() -> None:
    assert list(capture_rows(CaptureShape(1, 2, 3))) == list(capture_rows(CaptureShape(1, 2, 3)))
    assert list(capture_rows(CaptureShape(1, 2, 3))) != list(capture_rows(CaptureShape(1, 2, 3, seed=2)))


def test_memory_adds_up_and_utilisation_is_a_percentage() -> None:
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in capture_rows(CaptureShape(samples=5)):
        values.setdefault((row[4], row[0][:18]), {})[row[1]] = float(row[10])
    for one in values.values():
        assert one.get("DCGM_FI_DEV_FB_USED", 0) + one.get("DCGM_FI_DEV_FB_FREE", 0) in {0, 81_007}
        assert 0 <= one["DCGM_FI_DEV_GPU_UTIL"] <= 100


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_capture(tmp_path / "file" / "capture.csv", CaptureShape(1, 1, 1))


def test_it_writes_the_capture_and_says_how_much_is_in_it(tmp_path: Path) -> None:
    out = StringIO()
    call_command("makecapture", str(tmp_path / "c.csv"), "--hosts", "1", "--gpus", "2", "--samples", "3", stdout=out)
    assert out.getvalue() == f"{tmp_path / 'c.csv'}: 60 synthetic readings of 2 GPUs\n"
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 61


def test_a_capture_may_have_the_metrics_of_health(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    call_command(
        "makecapture",
        str(path),
        "--hosts",
        "1",
        "--gpus",
        "1",
        "--samples",
        "2",
        "--metrics",
        "health",
        stdout=StringIO(),
    )
    with path.open(newline="") as file:
        read = {row["metric_name"]: row["value"] for row in csv.DictReader(file)}
    assert read.keys() == set(HEALTH_METRICS)
    assert float(read["DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER_FLOAT"]) == 1.5e-15
    assert read["DCGM_FI_DEV_ENFORCED_POWER_LIMIT"] == "700"


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_a_bad_number_is_named(value: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="whole number from 1"):
        call_command("makecapture", str(tmp_path / "c.csv"), f"--hosts={value}")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot write .*: (Not a directory|File exists)"):
        call_command("makecapture", str(tmp_path / "file" / "c.csv"))
