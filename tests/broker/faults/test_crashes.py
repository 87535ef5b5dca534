"""Rows 1 to 4, 17 and 22 of the fault matrix: the process or the machine dies, files are cut and changed."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from broker.client.client import fetch_stats
from broker.log.inspect import verify
from broker.log.log import Entries, Log
from tests.broker.faults import kills
from tests.broker.faults.power import lose_power, synced_sizes
from tests.broker.faults.tools import need_namespaces
from tests.broker.logs import LazyDisk, append, crash, flip, opened, payloads, read_all, segment_files
from tests.broker.process import broker_process

# Bits flipped and sectors lost (every fourth); 4,000 in the soak.
FLIPS = int(os.environ.get("FAULT_FLIPS", "400"))
# Bytes of the payload that is cut at each of them: as of one reading; of ten in the soak.
LAST = int(os.environ.get("FAULT_LAST", "300"))


async def test_row_01_kill_9_in_the_middle_of_publishing(tmp_path: Path) -> None:
    outcome = await kills.run(tmp_path, rounds=3, seed=1)
    assert all(report.whole for report in verify(tmp_path / "broker"))
    assert outcome.verdict.clean, outcome
    assert outcome.verdict.answered > 500
    assert outcome.slowest_ready < 1


def test_row_02_what_was_synced_is_read_from_the_trace() -> None:
    trace = """\
