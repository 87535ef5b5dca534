from __future__ import annotations

import errno
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from broker.errors import DiskFull, LogFailed, LogLocked, LogUnusable, OffsetOutOfRange, Overloaded, ReadOnly
from broker.log.log import Entries, Gap, Log, LogConfig
from broker.log.offsets import COMMITS_NAME
from tests.broker.logs import (
    OTHER,
    PRODUCER,
    Answer,
    FaultyDisk,
    StillClock,
    answers_of,
    append,
    count_of,
    crash,
    frames_of,
    opened,
    payloads,
    read_all,
    segment_files,
    single,
    split,
)


def test_a_fresh_log_is_empty(tmp_path: Path) -> None:
    with opened(tmp_path / "deep" / "log") as log:
        assert (log.oldest_offset, log.next_offset) == (0, 0)
        assert log.read(0, 100) == (b"", 0, None)
        assert log.probe() == []
        assert log.degraded == []


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_messages_survive_a_restart_and_the_rolls(tmp_path: Path, fsync: str) -> None:
    sent = [b'{"number":%d}' % number for number in range(300)]
    with opened(tmp_path, segment_bytes=4096, fsync=fsync) as log:
        for start in range(0, 150, 7):
            append(log, *sent[start : min(start + 7, 150)])
        assert payloads(log) == sent[:150]
    with opened(tmp_path, segment_bytes=4096, fsync=fsync) as log:
        assert log.recovery.clean
        assert log.recovery.records == 0
        assert payloads(log) == sent[:150]
        assert [append(log, payload)[0] for payload in sent[150:]] == [Answer(n, False) for n in range(150, 300)]
        crash(log)
    with opened(tmp_path, segment_bytes=4096, fsync=fsync) as log:
        assert not log.recovery.clean
        assert payloads(log) == sent
        assert log.stats().segments == len(segment_files(tmp_path)) > 10
        assert log.stats().bytes == sum(path.stat().st_size for path in segment_files(tmp_path))


def test_nothing_is_seen_before_it_is_finished(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, b"1")
        group = log.prepare([single(b"2")])
        log.commit(group)
        assert log.read(1, 100) == (b"", 1, None)
        with pytest.raises(OffsetOutOfRange, match="the next message's offset"):
            log.read(2, 100)
        log.finish(group)
        assert payloads(log) == [b"1", b"2"]
        assert b"".join(frames_of(group)) == log.read(1, 100).data


