"""A capture that is streamed in either form of a batch ends as the same readings of the same GPUs in the store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, PodAssignment, ReadingsQuery, SeriesQuery
from stores.sqlite import SqliteStore
from tests.ingest.captures import read_log
from tests.ingest.processes import Fleet, all_committed, wait_until

HEAD = "timestamp,metric_name,gpu_id,device,uuid,modelName,Hostname,container,pod,namespace,value,labels_raw"
WHOLE = '{second},{metric},0,nvidia0,GPU-a,"NVIDIA H100, 80GB",node-1,{pod},{value},"DCGM_FI_DRIVER_VERSION=""550.1"",rack=""r7"""'
SLICE = '{second},{metric},1,nvidia1,GPU-b,A100,node-1,main,train,ml,{value},"GPU_I_ID=""3"",GPU_I_PROFILE=""1g.5gb"""'
METRICS = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE", "vendor_extra")


def capture(path: Path) -> Path:
    """One GPU that two pods share now and then, and an instance of another."""
    lines = [HEAD]
    for number in range(40):
        second = f"2025-07-18T20:42:{number:02}.{number:03}Z"
        for metric in METRICS:
            lines.append(SLICE.format(second=second, metric=metric, value=number / 8))
            for share in range(3 if number % 4 == 0 else 1):
                pod = f"main,pod-{share},ml" if share else ",,"
                lines.append(WHOLE.format(second=second, metric=metric, pod=pod, value=number + share / 4))
    path.write_text("\n".join(lines) + "\n")
    return path


def stored(folder: Path) -> tuple[list[tuple[str, ...]], list[GroupSeries]]:
    """Every reading with all that describes it, and what each pod had of a shared GPU."""
    store = SqliteStore(folder / "readings.sqlite3")
    try:
        batch = store.page(ReadingsQuery(limit=100_000))
        rows = [
            (repr(batch.origins[place]), str(time_ns), repr(value))
            for time_ns, value, place in zip(batch.times, batch.values, batch.places, strict=True)
        ]
        buckets = Buckets(min(batch.times), max(batch.times) + 1, SECOND)
        pods = tuple(PodAssignment("GPU-a", "ml", f"pod-{number}", "main", 0, None) for number in (1, 2))
        shares = [
            series
            for name in METRICS
            for series in store.series(SeriesQuery(metric_name=name, buckets=buckets, by="pod", assignments=pods))
        ]
        return sorted(rows), shares
    finally:
        store.close()


def run(
    folder: Path, path: Path, form: str
) -> tuple[tuple[list[tuple[str, ...]], list[GroupSeries]], list[dict[str, object]]]:
    """What is in the store in the end, and the payloads that were in the log."""
    fleet = Fleet(folder, CSV_PATH=path, BATCH_FORMAT=form, BATCH_SIZE=50)
    fleet.migrate()
    try:
        fleet.broker.start()
        fleet.collector.start()
        fleet.streamer.start()
        assert fleet.streamer.wait() == 0, fleet.streamer.log
        wait_until(lambda: all_committed(fleet), "all is stored")
        messages = asyncio.run(read_log(fleet.port))
        for service in (fleet.collector, fleet.broker):
            assert service.stop()[0] == 0
    finally:
        fleet.kill_all()
    return stored(folder), [json.loads(message.payload) for message in messages]


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_both_forms_of_a_capture_end_as_the_same_readings(tmp_path: Path) -> None:
    path = capture(tmp_path / "capture.csv")
    compact, compact_messages = run(tmp_path / "compact", path, "compact")
    plain, plain_messages = run(tmp_path / "plain", path, "plain")
    assert plain == compact
    rows, shares = compact
    assert len(rows) == 2 * 40 * len(METRICS)
    assert {series.group for series in shares} == {("ml", "pod-1"), ("ml", "pod-2")}
    assert not any("metrics" in message for message in compact_messages)
    assert all("metrics" in message for message in plain_messages)
