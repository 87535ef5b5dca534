from __future__ import annotations

import asyncio
import csv
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest.capture.files import stream_captures
from ingest.errors import SourceError
from ingest.streamer.report import Report
from readings.times import SECOND, format_time, parse_time
from tests.broker.harness import running_broker
from tests.ingest.captures import COLUMNS, START, Reading, line, rows, write_capture
from tests.ingest.wiring import read_batches, readings_of, stream_config

DAY = 86_400 * SECOND
HEADER = ",".join(COLUMNS) + "\n"
LINES = [line(fields) for fields in rows(4, 30)]


def given(lines: list[str]) -> set[Reading]:
    fields = csv.reader(lines)
    return {(each[4], each[1], parse_time(each[0]), float(each[10])) for each in fields}


async def arrived(port: int) -> list[Reading]:
    return readings_of(batch.block for batch in await read_batches(port))


class Follower:
    """Follows one file of the folder, again and again, as one and the same streamer."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "live.csv"
        self.port = port
        self.report = Report()

    def write(self, lines: list[str]) -> None:
        """A new file in its place."""
        self.path.write_text(HEADER + "".join(lines))

    def append(self, lines: list[str], name: str = "live.csv") -> None:
        with self.path.with_name(name).open("a") as file:
            file.writelines(lines)

    def rename(self, name: str) -> str:
        target = self.path.parent / name
        target.parent.mkdir(exist_ok=True)
        return str(self.path.rename(target))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow inside, and stop after."""
        stop = asyncio.Event()
        config = stream_config(self.path, self.port, self.path.parent / "state", follow=True)
        task = asyncio.create_task(stream_captures(config, stop, self.report))
        try:
            yield
        finally:
            stop.set()
            await task

    async def until(self, count: int) -> list[Reading]:
        """What has arrived, once it is that many."""
        async with asyncio.timeout(60):
            while len(found := await arrived(self.port)) < count:  # noqa: ASYNC110 - it is another's
                await asyncio.sleep(0.05)
        return found


@pytest.fixture
async def follower(tmp_path: Path) -> AsyncIterator[Follower]:
    async with running_broker(tmp_path / "log") as broker:
        yield Follower(tmp_path, broker.port)


async def test_what_is_appended_with_times_of_now_is_live_and_what_is_old_is_a_capture(follower: Follower) -> None:
    follower.write(LINES[:2])
    async with follower.running():
        await follower.until(2)
        now = [line(fields) for fields in rows(1, 1, format_time(time.time_ns()))]
        follower.append(now)
        await follower.until(2 + len(now))
    batches = await read_batches(follower.port)
    assert {(batch.live, point[1] >= parse_time(START) + DAY) for batch in batches for point in batch.block.points} == {
        (False, False),
        (True, True),
    }


async def test_a_capture_is_not_live_whatever_its_times(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "now.csv", start=format_time(time.time_ns() - 60 * SECOND))
    async with running_broker(tmp_path / "log") as broker:
        await stream_captures(stream_config(path, broker.port, tmp_path), asyncio.Event())
        assert not any(batch.live for batch in await read_batches(broker.port))


async def test_a_file_that_grows_and_is_rotated_is_followed(tmp_path: Path) -> None:
    path, stop = tmp_path / "live.csv", asyncio.Event()
    lines = [line(fields) for fields in rows(4, 6)]
    async with running_broker(tmp_path / "log") as broker:
        path.write_text(HEADER + lines[0])
        task = asyncio.create_task(stream_captures(stream_config(path, broker.port, tmp_path, follow=True), stop))

        async def count(number: int) -> None:
            async with asyncio.timeout(30):
                while len(await arrived(broker.port)) < number:  # noqa: ASYNC110 - it is another's
                    await asyncio.sleep(0.05)

        await count(1)
        with path.open("a") as file:
            file.write(lines[1] + lines[2][:40])
            file.flush()
            await count(2)
            file.write(lines[2][40:])
        await count(3)
        os.rename(path, tmp_path / "live.csv.1")
        with (tmp_path / "live.csv.1").open("a") as file:
            file.write(lines[3])
        path.write_text(HEADER + "".join(lines[4:]))
        await count(len(lines))
        stop.set()
        report = await task
        found = await arrived(broker.port)
    assert len(found) == len(set(found)) == len(lines) == report.sent
    assert not report.counts


async def test_only_a_file_can_be_followed(tmp_path: Path) -> None:
    for path in (tmp_path, "-", tmp_path / "none.csv"):
        with pytest.raises(SourceError, match="FOLLOW"):
            await stream_captures(stream_config(path, 1, tmp_path, follow=True), asyncio.Event())


@pytest.mark.parametrize("how", ["renamed", "renamed twice", "emptied", "removed"])
async def test_a_file_that_was_replaced_while_nobody_followed_is_left_and_the_new_one_is_read(
    follower: Follower, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    follower.write(LINES[:10])
    async with follower.running():
        await follower.until(10)
    left = "the old file"
    follower.append(LINES[10:15])
    if how == "emptied":
        follower.path.write_text("")
    elif how == "removed":
        follower.rename("elsewhere/live.csv")
    else:
        left = follower.rename("live.csv.2" if how == "renamed twice" else "live.csv.1")
    if how == "renamed twice":
        follower.write(LINES[15:18])
        follower.rename("live.csv.1")
    follower.append([HEADER, *LINES[20:30]])
    async with follower.running():
        found = await follower.until(20)
        follower.append(LINES[30:40])
        found = await follower.until(30)
    assert len(found) == len(set(found)) == 30
    assert set(found) == given(LINES[:10] + LINES[20:40])
    assert f"what {left} has from line 12 on is not sent" in caplog.text
    assert caplog.text.count("is not the file that the last run followed") == 1


async def test_it_waits_for_the_new_file(follower: Follower) -> None:
    follower.write(LINES[:10])
    async with follower.running():
        await follower.until(10)
        follower.rename("live.csv.1")
        follower.append(LINES[10:20], "live.csv.1")
        await follower.until(20)
        follower.write(LINES[20:30])
        found = await follower.until(30)
    assert len(found) == len(set(found)) == 30


async def test_a_file_that_nothing_was_read_of_is_not_forgotten(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    follower.write([])
    async with follower.running():
        async with asyncio.timeout(30):
            while not list((follower.path.parent / "state" / "resume").glob("*.json")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    left = follower.rename("live.csv.1")
    follower.write(LINES[:10])
    async with follower.running():
        await follower.until(10)
    assert f"what {left} has from line 2 on is not sent" in caplog.text