def test_only_one_group_is_in_flight(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        group = log.prepare([single(b"1")])
        with pytest.raises(RuntimeError, match="in flight"):
            log.prepare([single(b"2")])
        log.abort(group)
        assert append(log, b"3") == [Answer(0, False)]
        assert log.stats().failed_groups == 1


def test_an_entry_that_fits_no_record_leaves_the_log_usable(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for entry in (single(b""), single(b"1", "xyz", 1), single(b"1", PRODUCER, -1), single(b"1", PRODUCER, 10**12)):
            with pytest.raises(ValueError, match="not"):
                log.prepare([single(b"0", OTHER, 1), entry])
        assert append(log, single(b"1", OTHER, 1)) == [Answer(0, False)]


@pytest.mark.parametrize("buffer_messages", [0, 25, 10_000])
def test_a_read_gives_whole_frames_from_any_offset_with_any_limit(tmp_path: Path, buffer_messages: int) -> None:
    sizes = random.Random(1)
    sent = [b'"%s"' % (b"x" * sizes.choice((0, 1, 50, 3000))) for _ in range(60)]
    with opened(tmp_path, segment_bytes=10_000, buffer_messages=buffer_messages) as log:
        for start in range(0, 60, 6):
            append(log, *sent[start : start + 6])
        for offset in range(60):
            for most in (1, 100, 147, 148, 300, 3000, 4096, 10_000, 1 << 20):
                chunk = log.read(offset, most)
                frames = split(chunk.data)
                assert len(chunk.data) <= most or len(frames) == 1
                assert chunk.next_offset == offset + len(frames)
        for most in (1, 500, 1 << 20):
            assert [record.payload for record in read_all(log, 0, most)[0]] == sent
        for outside in (-1, 61):
            with pytest.raises(OffsetOutOfRange):
                log.read(outside, 100)


def test_a_reader_far_behind_finds_its_place_by_the_index(tmp_path: Path) -> None:
    sent = [b'"%06d%s"' % (number, b"x" * 900) for number in range(500)]
    with opened(tmp_path) as log:
        append(log, *sent)
        assert [record.payload for record in read_all(log, 499)[0]] == sent[499:]
        assert [record.payload for record in read_all(log, 123, 1)[0]] == sent[123:]
    with opened(tmp_path) as log:
        assert [record.payload for record in read_all(log, 321, 10_000)[0]] == sent[321:]


# Repetitions


def test_a_repeated_publish_is_answered_with_its_first_offset(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        assert append(log, single(b"1", PRODUCER, 5), single(b"2", PRODUCER, 6), single(b"2", PRODUCER, 6), b"0") == [
            Answer(0, False),
            Answer(1, False),
            Answer(1, True),
            Answer(2, False),
        ]
        assert append(log, single(b"x", OTHER, 5), single(b"3", PRODUCER, 7), single(b"1", PRODUCER, 5)) == [
            Answer(3, False),
            Answer(4, False),
            Answer(0, True),
        ]
        assert log.stats().duplicates == 2
        assert payloads(log) == [b"1", b"2", b"0", b"x", b"3"]


@pytest.mark.parametrize("how", ["clean", "crash", "no checkpoint", "no checkpoint, no index"])
def test_repetitions_are_known_after_a_restart(tmp_path: Path, how: str) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        for number in range(100):
            append(log, single(b"%d" % number, PRODUCER, number), single(b"%d" % number, OTHER, 2 * number))
        assert log.stats().segments > 5
        if how != "clean":
            crash(log)
    if "no checkpoint" in how:
        (tmp_path / "checkpoint").unlink()
    if "no index" in how:
        for path in tmp_path.glob("*.idx"):
            path.unlink()
    with opened(tmp_path, segment_bytes=4096) as log:
        assert log.recovery.indexes_rebuilt == (log.stats().segments - 1 if "no index" in how else 0)
        again = [single(b"again", PRODUCER, number) for number in range(36, 100)]
        assert append(log, *again) == [Answer(2 * number, True) for number in range(36, 100)]
        assert append(log, single(b"again", OTHER, 198), single(b"new", OTHER, 200)) == [
            Answer(199, True),
            Answer(200, False),
        ]
        assert log.next_offset == 201
        # A group of repetitions only writes nothing.
        assert append(log, single(b"again", OTHER, 200)) == [Answer(200, True)]
    with opened(tmp_path) as log:
        assert log.stats().producers == 2


def test_what_a_failed_group_held_is_taken_when_it_comes_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk) as log:
        group = log.prepare([single(b"%d" % number, PRODUCER, number) for number in range(5)])
        disk.room = 300
        with pytest.raises(DiskFull):
            log.commit(group)
        log.abort(group)
        disk.room = None
        # Pipelined behind the failed ones, sent before their failure was known.
        assert append(log, single(b"5", PRODUCER, 5), single(b"6", PRODUCER, 6)) == [Answer(0, False), Answer(1, False)]
        again = [single(b"%d" % number, PRODUCER, number) for number in range(7)]
        assert [answer.duplicate for answer in append(log, *again)] == [False] * 5 + [True] * 2
        assert sorted(payloads(log)) == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"]


# Failures


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EROFS, ReadOnly),
        (errno.EACCES, ReadOnly),
        (errno.EMFILE, Overloaded),
    ],
)
def test_a_refused_write_leaves_nothing_and_the_log_goes_on(
    tmp_path: Path, number: int, error: type[Exception]
) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk) as log:
        append(log, b"1")
        group = log.prepare([single(b"2"), single(b"3")])
        disk.failing["write"] = number
        with pytest.raises(error, match="writing to"):
            log.commit(group)
        log.abort(group)
        assert payloads(log) == [b"1"]
        assert any("writing to" in reason for reason in log.probe())
        del disk.failing["write"]
        assert append(log, b"4") == [Answer(1, False)]
        assert log.probe() == []
        assert payloads(log) == [b"1", b"4"]
        crash(log)
    with opened(tmp_path) as log:
        assert payloads(log) == [b"1", b"4"]
        assert log.recovery.torn_bytes == 0