7  pwritev2(5</log/0.log>, [...], 2, 0, 0) = 100
7  fdatasync(5</log/0.log>) = 0
7  pwritev2(5</log/0.log>, [...], 1, 100, 0 <unfinished ...>
6  fsync(9</log/checkpoint.tmp>) = 0
7  <... pwritev2 resumed>) = 40
7  fdatasync(5</log/0.log> <unfinished ...>
7  <... fdatasync resumed>) = 0
7  pwritev2(5</log/0.log>, [...], 1, 140, 0) = 50
7  ftruncate(5</log/0.log>, 140) = 0
7  pwritev2(5</log/0.log>, [...], 1, 140, 0) = 20
7  fdatasync(5</log/0.log> <unfinished ...>
7  pwritev(8</log/160.log>, [...], 3, 0) = 30
"""
    assert synced_sizes(trace) == ({"/log/0.log": 160, "/log/160.log": 30}, {"/log/0.log": 140})


async def test_row_02_power_loss_costs_no_answered_message(tmp_path: Path) -> None:
    outcome = await lose_power(tmp_path, "always", random.Random(2), 0.5)
    assert outcome.verdict.answered > 100
    assert (outcome.verdict.lost, outcome.verdict.wrong_payload, outcome.verdict.repeated) == (0, 0, 0)


async def test_row_02_the_check_itself_sees_what_a_broker_without_fsync_loses(tmp_path: Path) -> None:
    # Once the power may go just when a new segment was begun: then there is nothing to lose.
    for attempt in range(10):
        (tmp_path / str(attempt)).mkdir()
        outcome = await lose_power(tmp_path / str(attempt), "never", random.Random(attempt), 0.5)
        if outcome.verdict.lost:
            break
    assert outcome.unsynced > 0
    assert outcome.verdict.lost > 0


async def test_row_02_power_loss_with_an_fsync_a_second_costs_the_last_moments_alone(tmp_path: Path) -> None:
    outcome = await lose_power(tmp_path, "interval", random.Random(2), 2.5)
    assert outcome.verdict.answered > 100
    assert (outcome.verdict.wrong_payload, outcome.verdict.repeated) == (0, 0)
    assert outcome.oldest_loss_s < 2.5  # 1.5 s where nothing else takes the machine: see power.py


@pytest.mark.parametrize("tail", ["cut", "zeros"])
def test_row_03_a_tail_torn_at_any_byte(tmp_path: Path, tail: str) -> None:
    with opened(tmp_path / "log", disk=LazyDisk()) as log:
        append(log, *[b'"%b"' % (b"x" * 300) for _ in range(9)])
        good = log.stats().bytes
        append(log, b'"%b"' % (b"y" * LAST))
        end = log.stats().bytes
        crash(log)
    for left in range(good, end):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "log", tmp_path / "copy")
        (segment,) = segment_files(tmp_path / "copy")
        whole = segment.read_bytes()
        segment.write_bytes(whole[:left] + (bytes(end - left) if tail == "zeros" else b""))
        with opened(tmp_path / "copy", disk=LazyDisk()) as log:
            assert log.next_offset == 9
            assert len(payloads(log)) == 9
            assert append(log, b"1")[0].offset == 9
        torn = b"".join(path.read_bytes() for path in (tmp_path / "copy").glob("*.torn-*"))
        assert torn == (whole[good:left] + bytes(end - left) if tail == "zeros" else whole[good:left])


def test_row_04_flipped_bits_and_lost_sectors(tmp_path: Path) -> None:
    rng = random.Random(4)
    directory = tmp_path / "log"
    with opened(directory, segment_bytes=64 << 10, disk=LazyDisk()) as log:
        append_all(log, 1000)
    files = segment_files(directory)
    sizes = [path.stat().st_size for path in files]
    good = {path: path.read_bytes() for path in files}
    most_hit = 0
    for number in range(FLIPS):
        path = rng.choices(files, sizes)[0]
        if number % 4:
            flip(path, rng.randrange(len(good[path])), rng.randrange(8))
        else:
            start = rng.randrange(len(good[path])) // 512 * 512
            path.write_bytes(good[path][:start] + bytes(512) + good[path][start + 512 :])
        with opened(directory, segment_bytes=64 << 10, disk=LazyDisk()) as log:
            records, gaps = read_all(log)
            for record in records:
                assert record.payload == payload(record.offset)
            lost = sum(gap.last - gap.first + 1 for gap in gaps)
            # The checkpoint is gone (below): what is hit at the very end then looks like a write that never ended.
            torn = 1000 - log.next_offset
            assert torn <= (0 if path != files[-1] else 1 if number % 4 else 4)
            assert len(list(directory.glob("*.torn-*"))) == bool(torn)
            assert len(records) + lost + torn == 1000
            most_hit = max(most_hit, lost)
            assert lost <= (1 if number % 4 else 4)
            assert bool(log.degraded) == bool(lost)
        path.write_bytes(good[path])
        for side in (*directory.glob("*.idx"), *directory.glob("*.torn-*"), directory / "checkpoint"):
            side.unlink(missing_ok=True)
    assert most_hit > 1


def payload(number: int) -> bytes:
    # A whole record of another log inside: what looks for records must not fall for it.
    return b'{"n":%d,"fill":"{\\"type\\":\\"message\\",\\"crc\\":\\"00000000\\"","x":"%b"}' % (number, b"x" * 200)


def append_all(log: Log, count: int) -> None:
    for start in range(0, count, 100):
        append(log, Entries([payload(number) for number in range(start, start + 100)]))


@pytest.mark.parametrize("path", ["same", "symlink", "bind"])
def test_row_17_a_second_broker_on_the_directory(tmp_path: Path, path: str) -> None:
    state, prefix = tmp_path / "state", []
    other = state if path == "same" else tmp_path / "other"
    with broker_process(state) as first:
        port, _ = first.wait_listening()
        if path == "symlink":
            other.symlink_to(state)
        elif path == "bind":
            other.mkdir()
            mount = f'mount --bind "{state}" "{other}" && exec "$@"'
            prefix = [*need_namespaces("--mount"), "sh", "-c", mount, "sh"]
        started = time.monotonic()
        with broker_process(other, prefix=prefix) as second:
            assert second.wait_end() == 73
            assert f"in use by another broker (process {first.process.pid}" in second.lines[-1]
        assert time.monotonic() - started < 15  # starting Python included
        assert fetch_stats("127.0.0.1", port)["total_messages"] == 0
        first.process.kill()
        first.wait_end()
    with broker_process(other if path == "symlink" else state) as third:
        third.wait_listening()


async def test_row_22_restarts_in_order_under_load(tmp_path: Path) -> None:
    outcome = await kills.run(tmp_path, rounds=3, seed=22, graceful=True)
    assert outcome.verdict.clean, outcome
    assert (outcome.bad_stops, outcome.scans) == (0, 0)
    assert outcome.slowest_stop < 10
