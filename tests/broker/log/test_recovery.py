from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.log.record import encode_record
from tests.broker.logs import (
    PRODUCER,
    Answer,
    FaultyDisk,
    LazyDisk,
    StillClock,
    append,
    crash,
    flip,
    opened,
    payloads,
    read_all,
    segment_files,
    single,
)

# A fake record inside a payload: nothing may ever take it for one.
FORGED = json.dumps(encode_record(9, 1_700_000_000_000, "", 0, b"{}")[4:].decode()).encode()
SIZE = 20
RECORD = len(encode_record(0, 0, "", 0, b"0" * SIZE))


def _payload(number: int) -> bytes:
    return b"%0*d" % (SIZE, number)


def _fill(directory: Path, checkpoint_at: int, count: int) -> Path:
    """A log of equal records in one segment, with a checkpoint before one of them, left as by kill -9."""
    clock = StillClock()
    with opened(directory, clock=clock) as log:
        for number in range(count):
            if number == checkpoint_at:
                clock.pass_time(6)
                log.tick()
            append(log, single(_payload(number), PRODUCER, number))
        if checkpoint_at == count:
            clock.pass_time(6)
            log.tick()
        crash(log)
    return segment_files(directory)[0]


def cut(size: int) -> Callable[[Path], None]:
    """Cuts the file."""

    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:size])

    return damage


def grown(data: bytes) -> Callable[[Path], None]:
    """Adds to the file."""

    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes() + data)

    return damage