@pytest.mark.parametrize("room", range(0, 330, 11))
def test_a_disk_that_fills_inside_a_group_keeps_nothing_of_it(tmp_path: Path, room: int) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk) as log:
        append(log, b"1")
        size = segment_files(tmp_path)[0].stat().st_size
        group = log.prepare([single(b"2" * 20), single(b"3" * 20)])
        disk.room = room
        with pytest.raises(DiskFull):
            log.commit(group)
        log.abort(group)
        assert segment_files(tmp_path)[0].stat().st_size == size
        disk.room = None
        append(log, b"4")
        assert payloads(log) == [b"1", b"4"]


def test_short_writes_are_completed(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.longest_write = 10
    sent = [b'"%s"' % (b"x" * 100)] * 5
    with opened(tmp_path, disk=disk) as log:
        append(log, *sent)
        assert payloads(log) == sent
        crash(log)
    with opened(tmp_path) as log:
        assert payloads(log) == sent


@pytest.mark.parametrize("call", ["sync", "write", "truncate"])
def test_a_write_whose_fate_is_unknown_stops_the_log(tmp_path: Path, call: str) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk) as log:
        append(log, b"1")
        group = log.prepare([single(b"2")])
        if call == "truncate":
            disk.room = 10
        disk.failing[call] = errno.EIO
        with pytest.raises(LogFailed):
            log.commit(group)
        disk.failing.clear()
        disk.room = None
        log.abort(group)
        for again in (lambda: log.prepare([single(b"3")]), lambda: log.commit(group), log.tick):
            with pytest.raises(LogFailed):
                again()
        assert any("the log has failed" in reason for reason in log.probe())
        assert payloads(log) == [b"1"]
    # What the failed group left behind was never answered: there or not, the rest is as it was.
    with opened(tmp_path) as log:
        assert not log.recovery.clean
        assert payloads(log)[0] == b"1"
        assert append(log, b"4")[0].offset == log.next_offset - 1


def test_a_refusal_is_over_when_the_refused_size_fits_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk) as log:
        group = log.prepare([single(b"1" * 4000)])
        disk.room = 100
        with pytest.raises(DiskFull):
            log.commit(group)
        log.abort(group)
        disk.room = 2000
        assert [reason.partition(":")[2] for reason in log.probe()] == [" No space left on device"] * 2
        disk.room = None
        assert log.probe() == []
        disk.room = 2
        assert log.probe() == []
        assert not (tmp_path / ".probe").exists()


def test_a_roll_that_fails_is_tried_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk, segment_bytes=4096) as log:
        big, small = b'"%s"' % (b"x" * 3500), b'"%s"' % (b"y" * 3800)
        append(log, big)
        for call, number, error in (
            ("open", errno.ENOSPC, DiskFull),
            ("open", errno.EMFILE, Overloaded),
            ("sync_directory", errno.ENFILE, Overloaded),
            ("sync_directory", errno.EROFS, ReadOnly),
        ):
            disk.failing[call] = number
            group = log.prepare([single(small)])
            with pytest.raises(error, match="starting the segment"):
                log.commit(group)
            log.abort(group)
            disk.failing.clear()
        # It would fit the old segment, but a file that begins at its offset is there.
        assert append(log, b"1") == [Answer(1, False)]
        assert [path.name for path in segment_files(tmp_path)] == [f"{0:020d}.log", f"{1:020d}.log"]
        assert payloads(log) == [big, b"1"]
        crash(log)
    with opened(tmp_path, segment_bytes=4096) as log:
        assert payloads(log) == [big, b"1"]


