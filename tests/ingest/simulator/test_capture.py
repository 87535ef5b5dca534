from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from ingest.simulator.capture import COLUMNS, CaptureShape, capture_rows, write_capture


def test_a_capture_has_ten_metrics_for_each_gpu_and_sample(tmp_path: Path) -> None:
    shape = CaptureShape(hosts=2, gpus_per_host=3, samples=4)
    rows = write_capture(tmp_path / "capture.csv", shape)
    with (tmp_path / "capture.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert rows == len(read) == shape.readings == 240
    assert len({row["uuid"] for row in read}) == 6
    assert set(Counter(row["metric_name"] for row in read).values()) == {24}
    assert len({(row["uuid"], row["metric_name"], row["timestamp"]) for row in read}) == 240


def test_everything_in_it_says_that_it_is_synthetic() -> None:
    row = dict(zip(COLUMNS, next(capture_rows(CaptureShape(1, 1, 1))), strict=True))
    assert row["Hostname"].startswith("synthetic-")
    assert "Synthetic" in row["modelName"]
    assert "0.0.0-synthetic" in row["labels_raw"]


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
