from __future__ import annotations

import subprocess
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from ingest.exporter.scraper import TargetStatus
from ingest.streamer.metrics import MonitoredStreamer
from ingest.streamer.report import Backlog, Report
from telemetry_site.monitor import render
from tests.broker.faults.tools import need

STATUSES = {"http://a/metrics": TargetStatus(True, 0.25, 40, 3, 1, gpus=8), 'http://"b"/': TargetStatus(None)}
REPORT = Report(
    10,
    8,
    2,
    1,
    Counter({"blank": 2, "bad_label": 3, "not_a_gpu": 4}),
    1.5,
    Backlog(500, 20, 3.5),
    spool_bytes=4096,
    connected=True,
)


async def figures(service: MonitoredStreamer) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("gpu_telemetry_streamer_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(render(await service.figures()).decode())
        for sample in family.samples
    }


async def test_all_that_it_did_and_has_before_it_is_told() -> None:
    found = await figures(MonitoredStreamer(REPORT, STATUSES))
    assert {name: found[name,] for name in ("readings_read_total", "readings_sent_total", "batches_sent_total")} == {
        "readings_read_total": 10,
        "readings_sent_total": 8,
        "batches_sent_total": 2,
    }
    by_kind = {name: value for name, value in found.items() if name[0].startswith("readings_") and len(name) > 1}
    assert by_kind == {
        ("readings_refused_total", "blank"): 2,
        ("readings_remarked_total", "bad_label"): 3,
        ("readings_passed_over_total", "not_a_gpu"): 4,
    }
    assert (found["behind_seconds",], found["batches_waiting",], found["spool_bytes",]) == (1.5, 1, 4096)
    assert (found["capture_left_bytes",], found["capture_left_rows",], found["capture_left_seconds",]) == (500, 20, 3.5)
    assert found["broker_connected",] == 1
    assert found["target_up", "http://a/metrics"] == 1
    assert found["target_up", 'http://"b"/'] == 0
    assert found["target_scrape_duration_seconds", "http://a/metrics"] == 0.25
    assert found["target_failures_total", "http://a/metrics"] == 1
    assert found["gpu_telemetry_target_gpus", "http://a/metrics"] == 8


async def test_what_there_is_none_of_is_left_out() -> None:
    found = await figures(MonitoredStreamer(Report(), {}))
    assert not [name for name, *_ in found if name.startswith(("target_", "capture_", "spool_"))]


async def test_targets_that_come_later_are_told_too() -> None:
    statuses: dict[str, TargetStatus] = {}
    service = MonitoredStreamer(Report(), statuses)
    statuses["http://a/metrics"] = TargetStatus(True)
    assert ("target_up", "http://a/metrics") in await figures(service)


def test_trouble_is_the_brokers_and_that_of_all_exporters_together() -> None:
    report = Report(trouble=["the broker is away"])
    down, up, new = TargetStatus(False), TargetStatus(True, gpus=8), TargetStatus(None)
    assert MonitoredStreamer(report, {"a": down, "b": up}).trouble() == ["the broker is away"]
    assert MonitoredStreamer(Report(), {"a": down, "b": down, "c": new}).trouble() == ["none of 2 exporters is up"]
    assert MonitoredStreamer(Report(), {"c": new}).trouble() == []
    empty = TargetStatus(True)
    assert MonitoredStreamer(Report(), {"a": empty, "b": down}).trouble() == ["none of 1 exporters gives a GPU"]
    assert MonitoredStreamer(Report(), {"a": empty, "b": up}).trouble() == []  # as with one that is down


def test_what_hangs_is_told() -> None:
    report = Report()
    with report.watch.doing("a read", -1):
        assert MonitoredStreamer(report, {}).stuck() == ["a read has not ended for 0 s"]
    assert MonitoredStreamer(report, {}).stuck() == []


async def test_promtool_finds_nothing_to_say() -> None:
    promtool = need("promtool", "prometheus")
    text = render(await MonitoredStreamer(REPORT, STATUSES).figures())
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)  # noqa: ASYNC221
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
