from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from ingest.capture.position import ResumeStore, SourcePosition
from ingest.capture.source import CsvSource
from ingest.errors import SourceError, StateError
from ingest.streamer import sender
from ingest.streamer.file import StreamTotals, stream
from ingest.streamer.report import Report
from readings.batch import DecodedBatch
from readings.times import SECOND, parse_time
from tests.broker.harness import running_broker
from tests.ingest.captures import COLUMNS, START, line, read_rest, readings_in, row, write_capture
from tests.ingest.wiring import line_to, read_batches, read_log, readings_of, stream_config, until
from tests.ports import free_port


def saved_state(tmp_path: Path, path: Path) -> object:
    return ResumeStore(tmp_path, "streamer-1", str(path)).load()


async def streamed(tmp_path: Path, path: Path, **changes: object) -> tuple[StreamTotals, list[DecodedBatch]]:
    """What a whole run came to, and the batches in the log after it."""
    async with running_broker(tmp_path / "log") as broker:
        totals = await stream(stream_config(path, broker.port, tmp_path, **changes), asyncio.Event())
        return totals, await read_batches(broker.port)


async def kill(task: asyncio.Task[StreamTotals]) -> None:
    """End a run as kill -9 does, as far as anything outside the process can tell."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_every_reading_arrives_once_with_its_own_time(tmp_path: Path, capture: Path) -> None:
    totals, batches = await streamed(tmp_path, capture)
    arrived = readings_of(batch.block for batch in batches)
    assert len(arrived) == 120
    assert set(arrived) == readings_in(capture)
    assert {batch.source for batch in batches} == {"streamer-1"}
    assert totals.done
    assert (totals.readings, totals.batches, totals.unanswered) == (120, len(batches), 0)
    assert saved_state(tmp_path, capture) is None


async def test_the_real_capture_arrives_whole(tmp_path: Path, real_capture: Path) -> None:
    totals, batches = await streamed(tmp_path, real_capture)
    arrived = readings_of(batch.block for batch in batches)
    assert totals.readings == len(arrived) == 2470
    assert set(arrived) == readings_in(real_capture)
    assert len(batches) == 25


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to write for it to come through standard input."""
    reader, writer = os.pipe()
    with open(reader, "rb") as end:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(end))
        yield writer