def test_side_files_that_cannot_be_saved_are_said_once_and_stop_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk, clock = FaultyDisk(), StillClock()
    with opened(tmp_path, disk=disk, clock=clock, segment_bytes=4096) as log:
        disk.failing["replace"] = errno.ENOSPC
        for _ in range(60):
            append(log, b"1" * 100)
            clock.pass_time(6)
            log.tick()
        log.commits.set("c1", 3)
        log.tick()
        told = [record.message.partition(",")[0] for record in caplog.records if "cannot be saved" in record.message]
        assert told == ["the checkpoint cannot be saved", "the commits cannot be saved"]
        assert log.degraded == [f"{line}: No space left on device" for line in told]
        crash(log)
    with opened(tmp_path, segment_bytes=4096) as log:
        assert len(payloads(log)) == 60
        assert log.commits.get("c1") is None
        assert log.degraded == []


def test_the_modes_sync_when_they_say(tmp_path: Path) -> None:
    for fsync, at_commit, at_tick in (("always", 1, 0), ("interval", 0, 1), ("never", 0, 0)):
        disk, clock = FaultyDisk(), StillClock()
        with opened(tmp_path / fsync, disk=disk, clock=clock, fsync=fsync) as log:
            before = disk.syncs
            append(log, b"1")
            assert disk.syncs - before == at_commit
            clock.pass_time(1.5)
            log.tick()
            log.tick()
            assert disk.syncs - before == at_commit + at_tick
            assert count_of(log.stats().fsyncs) > 0


def test_a_failed_interval_sync_stops_the_log(tmp_path: Path) -> None:
    disk, clock = FaultyDisk(), StillClock()
    with opened(tmp_path, disk=disk, clock=clock, fsync="interval") as log:
        append(log, b"1")
        clock.pass_time(1.5)
        disk.failing["sync"] = errno.EIO
        with pytest.raises(LogFailed, match="fsync"):
            log.tick()
        with pytest.raises(LogFailed):
            log.prepare([single(b"2")])


def test_a_close_whose_sync_fails_says_so_and_frees_the_directory(tmp_path: Path) -> None:
    disk = FaultyDisk()
    log = Log.open(tmp_path, LogConfig(fsync="never"), disk=disk)
    append(log, b"1")
    disk.failing["sync"] = errno.EIO
    with pytest.raises(LogFailed):
        log.close()
    log.close()
    with opened(tmp_path) as again:
        assert payloads(again) == [b"1"]
    with pytest.raises(LogFailed, match="closed"):
        again.prepare([single(b"1")])


def test_the_checkpoint_spares_the_next_start_the_reading(tmp_path: Path) -> None:
    clock = StillClock()
    with opened(tmp_path, clock=clock) as log:
        append(log, *[b"1"] * 10)
        clock.pass_time(6)
        log.tick()
        append(log, b"2")
        crash(log)
    with opened(tmp_path) as log:
        assert log.recovery.records == 1
        assert len(payloads(log)) == 11


# Time


def test_a_clock_that_goes_backwards_turns_no_timestamp_back(tmp_path: Path) -> None:
    clock = StillClock()
    with opened(tmp_path, clock=clock) as log:
        append(log, b"1")
        clock.wall_ms -= 3_600_000
        append(log, b"2")
        crash(log)
    clock.wall_ms -= 3_600_000
    with opened(tmp_path, clock=clock) as log:
        append(log, b"3")
        clock.wall_ms += 7_200_001
        append(log, b"4")
        times = [record.timestamp_ms - 1_700_000_000_000 for record in read_all(log)[0]]
        assert times == [0, 0, 0, 1]


