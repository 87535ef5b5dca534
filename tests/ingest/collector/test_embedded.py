from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from ingest.collector.embedded import ID_SUFFIX, embedded_trouble, start_embedded_collector, stop_embedded_collector
from ingest.streamer.file import stream
from stores.memory import MemoryStore
from stores.open import get_store, reset_store
from tests.broker.harness import running_broker
from tests.ingest.captures import readings_in, stored_readings, write_capture
from tests.ingest.wiring import collect_config, collecting, stream_config, until
from tests.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def memory(settings: Settings, tmp_path: Path) -> Iterator[None]:
    reset_store()
    settings.STORAGE_TYPE = "memory"
    settings.STATE_DIR = tmp_path
    settings.FLUSH_INTERVAL = 0.05
    settings.RETENTION_PERIOD = 0.0
    yield
    stop_embedded_collector()
    reset_store()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "embedded-collector"]


async def test_the_process_fills_its_own_store_from_the_start_of_the_log(tmp_path: Path, settings: Settings) -> None:
    capture = write_capture(tmp_path / "capture.csv")
    async with running_broker(tmp_path / "log") as broker:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", broker.port
        await stream(stream_config(capture, broker.port, tmp_path), asyncio.Event())
        for _ in range(2):  # the second process has an empty store, whatever the first one committed
            start_embedded_collector()
            start_embedded_collector()
            assert len(threads()) == 1
            await until(lambda: len(stored_readings(get_store())) == 12)
            assert set(stored_readings(get_store())) == readings_in(capture)
            await asyncio.to_thread(stop_embedded_collector)
            assert threads() == []
            assert broker.log.commits.get(f"{settings.COLLECTOR_ID}{ID_SUFFIX}") == broker.log.next_offset - 1
            reset_store()


async def test_it_starts_anew_after_it_ended_by_itself(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_broker(tmp_path / "log", token="secret") as broker:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", broker.port
        start_embedded_collector()
        await until(lambda: threads() == [])
        assert "the embedded collector ended" in caplog.text
        assert "refuses this collector" in caplog.text
        assert embedded_trouble() == "ended: the log says why"
        settings.BROKER_TOKEN = "secret"
        start_embedded_collector()
        await until(lambda: broker.log.commits is not None and len(broker.connections) == 1)
        assert len(threads()) == 1
        assert embedded_trouble() == ""
        await asyncio.to_thread(stop_embedded_collector)


async def test_a_collector_for_another_store_may_be_there(tmp_path: Path, settings: Settings) -> None:
    capture = write_capture(tmp_path / "capture.csv")
    async with running_broker(tmp_path / "log") as broker:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", broker.port
        async with collecting(collect_config(broker.port, tmp_path / "other"), MemoryStore()) as other:
            await until(lambda: other.connected)
            await stream(stream_config(capture, broker.port, tmp_path), asyncio.Event())
            start_embedded_collector()
            await until(lambda: len(stored_readings(get_store())) == 12)
            await until(lambda: other.totals.stored == 12)
            await asyncio.to_thread(stop_embedded_collector)


def test_stopping_what_does_not_run_is_no_error(settings: Settings) -> None:
    stop_embedded_collector()
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()
    start_embedded_collector()
    stop_embedded_collector()
    stop_embedded_collector()
    assert threads() == []
