from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.errors import DiskFull
from ingest.samples import RefusedRow, Sample
from ingest.streamer import live
from ingest.streamer.live import SPOOL_FULL, Give, LiveConfig, LiveStreamer, SourceBatch
from ingest.streamer.report import Report
from ingest.streamer.spool import Spool
from readings.model import Gpu
from telemetry_site.concurrency import pause
from tests.broker.harness import running_broker
from tests.ingest.wiring import local, read_batches, read_log, readings_of, until
from tests.ports import free_port

GPU = Gpu(uuid="GPU-1", hostname="a")


class Ticker:
    """A source that gives the next whole number each time."""

    name = "a ticker"

    def __init__(self, seconds: float = 0.02, size: int = 1) -> None:
        self.given = 0
        self._seconds = seconds
        self._size = size

    async def run(self, give: Give, stop: asyncio.Event, *, once: bool) -> None:
        while True:
            samples = [Sample(GPU, "n", self.given + each + 1, float(self.given + each)) for each in range(self._size)]
            self.given += self._size
            give(SourceBatch(samples, [], Counter()))
            if once or await pause(stop, self._seconds):
                return


def config(port: int, state_dir: Path, **changes: object) -> LiveConfig:
    settings = {"collect_interval": 0.05, "interval": 0.05, **changes}
    return LiveConfig(broker=local(port), state_dir=state_dir, **settings)  # type: ignore[arg-type]


async def values_in(port: int) -> list[float]:
    return [value for batch in await read_batches(port) for _, _, _, value in readings_of([batch.block])]


async def run_until(streamer: LiveStreamer, stop: asyncio.Event, condition: Callable[[], bool]) -> Report:
    task = asyncio.create_task(streamer.run())
    try:
        await until(lambda: condition() or task.done())
    finally:
        stop.set()
    return await task


async def test_what_a_source_gives_comes_to_the_broker_once_and_in_order(tmp_path: Path) -> None:
    stop, source = asyncio.Event(), Ticker()
    async with running_broker(tmp_path / "broker") as broker:
        streamer = LiveStreamer(config(broker.port, tmp_path), source, stop)
        report = await run_until(streamer, stop, lambda: streamer.report.sent >= 20)
        assert await values_in(broker.port) == [float(number) for number in range(source.given)]
        assert all(batch.live for batch in await read_batches(broker.port))
    assert (report.read, report.sent, report.waiting) == (source.given, source.given, 0)
    assert report.behind_s == 0


async def test_once_is_one_sample_of_each(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "broker") as broker:
        report = await LiveStreamer(config(broker.port, tmp_path, once=True), Ticker(), asyncio.Event()).run()
        assert await values_in(broker.port) == [0.0]
    assert report.sent == 1


async def test_while_the_broker_is_away_the_spool_takes_it_all_and_is_emptied_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop, source = asyncio.Event(), Ticker()
    async with running_broker(tmp_path / "broker") as broker:
        port = broker.port
        streamer = LiveStreamer(config(port, tmp_path), source, stop)
        task = asyncio.create_task(streamer.run())
        await until(lambda: streamer.report.sent >= 5)
    await until(lambda: streamer.report.waiting >= 10)
    assert streamer.report.behind_s > 0
    async with running_broker(tmp_path / "broker", port=port) as broker:
        await until(lambda: streamer.report.waiting == 0)
        stop.set()
        report = await task
        assert await values_in(port) == [float(number) for number in range(source.given)]
        ids = [message.message_id for message in await read_log(port)]
        assert len(set(ids)) == len(ids)
    assert report.sent == source.given
    assert caplog.text.count("is back after") == 1


async def test_what_a_run_could_not_send_the_next_one_sends_first(tmp_path: Path) -> None:
    stop, source = asyncio.Event(), Ticker()
    port = free_port()
    streamer = LiveStreamer(config(port, tmp_path), source, stop)
    report = await run_until(streamer, stop, lambda: streamer.report.waiting >= 3)
    assert (report.sent, report.waiting > 0) == (0, True)
    async with running_broker(tmp_path / "broker", port=port) as broker:
        later = LiveStreamer(config(port, tmp_path, once=True), Ticker(), asyncio.Event())
        await later.run()
        assert await values_in(broker.port) == [*map(float, range(source.given)), 0.0]


async def test_refused_lines_are_counted_for_the_collector_and_kept(tmp_path: Path) -> None:
    class Bad:
        name = "bad"

        async def run(self, give: Give, stop: asyncio.Event, *, once: bool) -> None:
            give(SourceBatch([], [RefusedRow(7, "blank", "value '5'", "raw")], Counter({"blank": 3}), "http://a"))

    async with running_broker(tmp_path / "broker") as broker:
        report = await LiveStreamer(config(broker.port, tmp_path, once=True), Bad(), asyncio.Event()).run()
        assert [batch.reported for batch in await read_batches(broker.port)] == [{"blank": 3}]
    assert report.counts == {"blank": 3}
    letters = (tmp_path / "dead-letters" / "streamer-streamer-1.ndjson").read_text()
    assert letters.count("\n") == 1
    assert '"source":"http://a"' in letters
    assert '"line":7' in letters


async def test_a_spool_that_is_full_gives_up_the_oldest_and_counts_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    source = Ticker(0.01, size=5000)
    streamer = LiveStreamer(config(free_port(), tmp_path, spool_bytes=1 << 20, batch_size=1000), source, stop)
    report = await run_until(streamer, stop, lambda: streamer.report.counts[SPOOL_FULL] > 0)
    assert "SPOOL_BYTES is reached: gave up the oldest" in caplog.text
    assert 0 < report.counts[SPOOL_FULL] < report.read


async def test_a_spool_full_of_answered_batches_gives_up_none_and_keeps_its_bound(tmp_path: Path) -> None:
    source = Ticker(size=20_000)
    settings: dict[str, object] = {"spool_bytes": 1 << 20, "batch_size": 1000, "once": True}
    streamer = LiveStreamer(config(free_port(), tmp_path, **settings), source, asyncio.Event())
    for count in range(4):
        streamer._gathered = [
            Sample(GPU, "n", each + 1, 0.0) for each in range(count * 20_000, count * 20_000 + 20_000)
        ]
        await streamer._flush()
        assert streamer._spool.size_bytes <= 1 << 20
        streamer._spool.answered(streamer._spool.end - 1)
    assert streamer.report.counts[SPOOL_FULL] == 0
    streamer._spool.close()


async def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FLUSH_SECONDS", 0.05)
    full = [True] * 3
    append = Spool.append

    def failing(self: Spool, batches: list[tuple[bytes, int]]) -> None:
        if full and full.pop():
            raise DiskFull("no space left")
        append(self, batches)

    monkeypatch.setattr(Spool, "append", failing)
    stop, source = asyncio.Event(), Ticker()
    async with running_broker(tmp_path / "broker") as broker:
        streamer = LiveStreamer(config(broker.port, tmp_path), source, stop)
        await run_until(streamer, stop, lambda: streamer.report.sent >= 10)
        assert await values_in(broker.port) == [float(number) for number in range(source.given)]


async def test_memory_is_bounded_while_the_disk_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_IN_MEMORY", 10)
    streamer = LiveStreamer(config(free_port(), tmp_path), Ticker(), asyncio.Event())
    streamer.give(SourceBatch([Sample(GPU, "n", at, 1.0) for at in range(25)], [], Counter()))
    assert len(streamer._gathered) == 10
    assert streamer.report.counts == {SPOOL_FULL: 15}
    streamer._spool.close()