def test_an_old_segment_is_sealed_by_its_age(tmp_path: Path) -> None:
    clock = StillClock()
    with opened(tmp_path, clock=clock, segment_age_s=60) as log:
        append(log, b"1")
        clock.pass_time(59)
        append(log, b"2")
        assert log.stats().segments == 1
        clock.pass_time(1)
        append(log, b"3")
        assert log.stats().segments == 2


def test_producers_and_commits_are_forgotten_after_a_month_but_not_by_a_clock_that_was_set(tmp_path: Path) -> None:
    clock = StillClock()
    with opened(tmp_path, clock=clock) as log:
        append(log, single(b"1", PRODUCER, 1))
        log.commits.set("c1", 0)
        clock.wall_ms += 365 * 24 * 3_600_000
        clock.steady_s += 6
        log.tick()
        assert log.stats().producers == 1
        assert log.commits.get("c1") == 0
        clock.steady_s += 365 * 24 * 3600
        append(log, b"2")
        log.tick()
        assert log.stats().producers == 0
        assert log.commits.get("c1") is None


# The directory


def test_a_second_opener_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "log")
    (tmp_path / "log").mkdir()
    with opened(tmp_path / "log") as log:
        for path in (tmp_path / "log", tmp_path / "link"):
            with pytest.raises(LogLocked, match=f"in use by another broker .process {os.getpid()} on "):
                Log.open(path, LogConfig())
        append(log, b"1")
    with opened(tmp_path / "link") as log:
        assert payloads(log) == [b"1"]


def test_kill_9_frees_the_directory_and_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from broker.log.log import Entries, Log, LogConfig\n"
        "log = Log.open(pathlib.Path(sys.argv[1]), LogConfig(fsync='never', segment_bytes=4096))\n"
        "while True:\n"
        "    group = log.prepare([Entries([b'%d' % log.next_offset] * 3)])\n"
        "    log.commit(group)\n"
        "    log.finish(group)\n"
        "    sys.stdout.write(f'{group.next_offset - 1}\\n')\n"
        "    sys.stdout.flush()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        answered = [int(process.stdout.readline()) for _ in range(200)]
        with pytest.raises(LogLocked, match=f"process {process.pid}"):
            Log.open(tmp_path, LogConfig())
    finally:
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
    answered += [int(line) for line in rest.split("\n")[:-1]]
    with opened(tmp_path, segment_bytes=4096) as log:
        assert log.next_offset > answered[-1]
        assert [int(payload) for payload in payloads(log)] == [n - n % 3 for n in range(log.next_offset)]


def test_a_path_that_is_no_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "log"):
        with pytest.raises(LogUnusable, match="cannot hold the log") as caught:
            Log.open(path, LogConfig())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("number", "error"), [(errno.EROFS, LogUnusable), (errno.EIO, LogFailed)])
def test_a_disk_that_does_not_let_it_open_is_told_and_the_lock_is_freed(
    tmp_path: Path, number: int, error: type[Exception]
) -> None:
    disk = FaultyDisk()
    disk.failing["open"] = number
    with pytest.raises(error):
        Log.open(tmp_path, LogConfig(), disk=disk)
    with opened(tmp_path):
        pass
    disk.failing = {"sync": number}
    with pytest.raises(LogFailed):
        Log.open(tmp_path, LogConfig(), disk=disk)
    with opened(tmp_path) as log:
        append(log, b"1")


