from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.capture import files
from ingest.capture.files import DoneFiles, stream_captures, try_captures
from readings.times import SECOND
from tests.broker.harness import running_broker
from tests.ingest.captures import COLUMNS, line, readings_in, row, write_capture
from tests.ingest.wiring import local, read_batches, readings_of, stream_config

HEADER = ",".join(COLUMNS) + "\n"


async def arrived(port: int) -> list[tuple[str, str, int, float]]:
    return readings_of(batch.block for batch in await read_batches(port))


async def test_all_captures_of_a_folder_are_streamed_once(tmp_path: Path) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    paths = [
        write_capture(folder / f"{number}.csv", start=f"2025-07-18T2{number}:00:00Z", samples=3) for number in range(3)
    ]
    expected = set().union(*map(readings_in, paths))
    async with running_broker(tmp_path / "log") as broker:
        report = await stream_captures(stream_config(folder, broker.port, tmp_path), asyncio.Event())
        found = await arrived(broker.port)
    assert (set(found), len(found), report.sent) == (expected, len(expected), len(expected))
    assert list((tmp_path / "resume").iterdir()) == []


async def test_captures_that_are_moved_to_now_keep_their_distances(tmp_path: Path) -> None:
    old = write_capture(tmp_path / "1.csv", start="2025-07-18T20:00:00Z")
    new = write_capture(tmp_path / "2.csv", start="2025-07-18T21:00:00Z")
    config = stream_config(tmp_path / "*.csv", 0, tmp_path, timestamps="shift")
    async with running_broker(tmp_path / "log") as broker:
        await stream_captures(replace(config, broker=local(broker.port)), asyncio.Event())
        times = {time_ns for _, _, time_ns, _ in await arrived(broker.port)}
    before = {time_ns for path in (old, new) for _, _, time_ns, _ in readings_in(path)}
    assert max(times) - min(times) == max(before) - min(before) == 3602 * SECOND


async def test_a_run_that_was_stopped_goes_on_with_the_file_it_was_in(tmp_path: Path) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    first, second = (write_capture(folder / f"{name}.csv", samples=5) for name in "ab")
    config = stream_config(folder, 0, tmp_path)
    done = DoneFiles(config)
    done.add(str(first))
    assert DoneFiles(config).has(str(first))
    assert not DoneFiles(config).has(str(second))
    async with running_broker(tmp_path / "log") as broker:
        report = await stream_captures(replace(config, broker=local(broker.port)), asyncio.Event())
    assert report.sent == 60
    with first.open("a") as file:
        file.write("x")
    done.add(str(second))
    assert not DoneFiles(config).has(str(first))  # it has grown since


async def test_at_the_captures_own_pace_it_takes_as_long(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv", gpus=2, samples=3)  # 22 seconds of readings
    async with running_broker(tmp_path / "log") as broker:
        report = await stream_captures(stream_config(path, broker.port, tmp_path, speed=44.0), asyncio.Event())
    assert report.sent == 18


async def test_a_pass_of_a_loop_over_several_takes_an_interval_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        write_capture(tmp_path / f"{name}.csv", samples=2)
    waits: list[float] = []

    async def pause(stop: asyncio.Event, seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 2

    monkeypatch.setattr(files, "pause", pause)
    async with running_broker(tmp_path / "log") as broker:
        config = stream_config(tmp_path / "*.csv", broker.port, tmp_path, loop=True, collect_interval=3000.0)
        report = await stream_captures(config, asyncio.Event())
    assert all(2000 < seconds <= 3000 for seconds in waits)
    assert report.sent == 2 * 2 * 24


def test_a_dry_run_reads_and_checks_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "capture.csv")
    with path.open("a") as file:
        file.write(line(row(value="N/A")) + line(row(value="2619")))
    state = tmp_path / "state"
    report = try_captures(stream_config(path, 1, state))
    assert report.read == 12
    assert report.counts == {"not_available": 1, "out_of_range": 1}
    assert not state.exists()
