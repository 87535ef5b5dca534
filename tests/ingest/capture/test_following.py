from __future__ import annotations

import asyncio
import csv
import gzip
import logging
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest.capture import following, rotated
from ingest.capture.files import stream_captures
from ingest.errors import SourceError
from ingest.streamer.report import Report
from readings.times import parse_time
from tests.broker.harness import running_broker
from tests.ingest.captures import COLUMNS, Reading, line, rows
from tests.ingest.wiring import read_batches, readings_of, stream_config

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

    def rotate(self) -> None:
        """As logrotate does: live.csv to live.csv.1, that to live.csv.2, and so on."""
        for number in range(8, 0, -1):
            for ending in ("", ".gz"):
                old = self.path.with_name(f"live.csv.{number}{ending}")
                if old.exists():
                    os.rename(old, self.path.with_name(f"live.csv.{number + 1}{ending}"))
        os.rename(self.path, self.path.with_name("live.csv.1"))

    def pack(self, name: str = "live.csv.1") -> None:
        plain = self.path.with_name(name)
        packed = self.path.with_name(name + ".gz")
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        shutil.copystat(plain, packed)
        plain.unlink()

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
    assert not report.refused


async def test_only_a_file_can_be_followed(tmp_path: Path) -> None:
    for path in (tmp_path, "-", tmp_path / "none.csv"):
        with pytest.raises(SourceError, match="FOLLOW"):
            await stream_captures(stream_config(path, 1, tmp_path, follow=True), asyncio.Event())


@pytest.mark.parametrize("packed", [False, True])
async def test_the_rest_of_a_file_that_was_rotated_meanwhile_comes_first(
    follower: Follower, packed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    follower.write(LINES[:100])
    async with follower.running():
        await follower.until(100)
    follower.append(LINES[100:150])
    follower.rotate()
    if packed:
        follower.pack()
    follower.write(LINES[150:200])
    async with follower.running():
        await follower.until(200)
        follower.append(LINES[200:])
        found = await follower.until(len(LINES))
    assert len(found) == len(set(found)) == len(LINES) == follower.report.sent
    name = "live.csv.1.gz" if packed else "live.csv.1"
    told = [each.message for each in caplog.records if "while nobody followed it" in each.message]
    assert len(told) == 1
    assert f"finishing {follower.path.with_name(name)} first, from line 102" in told[0]
    assert set(found[:150]) == given(LINES[:150])


async def test_all_files_of_several_rotations_are_read_in_their_order(follower: Follower) -> None:
    follower.write(LINES[:60])
    async with follower.running():
        await follower.until(60)
    follower.append(LINES[60:90])
    for start in (90, 150, 210, 270):
        follower.rotate()
        if start == 210:
            follower.pack("live.csv.2")
        follower.write(LINES[start : start + 60])
    follower.append(LINES[330:])
    async with follower.running():
        found = await follower.until(len(LINES))
    assert len(found) == len(set(found)) == len(LINES)
    for start in (90, 150, 210, 270):
        assert set(found[:start]) == given(LINES[:start])


async def test_a_file_that_nothing_was_read_of_is_not_forgotten(follower: Follower) -> None:
    follower.path.write_text(HEADER)
    async with follower.running():
        async with asyncio.timeout(30):
            while not list((follower.path.parent / "state" / "resume").glob("*.json")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    follower.append(LINES[:40])
    follower.rotate()
    follower.write(LINES[40:])
    async with follower.running():
        found = await follower.until(len(LINES))
    assert len(found) == len(set(found)) == len(LINES)


async def test_a_file_that_is_gone_is_told_and_the_new_one_is_read(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    follower.write(LINES[:10])
    async with follower.running():
        await follower.until(10)
    follower.path.unlink()
    follower.write(LINES[10:20])
    async with follower.running():
        found = await follower.until(20)
    assert len(found) == 20
    assert "from line 12 on is not sent" in caplog.text


async def test_it_waits_for_the_new_file_and_for_one_that_is_being_compressed(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower.write(LINES[:100])
    async with follower.running():
        await follower.until(100)
    follower.append(LINES[100:])
    follower.rotate()
    follower.pack()
    packed = follower.path.with_name("live.csv.1.gz")
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-30])
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = rotated.is_whole

    def look(path: str) -> bool:
        loop.call_soon_threadsafe(looked.set)
        return real(path)

    monkeypatch.setattr(following, "is_whole", look)
    async with follower.running():
        await looked.wait()
        packed.write_bytes(whole)
        found = await follower.until(len(LINES))
    assert len(found) == len(set(found)) == len(LINES)


async def test_of_one_that_stays_cut_it_takes_what_there_is(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "GROWING_SECONDS", 0.05)
    follower.write(LINES[:10])
    async with follower.running():
        await follower.until(10)
    follower.append(LINES[10:300])
    follower.rotate()
    follower.pack()
    packed = follower.path.with_name("live.csv.1.gz")
    packed.write_bytes(packed.read_bytes()[:-200])
    follower.write(LINES[300:])
    async with follower.running(), asyncio.timeout(60):
        while not set(await arrived(follower.port)) >= given(LINES[300:]):  # noqa: ASYNC110 - it is another's
            await asyncio.sleep(0.05)
    assert follower.report.refused["bad_field"] >= 1
    assert follower.report.sent > 100


async def test_a_rotated_file_that_is_none_is_passed_over(follower: Follower, caplog: pytest.LogCaptureFixture) -> None:
    follower.write(LINES[:10])
    async with follower.running():
        await follower.until(10)
    follower.rotate()
    follower.path.write_text("")
    follower.rotate()
    follower.write(LINES[10:20])
    async with follower.running():
        found = await follower.until(20)
    assert len(found) == len(set(found)) == 20
    assert "passing over what was rotated" in caplog.text