def test_the_probe_says_what_is_wrong(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk, free_space_reserve=1 << 60) as log:
        assert [reason.partition("the reserve is")[2] for reason in log.probe()] == [f" {1 << 60}"]
    with opened(tmp_path, disk=disk) as log:
        disk.failing = {"write": errno.EROFS, "free_bytes": errno.EIO}
        assert len(log.probe()) == 2
        disk.failing = {}
        (tmp_path / ".lock").rename(tmp_path / "elsewhere")
        assert ["gone or replaced" in reason for reason in log.probe()] == [True]
        (tmp_path / ".lock").write_text("")
        assert ["gone or replaced" in reason for reason in log.probe()] == [True]


# Commits


def test_commits_survive_a_restart_and_stay_inside_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as log:
        append(log, b"1", b"2", b"3")
        log.commits.set("c1", 1)
        log.commits.set("c2", 2)
        log.commits.set("c1", 0)
    with opened(tmp_path) as log:
        assert dict(log.commits.items()) == {"c1": 1, "c2": 2}
    path = segment_files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:148])
    (tmp_path / "checkpoint").unlink()
    with opened(tmp_path) as log:
        assert log.next_offset == 1
        assert dict(log.commits.items()) == {"c1": 0, "c2": 0}
        assert "past the end of the log" in caplog.text
    assert (tmp_path / COMMITS_NAME).exists()


# Retention