def zeroed(position: int, size: int) -> Callable[[Path], None]:
    """Overwrites with zeros."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:position] + bytes(size) + content[position + size :])

    return damage


def flipped(position: int) -> Callable[[Path], None]:
    """Flips a bit."""

    def damage(path: Path) -> None:
        flip(path, position, 2)

    return damage


class Case(NamedTuple):
    """What was done to a log of ten records with a checkpoint before number six, and what a start makes of it."""

    name: str
    damage: list[Callable[[Path], None]]
    lost: list[int]
    torn: int
    next_offset: int


CASES = [
    Case("nothing", [], [], 0, 10),
    Case("part of a record behind the last", [grown(b"\0\0\0\x90{")], [], 5, 10),
    Case("zeros behind the last", [grown(bytes(5000))], [], 5000, 10),
    Case("rubbish behind the last", [grown(FORGED)], [], len(FORGED), 10),
    Case("last record cut", [cut(10 * RECORD - 1)], [], RECORD - 1, 9),
    Case("last record's length zeroed", [zeroed(9 * RECORD, 4)], [], RECORD, 9),
    Case("last three records zeroed", [zeroed(7 * RECORD, 3 * RECORD)], [], 3 * RECORD, 7),
    Case("cut at the checkpoint", [cut(6 * RECORD)], [], 0, 6),
    Case("a bit behind the checkpoint", [flipped(7 * RECORD + 60)], [7], 0, 10),
    Case("a length behind the checkpoint", [flipped(7 * RECORD)], [7], 0, 10),
    Case("first behind the checkpoint", [flipped(6 * RECORD + 10)], [6], 0, 10),
    Case("two apart", [flipped(6 * RECORD + 50), flipped(8 * RECORD + 50)], [6, 8], 0, 10),
    Case("a hole and a torn end", [flipped(6 * RECORD + 9), cut(10 * RECORD - 9)], [6], RECORD - 9, 9),
    Case("a bit before the checkpoint", [flipped(3 * RECORD + 60)], [3], 0, 10),
    Case("last before the checkpoint", [flipped(5 * RECORD + 60)], [5], 0, 10),
    Case("the very first", [flipped(4)], [0], 0, 10),
    Case("across the checkpoint to the end", [zeroed(4 * RECORD, 6 * RECORD)], [4, 5], 4 * RECORD, 6),
    Case("cut before the checkpoint", [cut(4 * RECORD)], [4, 5], 0, 6),
    Case("cut inside a record before it", [cut(3 * RECORD + 70)], [3, 4, 5], 0, 6),
    Case("emptied", [cut(0)], [0, 1, 2, 3, 4, 5], 0, 6),
    Case("deleted", [Path.unlink], [], 0, 6),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_start_keeps_every_good_record_and_says_what_is_lost(case: Case, tmp_path: Path) -> None:
    path = _fill(tmp_path, 6, 10)
    for damage in case.damage:
        damage(path)
    deleted = case.name == "deleted"
    with opened(tmp_path) as log:
        assert log.recovery.torn_bytes == case.torn
        assert sum(file.stat().st_size for file in tmp_path.glob("*.torn-*")) == case.torn
        assert log.next_offset == case.next_offset
        assert log.oldest_offset == (6 if deleted else 0)
        records, gaps = read_all(log)
        missing = [offset for gap in gaps for offset in range(gap.first, gap.last + 1)]
        assert missing == case.lost
        assert {gap.reason for gap in gaps} <= {"corrupt"}
        assert [record.offset for record in records] == [
            n for n in range(log.oldest_offset, case.next_offset) if n not in missing
        ]
        assert all(record.payload == _payload(record.offset) for record in records)
        assert bool(log.degraded) == bool(missing)
        assert log.stats().damaged_records == len(missing)
        # It goes on behind: nothing that a checkpoint vouched for gives its number to another.
        assert append(log, single(b'"new"', PRODUCER, 50)) == [Answer(case.next_offset, False)]
        crash(log)
    for _ in range(2):
        with opened(tmp_path) as log:
            assert log.recovery.torn_bytes == 0
            assert [record.offset for record in read_all(log)[0]] == [*(r.offset for r in records), case.next_offset]
            assert read_all(log)[1] == gaps


def test_a_start_knows_of_damage_that_an_earlier_one_has_found(tmp_path: Path) -> None:
    path = _fill(tmp_path, 0, 10)
    flip(path, 3 * RECORD + 60)
    for _ in range(2):
        with opened(tmp_path) as log:
            assert log.recovery.damage == [(3, 3)]
            assert log.degraded == ["offsets 3 to 3 are damaged"]


@pytest.mark.parametrize("vouched", [True, False])
def test_a_segment_cut_at_every_byte_of_its_last_record(tmp_path: Path, vouched: bool) -> None:
    whole = _fill(tmp_path / "whole", 3 if vouched else 2, 3)
    content, saved = whole.read_bytes(), (tmp_path / "whole" / "checkpoint").read_bytes()
    for size in range(2 * RECORD, 3 * RECORD):
        directory = tmp_path / str(size)
        directory.mkdir()
        (directory / whole.name).write_bytes(content[:size])
        (directory / "checkpoint").write_bytes(saved)
        with opened(directory, disk=LazyDisk()) as log:
            records, gaps = read_all(log)
            assert [record.payload for record in records] == [_payload(0), _payload(1)]
            if vouched:
                assert gaps == [(2, 2, "corrupt")]
                assert append(log, b"1") == [Answer(3, False)]
            else:
                assert gaps == []
                assert log.recovery.torn_bytes == size - 2 * RECORD
                kept = b"".join(file.read_bytes() for file in directory.glob("*.torn-*"))
                assert kept == content[2 * RECORD : size]
                assert append(log, b"1") == [Answer(2, False)]
            assert read_all(log)[0][-1].payload == b"1"


@pytest.mark.parametrize("checkpoint_at", [0, 3])
def test_every_flipped_bit_of_a_log_loses_at_most_the_record_hit(tmp_path: Path, checkpoint_at: int) -> None:
    whole = _fill(tmp_path / "whole", checkpoint_at, 3)
    content, saved = whole.read_bytes(), (tmp_path / "whole" / "checkpoint").read_bytes()
    directory = tmp_path / "damaged"
    for position in range(len(content)):
        # One bit of each byte at random, all over it: all eight are test_record's.
        bit = random.Random(position).randrange(8)
        directory.mkdir()
        (directory / whole.name).write_bytes(content)
        flip(directory / whole.name, position, bit)
        (directory / "checkpoint").write_bytes(saved)
        with opened(directory, disk=LazyDisk()) as log:
            records, gaps = read_all(log)
            hit = position // RECORD
            assert [(record.offset, record.payload) for record in records] == [
                (offset, _payload(offset)) for offset in range(3) if offset != hit
            ]
            # Unvouched for, the last one looks like a write that never ended.
            torn = hit == 2 and checkpoint_at == 0
            assert gaps == ([] if torn else [(hit, hit, "corrupt")])
            assert log.next_offset == (2 if torn else 3)
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def test_every_flipped_bit_under_an_open_log_is_never_served(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, *[_payload(number) for number in range(3)])
        path = segment_files(tmp_path)[0]
        for position in range(3 * RECORD):
            for bit in range(8):
                flip(path, position, bit)
                records, gaps = read_all(log)
                hit = position // RECORD
                assert gaps == [(hit, hit, "corrupt")]
                assert [record.payload for record in records] == [_payload(n) for n in range(3) if n != hit]
                flip(path, position, bit)
                log._segments[0]._cursors.clear()


def test_destroyed_sectors_lose_only_the_records_they_hit(tmp_path: Path) -> None:
    choose = random.Random(7)
    sent = [b'["%s",%s]' % (b"x" * choose.randrange(900), FORGED) for _ in range(300)]
    with opened(tmp_path, segment_bytes=100_000) as log:
        for start in range(0, 300, 20):
            append(log, *sent[start : start + 20])
    starts: dict[Path, list[tuple[int, int, int]]] = {}
    with opened(tmp_path) as log:
        for record in read_all(log)[0]:
            segment = next(s for s in reversed(log._segments) if s.base <= record.offset)
            rows = starts.setdefault(segment.path, [])
            start = rows[-1][1] if rows else 0
            rows.append((start, start + 147 + len(record.payload), record.offset))
    whole = {path: path.read_bytes() for path in starts}
    for _ in range(100):
        path = choose.choice(list(starts))
        content = whole[path]
        position = choose.randrange(len(content) // 512) * 512
        filler = choose.choice((bytes(512), choose.randbytes(512), content[:512], FORGED[:512].ljust(512)))
        path.write_bytes(content[:position] + filler + content[position + 512 :])
        hit = [offset for start, end, offset in starts[path] if start < position + 512 and end > position]
        with opened(tmp_path, disk=LazyDisk()) as log:
            records, gaps = read_all(log)
            lost = [offset for gap in gaps for offset in range(gap.first, gap.last + 1)]
            assert set(lost) <= set(hit)
            assert [(r.offset, r.payload) for r in records] == [(n, sent[n]) for n in range(300) if n not in lost]
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["checkpoint", "commits", "format", "00000000000000000000.idx"])
def test_a_damaged_side_file_is_made_again(tmp_path: Path, name: str) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        for number in range(60):
            append(log, single(_payload(number), PRODUCER, number))
        log.commits.set("c1", 50)
    content = (tmp_path / name).read_bytes()
    positions = [*range(0, 12), *random.Random(1).sample(range(12, len(content)), min(20, len(content) - 12))]
    for position in positions:
        (tmp_path / name).write_bytes(content)
        flip(tmp_path / name, position)
        with opened(tmp_path, disk=LazyDisk(), segment_bytes=4096) as log:
            assert payloads(log) == [_payload(number) for number in range(60)]
            assert append(log, single(b"1", PRODUCER, 59)) == [Answer(59, True)]
            # Lost commits cost a second delivery; a wrong one would cost messages.
            assert log.commits.get("c1") == (None if name == "commits" else 50)
            if name == "commits":
                log.commits.set("c1", 50)


def test_an_index_that_does_not_fit_its_segment_is_made_again(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        for number in range(60):
            append(log, _payload(number))
    first, second = sorted(tmp_path.glob("*.idx"))[:2]
    first.write_bytes(second.read_bytes())
    with opened(tmp_path, segment_bytes=4096) as log:
        assert log.recovery.indexes_rebuilt == 1
        assert len(payloads(log)) == 60
    path = segment_files(tmp_path)[0]
    cut(path.stat().st_size - 5)(path)
    with opened(tmp_path, segment_bytes=4096) as log:
        assert log.recovery.indexes_rebuilt == 1
        lost = segment_files(tmp_path)[1].stem.lstrip("0")
        assert log.recovery.damage == [(int(lost) - 1, int(lost) - 1)]
        assert len(read_all(log)[0]) == 59


def test_a_roll_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    path = _fill(tmp_path, 6, 10)
    (tmp_path / f"{10:020d}.log").touch()
    with opened(tmp_path, clock=StillClock()) as log:
        assert log.recovery.indexes_rebuilt == 1
        assert path.with_suffix(".idx").exists()
        assert append(log, single(b"1", PRODUCER, 9), single(b"2", PRODUCER, 10)) == [
            Answer(9, True),
            Answer(10, False),
        ]
        assert len(payloads(log)) == 11


def test_a_lost_last_segment_gives_its_numbers_to_nobody(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096) as log:
        for number in range(60):
            append(log, _payload(number))
    last = segment_files(tmp_path)[-1]
    last.unlink()
    base = int(last.stem)
    with opened(tmp_path, segment_bytes=4096) as log:
        assert log.next_offset == 60
        assert append(log, b"1") == [Answer(60, False)]
        records, gaps = read_all(log)
        assert gaps == [(base, 59, "corrupt")]
        assert [record.offset for record in records] == [*range(base), 60]


def test_a_torn_tail_that_cannot_be_set_aside_stays_and_is_passed_over(tmp_path: Path) -> None:
    path = _fill(tmp_path, 3, 3)
    grown(encode_record(3, 0, "", 0, b"1" * 5000)[:3000])(path)
    disk = FaultyDisk()
    disk.failing["replace"] = errno.ENOSPC
    with opened(tmp_path, disk=disk) as log:
        assert log.recovery.torn_bytes == 0
        assert append(log, _payload(3)) == [Answer(3, False)]
        disk.failing.clear()
        assert payloads(log) == [_payload(number) for number in range(4)]
    with opened(tmp_path) as log:
        assert payloads(log) == [_payload(number) for number in range(4)]


def test_only_the_newest_torn_tails_are_kept(tmp_path: Path) -> None:
    path = _fill(tmp_path, 3, 3)
    clock = StillClock()
    for number in range(25):
        grown(b"torn %02d" % number)(path)
        clock.wall_ms += 1
        with opened(tmp_path, clock=clock) as log:
            assert log.recovery.torn_bytes == 7
    kept = sorted(file.read_bytes() for file in tmp_path.glob("*.torn-*"))
    assert kept == [b"torn %02d" % number for number in range(5, 25)]


def test_unreadable_sectors_lose_only_what_is_in_them(tmp_path: Path) -> None:
    class BadSector(FaultyDisk):
        def read_once(self, fd: int, size: int, position: int) -> bytes:
            if position < 8192 and position + size > 4096:
                raise OSError(errno.EIO, "Input/output error")
            return super().read_once(fd, size, position)

    sent = [_payload(number) for number in range(100)]
    with opened(tmp_path, disk=BadSector()) as log:
        append(log, *sent)
        records, gaps = read_all(log)
        hit = [n for n in range(100) if n * RECORD < 8192 and (n + 1) * RECORD > 4096]
        assert gaps == [(hit[0], hit[-1], "corrupt")]
        assert [record.payload for record in records] == [sent[n] for n in range(100) if n not in hit]
