from __future__ import annotations

import errno
from pathlib import Path

import pytest

from broker.client.client import BrokerClient, Gap
from broker.log.log import Drop, count_expired
from broker.log.segment import Segment
from tests.broker.harness import offsets, publish_one_by_one, running_broker, take, wait_until
from tests.broker.logs import Answer, FaultyDisk, LazyDisk, StillClock, append, opened, payloads, segment_files

HOUR_S = 3600.0
NEVER = 0


def made(directory: Path, *segments: tuple[int, int]) -> list[Segment]:
    """Segments of a size and a time of the first record each; a time of 0 is a segment without records."""
    found = []
    for number, (size, first_ms) in enumerate(segments):
        segment = Segment(directory, number * 10, LazyDisk())
        segment.size = size
        if first_ms:
            segment.marks.add(segment.base, 0, [0], first_ms)
        found.append(segment)
    return found


@pytest.mark.parametrize(
    ("most_bytes", "oldest_ms", "count"),
    [
        (0, 0, 0),
        (60, 0, 0),
        (59, 0, 1),
        (50, 0, 1),
        (49, 0, 2),
        (1, 0, 3),
        (0, 2000, 0),
        (0, 2001, 1),
        (0, 3001, 2),
        (0, 9000, 3),
        (40, 2001, 2),
    ],
)
def test_the_oldest_segments_go_by_size_and_by_age(tmp_path: Path, most_bytes: int, oldest_ms: int, count: int) -> None:
    segments = made(tmp_path, (10, 1000), (10, 2000), (20, 3000), (20, 4000))
    assert count_expired(segments, most_bytes, oldest_ms, 4500) == count


def test_a_segment_before_an_empty_one_is_as_old_as_the_log_s_newest_record(tmp_path: Path) -> None:
    segments = made(tmp_path, (10, 1000), (0, 0))
    assert count_expired(segments, NEVER, 4500, 4500) == 0
    assert count_expired(segments, NEVER, 4501, 4500) == 1


def test_the_active_segment_stays_whatever_its_size(tmp_path: Path) -> None:
    assert count_expired(made(tmp_path, (10**9, 1000)), 1, 10**12, 1000) == 0


def test_a_tick_drops_by_size_and_says_what(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096, retention_bytes=10_000, disk=LazyDisk()) as log:
        for number in range(100):
            append(log, b"%d" % number)
        before = log.stats()
        drop = log.tick()
        assert drop is not None
        assert drop == Drop(
            0, log.oldest_offset, before.bytes - log.stats().bytes, before.segments - log.stats().segments
        )
        assert 10_000 - 4096 < log.stats().bytes <= 10_000
        assert len(segment_files(tmp_path)) == log.stats().segments
        assert payloads(log) == [b"%d" % number for number in range(drop.next_offset, 100)]
        assert log.tick() is None
        for number in range(100, 150):
            append(log, b"%d" % number)
        log.tick()
        stats = log.stats()
        assert (stats.dropped_messages, stats.dropped_bytes) == (
            log.oldest_offset,
            before.dropped_bytes + stats.appended_bytes - stats.bytes,
        )
        assert log.degraded == []
    with opened(tmp_path, segment_bytes=4096) as log:
        assert (log.oldest_offset, log.next_offset) == (stats.oldest_offset, 150)
        assert append(log, b"x") == [Answer(150, False)]


def test_a_tick_drops_by_age(tmp_path: Path) -> None:
    clock = StillClock()
    with opened(tmp_path, segment_bytes=4096, retention_age_s=HOUR_S, clock=clock, disk=LazyDisk()) as log:
        for number in range(60):
            append(log, b"%d" % number)
            clock.pass_time(60)
        log.tick()
        kept = log.oldest_offset
        assert log.stats().segments > 1
        clock.pass_time(HOUR_S / 2)
        log.tick()
        assert log.oldest_offset > kept
        assert log.oldest_offset <= 30 + 1
        clock.pass_time(HOUR_S * 10)
        log.tick()
        assert log.stats().segments == 1


@pytest.mark.parametrize("jump_ms", [-2 * 3600_000, 365 * 86_400_000])
def test_nothing_is_dropped_by_age_while_the_clock_is_off(tmp_path: Path, jump_ms: int) -> None:
    clock = StillClock()
    with opened(tmp_path, segment_bytes=4096, retention_age_s=HOUR_S, clock=clock, disk=LazyDisk()) as log:
        for number in range(60):
            append(log, b"%d" % number)
        clock.wall_ms += jump_ms
        assert log.tick() is None
        assert log.oldest_offset == 0
        assert log.stats().clock_jumped
        clock.wall_ms -= jump_ms
        clock.pass_time(2 * HOUR_S)
        assert log.tick() is not None
        assert not log.stats().clock_jumped


def test_a_file_that_cannot_be_deleted_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, segment_bytes=4096, retention_bytes=5000, disk=disk) as log:
        for number in range(60):
            append(log, b"%d" % number)
        disk.failing["sync_directory"] = errno.EIO
        assert log.tick() is None
        assert "could not be deleted" in caplog.text
        disk.failing.clear()
        assert append(log, b"x") == [Answer(60, False)]


async def test_stats_show_what_was_dropped_and_who_missed_it(tmp_path: Path) -> None:
    async with running_broker(
        tmp_path, segment_bytes=4096, retention_bytes=1, buffer_messages=0, tick_s=0.01
    ) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await publish_one_by_one(broker.port, 1)
        broker.log.commits.set("gone", 0)
        await publish_one_by_one(broker.port, 59)
        await wait_until(
            lambda: (
                broker.log.stats().segments == 1 and broker.counters.missed["gone"] >= broker.log.oldest_offset - 1 > 0
            )
        )
        oldest = broker.log.oldest_offset
        await client.subscribe("behind", 0)
        taken = await take(client, 1 + 60 - oldest)
        assert taken[0] == Gap(0, oldest - 1, "retention")
        assert offsets(taken) == list(range(oldest, 60))
        await client.ack(59)
        stats = await client.stats()
        assert stats["dropped_messages"] == oldest
        assert stats["dropped_bytes"] > 0
        assert stats["dropped_segments"] > 0
        assert {row["id"]: row["missed"] for row in stats["subscribers"]} == {"behind": 0, "gone": oldest - 1}
        await client.close()


async def test_a_subscriber_that_keeps_up_misses_nothing(tmp_path: Path) -> None:
    async with running_broker(tmp_path, segment_bytes=4096, retention_bytes=20_000, tick_s=0.01) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe("c1")
        for _ in range(5):
            await publish_one_by_one(broker.port, 30)
            await take(client, 30)
        await wait_until(lambda: broker.log.oldest_offset > 0)
        stats = await client.stats()
        assert stats["subscribers"][0]["missed"] == 0
        assert stats["gaps"] == 0
        again = await BrokerClient.connect("127.0.0.1", broker.port)
        first = await again.subscribe("c2", -2)
        assert offsets(await take(again, 150 - first)) == list(range(first, 150))
        await again.close()
        await client.close()