def test_dropped_segments_are_a_gap_with_the_exact_offsets(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        for number in range(100):
            append(log, b"%d" % number)
        segments = log.stats().segments
        assert log.drop_before(0) == 0
        assert log.drop_before(60) > 0
        oldest = log.oldest_offset
        assert 0 < oldest <= 60
        assert log.read(0, 100) == (b"", oldest, Gap(0, oldest - 1, "retention"))
        assert log.read(oldest - 1, 100).gap == (oldest - 1, oldest - 1, "retention")
        assert payloads(log, oldest) == [b"%d" % number for number in range(oldest, 100)]
        dropped = segments - log.stats().segments
        assert len(list(tmp_path.glob("*.idx"))) == segments - 1 - dropped
        assert log.degraded == []
        # The active segment always stays.
        log.drop_before(10**6)
        assert log.stats().segments == 1
        assert append(log, b"x") == [Answer(100, False)]
        oldest = log.oldest_offset
    with opened(tmp_path, segment_bytes=4096) as log:
        assert log.oldest_offset == oldest
        assert log.next_offset == 101
        assert log.read(0, 1).gap == (0, oldest - 1, "retention")


def test_a_segment_dropped_under_a_reader_is_a_gap_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        for number in range(100):
            append(log, b"%d" % number)
        first = log._segments[0]
        found = first.read

        def dropped_meanwhile(offset: int, stop: int, most: int) -> object:
            log.drop_before(50)
            return found(offset, stop, most)

        monkeypatch.setattr(first, "read", dropped_meanwhile)
        chunk = log.read(0, 1000)
        assert chunk.gap == (0, log.oldest_offset - 1, "retention")
        assert log.degraded == []


def test_a_segment_somebody_deleted_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        for number in range(100):
            append(log, b"%d" % number)
        segment_files(tmp_path)[1].unlink()
        records, gaps = read_all(log)
        assert [gap.reason for gap in gaps] == ["corrupt"]
        assert len(records) + gaps[0].last - gaps[0].first + 1 == 100
        assert len(log.degraded) == 1
    with opened(tmp_path, segment_bytes=4096) as log:
        assert read_all(log) == (records, gaps)


# Together


def test_readers_in_threads_see_dense_offsets_while_the_log_grows(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    total = 3000
    grown = threading.Condition()

    def follow(log: Log, most: int) -> None:
        try:
            offset = 0
            while offset < total:
                chunk = log.read(offset, most)
                assert chunk.gap is None
                assert len(split(chunk.data)) == chunk.next_offset - offset
                offset = chunk.next_offset
                if not chunk.data:
                    with grown:
                        while log.next_offset == offset and grown.wait(timeout=60):
                            pass
        except BaseException as error:
            failures.append(error)

    with opened(tmp_path, segment_bytes=20_000, buffer_messages=50, fsync="never") as log:
        threads = [threading.Thread(target=follow, args=(log, most)) for most in (1, 700, 100_000)]
        for thread in threads:
            thread.start()
        for start in range(0, total, 10):
            append(log, *[b"%d" % number for number in range(start, start + 10)])
            with grown:
                grown.notify_all()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_appends_failures_crashes_and_restarts_matches_a_list(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    disk, clock = FaultyDisk(), StillClock()
    model: list[bytes] = []
    seen: dict[tuple[str, int], int] = {}
    last = {"": 0, PRODUCER: 0, OTHER: 0}
    config = LogConfig(segment_bytes=choose.choice((4096, 20_000)), buffer_messages=choose.choice((0, 20)))
    log = Log.open(tmp_path, config, disk=disk, clock=clock)
    try:
        for step in range(150):
            action = choose.random()
            clock.pass_time(choose.choice((0, 0.5, 3)))
            if action < 0.75:
                batch = []
                for producer in choose.choices(("", PRODUCER, OTHER), k=choose.randrange(1, 8)):
                    # Mostly the next one, at times one sent before, at times one is left out.
                    sequence = max(0, last[producer] + choose.choice((1, 1, 1, 1, 2, 0, -1, -2, -9)))
                    count = choose.choice((1, 1, 1, 2, 5))
                    last[producer] = max(last[producer], sequence + count - 1)
                    texts = [b'[%d,"%s"]' % (step, b"x" * choose.randrange(400)) for _ in range(count)]
                    batch.append(Entries(texts, producer, sequence))
                group = log.prepare(batch)
                disk.room = choose.choice((None, None, None, choose.randrange(600)))
                try:
                    log.commit(group)
                except DiskFull:
                    log.abort(group)
                else:
                    log.finish(group)
                    messages = (
                        (entries.producer, sequence, payload)
                        for entries in batch
                        for sequence, payload in enumerate(entries.payloads, entries.sequence)
                    )
                    for (producer, sequence, payload), answer in zip(messages, answers_of(group), strict=True):
                        if producer and (producer, sequence) in seen:
                            assert answer == Answer(seen[producer, sequence], True)
                            continue
                        assert answer == Answer(len(model), False)
                        seen[producer, sequence] = answer.offset
                        model.append(payload)
                disk.room = None
            elif action < 0.85:
                log.tick()
            else:
                if choose.random() < 0.5:
                    log.close()
                else:
                    crash(log)
                log = Log.open(tmp_path, config, disk=disk, clock=clock)
            if choose.random() < 0.1:
                start = choose.randrange(len(model) + 1)
                assert [record.payload for record in read_all(log, start, choose.randrange(1, 5000))[0]] == model[
                    start:
                ]
        assert payloads(log) == model
        assert log.next_offset == len(model)
        # Side files that a full disk refused are saved again.
        clock.pass_time(6)
        log.tick()
        assert log.degraded == []
    finally:
        log.close()


def test_the_start_says_what_it_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as log:
        append(log, b"1", b"2")
        crash(log)
    caplog.clear()
    with caplog.at_level(logging.INFO), opened(tmp_path):
        assert (
            "2 messages from offset 0 on, 296 bytes in 1 segments; unclean stop, read 2 records (296 bytes)"
            in caplog.text
        )


def test_no_more_space_is_set_aside_than_a_segment_takes_and_what_is_not_used_is_given_back(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=1 << 20) as log:
        for number in range(30):
            append(log, b'"%b"' % (b"%d" % number * 50_000))
            assert all(path.stat().st_blocks * 512 <= (1 << 20) + (1 << 17) for path in segment_files(tmp_path))
        assert len(segment_files(tmp_path)) == 3
    for path in segment_files(tmp_path):
        found = path.stat()
        assert 0 <= found.st_blocks * 512 - found.st_size < 1 << 17
