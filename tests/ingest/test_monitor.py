from __future__ import annotations

from collections import Counter

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingest.errors import SourceError
from ingest.monitor import monitoring, render
from ingest.report import Report
from ingest.scraper import TargetStatus


def test_figures_are_told_as_prometheus_reads_them() -> None:
    statuses = {"http://a/metrics": TargetStatus(True, 0.25, 40, 3, 1), 'http://"b"/': TargetStatus(None)}
    text = render(Report(10, 8, 2, 1, Counter({"blank": 2}), 1.5), statuses)
    found = {
        (sample.name.removeprefix("gpu_telemetry_streamer_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["readings_read_total",] == 10
    assert found["readings_refused_total", "blank"] == 2
    assert found["behind_seconds",] == 1.5
    assert found["target_up", "http://a/metrics"] == 1
    assert found["target_up", 'http://"b"/'] == 0
    assert found["target_scrape_duration_seconds", "http://a/metrics"] == 0.25
    assert "target_" not in render(Report(), {})


async def test_it_answers_while_it_runs() -> None:
    async with monitoring("127.0.0.1", 0, Report, {}) as port, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/health") as answer:
            assert await answer.json() == {"status": "healthy"}
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert "gpu_telemetry_streamer_readings_read_total 0" in await answer.text()
        with pytest.raises(SourceError, match="METRICS_ADDR"):
            async with monitoring("127.0.0.1", port, Report, {}):
                pass
