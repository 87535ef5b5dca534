from __future__ import annotations

import asyncio
import subprocess
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingest.collector.collector import Collector
from ingest.collector.metrics import MonitoredCollector
from ingest.rollups.service import RollupSettings
from ingest.streamer.file import stream
from stores.base import StoreUnavailable
from stores.memory import MemoryStore
from telemetry_site.monitor import render
from tests.broker.faults.tools import need
from tests.broker.harness import running_broker
from tests.ingest.captures import write_capture
from tests.ingest.rollups.keeping import KeptWindows
from tests.ingest.wiring import collect_config, collecting, stream_config, until
from tests.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)


async def figures(collector: Collector) -> dict[str, float]:
    text = render(await MonitoredCollector(collector).figures()).decode()
    return {
        ":".join((sample.name.removeprefix("gpu_telemetry_collector_"), *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_it_stored_refused_and_has_before_it_is_told(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture.csv", gpus=10, samples=4)
    with capture.open("a") as file:
        file.write(
            '"2025-07-18T20:42:34Z","DCGM_FI_DEV_GPU_UTIL","0","nvidia0","GPU-x","H100","host-00","","","","N/A",""\n'
        )
    async with running_broker(tmp_path / "log") as broker:
        await stream(stream_config(capture, broker.port, tmp_path / "streamer"), asyncio.Event())
        collector = Collector(collect_config(broker.port, tmp_path), MemoryStore())
        assert "lag_messages" not in await figures(collector)  # nobody was asked yet
        while not await collector.poll_once():
            pass
        found = await figures(collector)
        assert found["lag_messages"] == broker.log.next_offset
        assert found["readings_waiting"] > 0
        assert found["behind_seconds"] > 0
        assert found["committed_offset"] == -1
        assert found["broker_connected"] == 1
        while collector.committed < broker.log.next_offset - 1:
            await collector.poll_once(0.1)
            await collector.flush()
            await collector.commit()
        found = await figures(collector)
        text = render(await MonitoredCollector(collector).figures())
        await collector.close()
    assert found["readings_stored_total"] == 120
    assert found["readings_refused_total:not_available"] == 1
    assert found["messages_total"] == broker.log.next_offset
    assert (found["lag_messages"], found["behind_seconds"], found["readings_waiting"]) == (0, 0, 0)
    assert found["flush_duration_seconds_count"] >= 1
    assert found["flush_duration_seconds_sum"] >= found["last_flush_duration_seconds"] > 0
    assert found["last_commit_timestamp_seconds"] > 1.7e9
    promtool = need("promtool", "prometheus")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)  # noqa: ASYNC221
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


async def test_how_far_the_roll_ups_are_is_told(tmp_path: Path) -> None:
    kept = KeptWindows()
    async with running_broker(tmp_path / "log") as broker:
        config = collect_config(broker.port, tmp_path, rollups=RollupSettings(open_rollups=lambda: kept))
        async with collecting(config, MemoryStore()) as collector:
            assert "rollup_rolling" not in await figures(
                Collector(collect_config(broker.port, tmp_path), MemoryStore())
            )
            await until(
                lambda: collector.rollups.roller is not None and collector.rollups.roller.totals.lag_seconds > 0
            )
            found = await figures(collector)
            text = render(await MonitoredCollector(collector).figures())
    assert found["rollup_rolling"] == 1
    assert found["rollup_windows_waiting"] == 0
    assert found["rollup_windows_made_total:memory"] == found["rollup_windows_made_total:raw"] == 0
    assert 90 <= found["rollup_lag_seconds"] < 200
    promtool = need("promtool", "prometheus")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)  # noqa: ASYNC221
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


async def test_roll_ups_that_hang_need_a_restart(tmp_path: Path) -> None:
    collector = Collector(collect_config(free_port(), tmp_path), MemoryStore())
    with collector.rollups.watch.doing("rolling up", -1.0):
        assert MonitoredCollector(collector).stuck()[0].startswith("rolling up has not ended for")
    await collector.close()


async def test_a_broker_that_is_away_is_trouble_and_leaves_the_lag_out(tmp_path: Path) -> None:
    collector = Collector(collect_config(free_port(), tmp_path), MemoryStore())
    service = MonitoredCollector(collector)
    assert service.trouble() == []
    await collector.poll_once()
    assert service.trouble()[0].startswith("the broker at 127.0.0.1:")
    found = await figures(collector)
    assert "lag_messages" not in found
    assert found["broker_connected"] == 0
    await collector.close()


async def test_a_store_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.collector.collector.STUCK_SECONDS", 0.02)
    release = threading.Event()

    class Hanging(MemoryStore):
        def ping(self) -> None:
            release.wait(30)

    stop = asyncio.Event()
    collector = Collector(collect_config(free_port(), tmp_path), Hanging(), stop)
    service = MonitoredCollector(collector)
    running = asyncio.create_task(collector.run())
    await until(lambda: bool(service.stuck()))
    assert service.stuck()[0].startswith("a call to the store has not ended for")
    release.set()
    await until(lambda: not service.stuck())
    stop.set()
    await running


async def test_a_store_that_is_away_is_trouble_until_it_is_back(tmp_path: Path) -> None:
    class Away(MemoryStore):
        away = True

        def ping(self) -> None:
            if self.away:
                raise StoreUnavailable("connection refused")

    async with running_broker(tmp_path / "log") as broker:
        store, stop = Away(), asyncio.Event()
        collector = Collector(collect_config(broker.port, tmp_path), store, stop)
        service = MonitoredCollector(collector)
        running = asyncio.create_task(collector.run())
        await until(lambda: bool(service.trouble()))
        assert service.trouble() == ["the store: connection refused, for 0s"]
        assert service.stuck() == []
        store.away = False
        await until(lambda: not service.trouble() and collector.connected)
        stop.set()
        await running