@pytest.mark.parametrize("rate", [0.0, 200.0])
async def test_what_comes_through_a_pipe_arrives_as_it_comes(
    tmp_path: Path, capture: Path, pipe: int, rate: float
) -> None:
    text = await asyncio.to_thread(capture.read_bytes)
    half = text.rindex(b"\n", 0, len(text) // 2) + 1
    async with running_broker(tmp_path / "log") as broker:
        task = asyncio.create_task(stream(stream_config("-", broker.port, tmp_path, rate=rate), asyncio.Event()))
        for start in range(0, half, 700):  # lines come in pieces
            os.write(pipe, text[start : min(start + 700, half)])
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            while sum(each.block.count() for each in await read_batches(broker.port)) < text.count(b"\n", 0, half) - 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        os.write(pipe, text[half:-1])
        os.close(pipe)
        totals = await task
        arrived = readings_of(batch.block for batch in await read_batches(broker.port))
    assert (totals.done, totals.readings, set(arrived)) == (True, 120, readings_in(capture))
    assert not totals.counts
    assert list((tmp_path / "resume").iterdir()) == []


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_batches_hold_batch_size_readings_at_most(tmp_path: Path, capture: Path, size: int) -> None:
    async with running_broker(tmp_path / "log", fsync="never") as broker:
        await stream(stream_config(capture, broker.port, tmp_path, batch_size=size), asyncio.Event())
        counts = [batch.block.count() for batch in await read_batches(broker.port)]
    assert max(counts) <= size
    assert sum(counts) == 120


async def test_the_metrics_of_a_gpu_share_a_point_with_now(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=10)
    before = time.time_ns()
    _, batches = await streamed(tmp_path, path, timestamps="now")
    points = [point for batch in batches for point in batch.block.points]
    assert len(points) == 10
    assert all(before <= time_ns <= time.time_ns() for _, time_ns, _ in points)


async def test_now_tells_the_samples_of_a_series_apart(tmp_path: Path, capture: Path) -> None:
    _, batches = await streamed(tmp_path, capture, timestamps="now")
    arrived = readings_of(batch.block for batch in batches)
    assert len({(uuid, metric, time_ns) for uuid, metric, time_ns, _ in arrived}) == 120


async def test_auto_moves_an_old_capture_and_says_so_in_one_line(
    tmp_path: Path, capture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, batches = await streamed(tmp_path, capture, timestamps="auto", retention=86400.0)
    arrived = readings_of(batch.block for batch in batches)
    newest = max(time_ns for _, _, time_ns, _ in arrived)
    assert abs(time.time_ns() - newest) < 20 * SECOND
    shift = newest - max(time_ns for _, _, time_ns, _ in readings_in(capture))
    assert {(u, m, t - shift, v) for u, m, t, v in arrived} == readings_in(capture)
    assert caplog.text.count("TIMESTAMPS=auto") == 1


@pytest.mark.parametrize(("retention", "warnings"), [(3600.0, 1), (0.0, 0)])
async def test_times_that_collectors_will_refuse_are_warned_of_once(
    tmp_path: Path, capture: Path, caplog: pytest.LogCaptureFixture, retention: float, warnings: int
) -> None:
    async with running_broker(tmp_path / "log") as broker:
        await stream(stream_config(capture, broker.port, tmp_path, retention=retention, rate=500.0), asyncio.Event())
    assert caplog.text.count("are older than RETENTION_PERIOD (1h)") == warnings


async def test_refused_rows_are_counted_in_batches_and_kept_as_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    rows = [row(gpu=0), row(gpu=1, value="N/A"), row(gpu=2)[:5], row(gpu=3, time="noon"), row(gpu=4)]
    path.write_text(",".join(COLUMNS) + "\n" + "".join(map(line, rows)))
    totals, batches = await streamed(tmp_path, path)
    assert totals.done
    assert totals.readings == 2
    expected = {"not_available": 1, "short_row": 1, "bad_timestamp": 1}
    assert totals.counts == expected
    assert [batch.reported for batch in batches if batch.reported] == [expected]
    letters = (tmp_path / "dead-letters" / "streamer-streamer-1.ndjson").read_text().splitlines()
    assert [(each["line"], each["reason"]) for each in map(json.loads, letters)] == [
        (3, "not_available"),
        (4, "short_row"),
        (5, "bad_timestamp"),
    ]


async def test_a_capture_without_one_good_row_still_tells_its_counts(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(",".join(COLUMNS) + "\n" + line(row(value="N/A")) * 3)
    totals, batches = await streamed(tmp_path, path)
    assert totals.done
    assert [(batch.block.count(), batch.reported) for batch in batches] == [(0, {"not_available": 3})]


async def test_the_rate_is_kept(tmp_path: Path, capture: Path) -> None:
    async with running_broker(tmp_path / "log") as broker:
        began = time.monotonic()
        totals = await stream(stream_config(capture, broker.port, tmp_path, rate=150.0), asyncio.Event())
        took = time.monotonic() - began
    assert totals.readings == 120
    assert 0.6 < took < 3.0


async def test_a_stop_drains_what_was_read_and_the_next_run_sends_the_rest(tmp_path: Path, capture: Path) -> None:
    stop = asyncio.Event()
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(capture, broker.port, tmp_path, rate=100.0)
        running = asyncio.create_task(stream(config, stop))
        await until(lambda: broker.log.next_offset > 0)
        stop.set()
        first = await running
        assert not first.done
        assert first.unanswered == 0
        assert 0 < first.readings < 120
        second = await stream(stream_config(capture, broker.port, tmp_path), asyncio.Event())
        arrived = readings_of(batch.block for batch in await read_batches(broker.port))
    assert second.done
    assert first.readings + second.readings == 120
    assert sorted(arrived) == sorted(readings_in(capture))
    assert saved_state(tmp_path, capture) is None


@pytest.mark.parametrize("timestamps", ["source", "shift", "auto"])
async def test_a_killed_run_is_resumed_with_the_same_times(tmp_path: Path, capture: Path, timestamps: str) -> None:
    """What was unanswered comes twice, but as the same readings: no series has more of them than the capture."""
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(capture, broker.port, tmp_path, rate=60.0, timestamps=timestamps, retention=3600.0)
        for least in (1, 4):
            running = asyncio.create_task(stream(config, asyncio.Event()))
            await until(lambda least=least: broker.log.next_offset >= least and bool(saved_state(tmp_path, capture)))  # type: ignore[misc]
            await kill(running)
            await asyncio.sleep(1.05)  # a shift chosen anew would be another one
        totals = await stream(config, asyncio.Event())
        arrived = readings_of(batch.block for batch in await read_batches(broker.port))
    assert totals.done
    assert totals.readings < 120
    assert len(set(arrived)) == 120
    shift = max(each[2] for each in arrived) - max(each[2] for each in readings_in(capture))
    assert {(u, m, t - shift, v) for u, m, t, v in arrived} == readings_in(capture)


async def test_the_position_never_passes_an_unanswered_batch(tmp_path: Path, capture: Path) -> None:
    port = free_port()
    running = asyncio.create_task(stream(stream_config(capture, port, tmp_path, rate=1000.0), asyncio.Event()))
    await asyncio.sleep(0.4)
    assert saved_state(tmp_path, capture) is None
    await kill(running)
    async with running_broker(tmp_path / "log", port=port):
        totals = await stream(stream_config(capture, port, tmp_path), asyncio.Event())
        assert totals.readings == 120


async def test_another_wish_for_times_starts_anew(
    tmp_path: Path, capture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(capture, broker.port, tmp_path, rate=100.0, timestamps="shift")
        running = asyncio.create_task(stream(config, asyncio.Event()))
        await until(lambda: saved_state(tmp_path, capture) is not None)
        await kill(running)
        totals = await stream(stream_config(capture, broker.port, tmp_path), asyncio.Event())
    assert totals.readings == 120
    assert "starting from the beginning" in caplog.text


async def timed(run: Awaitable[StreamTotals]) -> tuple[StreamTotals, float]:
    began = time.monotonic()
    return await run, time.monotonic() - began


async def test_without_a_broker_a_stop_ends_the_run_soon_and_nothing_is_lost(
    tmp_path: Path, capture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop = asyncio.Event()
    running = asyncio.create_task(stream(stream_config(capture, free_port(), tmp_path), stop))
    await until(lambda: "no broker" in caplog.text)
    stop.set()
    totals, took = await timed(running)
    assert took < 4
    assert not totals.done
    assert totals.unanswered > 0
    assert caplog.text.count("waiting until") == 1
    assert "not answered: they are sent again at the next start" in caplog.text


async def test_a_broker_that_does_not_answer_is_given_up_after_the_deadline(
    tmp_path: Path, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "DRAIN_SECONDS_AWAY", 0.2)
    monkeypatch.setattr(sender, "DRAIN_SECONDS", 0.5)
    stop = asyncio.Event()
    async with running_broker(tmp_path / "log") as broker, line_to(broker.port) as line:
        running = asyncio.create_task(stream(stream_config(capture, line.port, tmp_path, rate=50.0), stop))
        await until(lambda: broker.log.next_offset > 0 and saved_state(tmp_path, capture) is not None)
        line.swallow = True
        published = broker.log.next_offset
        await until(lambda: broker.log.next_offset > published)
        stop.set()
        totals = await running
    assert not totals.done
    assert totals.unanswered > 0


async def test_a_loop_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=2)
    stop = asyncio.Event()
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(path, broker.port, tmp_path, loop=True, timestamps="now")
        running = asyncio.create_task(stream(config, stop))
        await until(lambda: broker.log.next_offset >= 3)
        stop.set()
        totals = await running
        arrived = readings_of(batch.block for batch in await read_batches(broker.port))
    assert not totals.done
    assert totals.readings == len(arrived) == len(set(arrived))
    assert totals.readings >= 18
    assert totals.readings % 6 == 0


async def test_a_pass_of_a_loop_takes_an_interval_at_least(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=2)
    stop = asyncio.Event()
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(path, broker.port, tmp_path, loop=True, collect_interval=30.0)
        running = asyncio.create_task(stream(config, stop))
        await until(lambda: broker.log.next_offset >= 1)
        assert not running.done()
        stop.set()
        totals, took = await timed(running)
    assert took < 4
    assert totals.readings == 6


async def test_each_pass_of_a_shifted_loop_ends_now(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = write_capture(tmp_path / "capture.csv", gpus=1)
    stop = asyncio.Event()
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(path, broker.port, tmp_path, loop=True, timestamps="shift", collect_interval=1.1)
        running = asyncio.create_task(stream(config, stop))
        await until(lambda: broker.log.next_offset >= 2)
        stop.set()
        await running
        messages = await read_log(broker.port)
        batches = await read_batches(broker.port)
    last = [max(point[1] for point in batch.block.points) for batch in batches]
    assert last[0] < last[1]
    for message, newest in zip(messages, last, strict=True):
        assert abs(message.timestamp_ms * 1_000_000 - newest) < 3 * SECOND
    assert caplog.text.count("TIMESTAMPS=shift") == 1


async def test_a_position_at_the_end_finishes_at_once(tmp_path: Path, capture: Path) -> None:
    """Killed after the last answer and before the position was cleared."""
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(capture, broker.port, tmp_path)
        store = ResumeStore(tmp_path, "streamer-1", str(capture))
        store.prepare()
        source = CsvSource(str(capture), needs_timestamp=True)
        chunk = read_rest(source)
        state = source.state_at(SourcePosition(chunk.position, chunk.line, 0), "source")
        assert state is not None
        store.save(state)
        source.close()
        totals = await stream(config, asyncio.Event())
        assert broker.log.next_offset == 0
    assert totals.done
    assert saved_state(tmp_path, capture) is None


async def test_a_source_that_is_none_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        await stream(stream_config(tmp_path / "none.csv", 1, tmp_path), asyncio.Event())


async def test_a_state_folder_that_is_none_ends_the_run_with_the_reason(tmp_path: Path, capture: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="STATE_DIR"):
        await stream(stream_config(capture, 1, tmp_path / "file"), asyncio.Event())


async def test_a_position_that_cannot_be_saved_is_said_once_and_costs_nothing_else(
    tmp_path: Path, capture: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ResumeStore, state: object) -> None:
        raise StateError("STATE_DIR: disk full")

    monkeypatch.setattr(ResumeStore, "save", full)
    async with running_broker(tmp_path / "log") as broker:
        totals = await stream(stream_config(capture, broker.port, tmp_path, rate=300.0), asyncio.Event())
    assert totals.done
    assert caplog.text.count("disk full") == 1


def test_the_made_up_captures_begin_when_they_say(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv")
    assert min(each[2] for each in readings_in(path)) == parse_time(START)


async def test_a_report_tells_how_far_a_run_is_and_how_far_it_has_to_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write_capture(tmp_path / "capture.csv", gpus=40, samples=5)
    size = path.stat().st_size
    stop, report = asyncio.Event(), Report(later_bytes=1000)
    async with running_broker(tmp_path / "log") as broker:
        running = asyncio.create_task(stream(stream_config(path, broker.port, tmp_path, rate=300.0), stop, report))
        await until(lambda: report.now().sent >= 100)
        assert report.connected
        assert report.trouble == []
        backlog = report.backlog
        assert backlog is not None
        assert 1000 < backlog.bytes < size + 1000
        assert 0 < backlog.rows < 600 + 10
        assert backlog.seconds is not None
        stop.set()
        await running
        assert "to go (about " in caplog.text
        assert "the next start goes on there" in caplog.text
        report.later_bytes = 0
        totals = await stream(stream_config(path, broker.port, tmp_path), asyncio.Event(), report)
    assert totals.done
    assert (report.read, report.sent, report.waiting, report.behind_s) == (report.sent, 600, 0, 0)
    assert report.backlog == (0, 0, None)


async def test_a_report_tells_of_a_broker_that_is_away(tmp_path: Path, capture: Path) -> None:
    stop, report = asyncio.Event(), Report()
    running = asyncio.create_task(stream(stream_config(capture, free_port(), tmp_path), stop, report))
    await until(lambda: bool(report.now().trouble) and report.waiting > 0)
    assert report.trouble[0].startswith("the broker at 127.0.0.1:")
    assert report.behind_s > 0
    assert not report.connected
    stop.set()
    await running
