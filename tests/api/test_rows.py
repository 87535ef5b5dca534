"""Store rows become flat dicts."""

from __future__ import annotations

from api.rows import reading_rows
from api.serializers import ReadingSerializer
from stores.base import Row

ROW = Row(
    time_ns=1_752_871_354_000_000_000,
    metric_name="DCGM_FI_DEV_GPU_TEMP",
    value=63.0,
    uuid="GPU-a",
    mig_id="",
    gpu_id=None,
    device="nvidia0",
    model_name="H100",
    hostname="h",
    container="",
    pod="",
    namespace="",
)


def test_a_row_has_its_unit_and_its_time() -> None:
    (reading,) = reading_rows([ROW])
    assert (reading["timestamp"], reading["unit"], reading["gpu_id"]) == ("2025-07-18T20:42:34Z", "°C", None)
    assert "mig_id" not in reading


def test_a_metric_that_is_not_in_the_catalogue_has_no_unit() -> None:
    assert reading_rows([ROW._replace(metric_name="MINE")])[0]["unit"] == ""


def test_the_documented_fields_are_the_fields() -> None:
    assert set(reading_rows([ROW._replace(mig_id="3")])[0]) == set(ReadingSerializer().fields)


def test_rows_of_different_times_keep_them() -> None:
    times = [row["timestamp"] for row in reading_rows([ROW, ROW._replace(time_ns=1), ROW])]
    assert times == ["2025-07-18T20:42:34Z", "1970-01-01T00:00:00.000000001Z", "2025-07-18T20:42:34Z"]
