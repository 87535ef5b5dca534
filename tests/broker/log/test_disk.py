from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.errors import LogLocked
from broker.log.disk import (
    Buffer,
    DirectoryLock,
    Disk,
    load_side_file,
    probe_lock,
    probe_space,
    probe_write,
    save_side_file,
)
from tests.broker.logs import FaultyDisk, flip


def test_a_file_is_replaced_at_once_and_stays_when_that_fails(tmp_path: Path) -> None:
    disk, path = FaultyDisk(), tmp_path / "file"
    disk.longest_write = 3
    disk.replace(path, b"the first")
    assert path.read_bytes() == b"the first"
    disk.room = 5
    with pytest.raises(OSError, match="No space"):
        disk.replace(path, b"the second")
    assert path.read_bytes() == b"the first"
    disk.room = None
    disk.replace(path, b"third")
    assert path.read_bytes() == b"third"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 7, None])
def test_pieces_are_written_in_order_however_short_each_call_is(tmp_path: Path, longest: int | None) -> None:
    disk = FaultyDisk()
    disk.longest_write = longest
    fd = disk.open(tmp_path / "file")
    try:
        disk.write_all(fd, [b"one", b"", b"two", b"three"], 2)
        disk.write_all(fd, [b"%d" % (number % 10) for number in range(3000)], 13)
    finally:
        os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"\0\0onetwothree" + b"0123456789" * 300


def test_a_write_that_takes_nothing_counts_as_a_full_disk(tmp_path: Path) -> None:
    class Stuck(Disk):
        def write(self, fd: int, pieces: Sequence[Buffer], position: int) -> int:
            return 0

    with pytest.raises(OSError, match="No space"):
        Stuck().replace(tmp_path / "file", b"data")


@pytest.mark.parametrize(("start", "size"), [(0, 20_000), (100, 9000), (4096, 4096), (5000, 100), (8192, 100)])
def test_a_block_that_cannot_be_read_comes_as_zeros_alone(tmp_path: Path, start: int, size: int) -> None:
    class BadBlock(Disk):
        def read_once(self, fd: int, size: int, position: int) -> bytes:
            if position < 8192 and position + size > 4096:
                raise OSError(errno.EIO, "Input/output error")
            return super().read_once(fd, size, position)

    content = bytes(range(1, 251)) * 80
    (tmp_path / "file").write_bytes(content)
    expected = content[:4096] + bytes(4096) + content[8192:]
    disk = BadBlock()
    fd = disk.open(tmp_path / "file")
    try:
        assert disk.read(fd, size, start) == expected[start : start + size]
    finally:
        os.close(fd)


def test_any_other_read_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Disk().read(-1, 10, 0)


def test_free_bytes_are_those_of_the_disk(tmp_path: Path) -> None:
    told = os.statvfs(tmp_path)
    assert 0 < Disk().free_bytes(tmp_path) <= told.f_blocks * told.f_frsize


def test_space_is_set_aside_without_making_the_file_larger_and_given_back(tmp_path: Path) -> None:
    disk, path = Disk(), tmp_path / "file"
    fd = disk.open(path)
    try:
        disk.write_all(fd, [b"some"], 0)
        disk.reserve(fd, 4, 1 << 20)
        found = path.stat()
        if found.st_blocks * 512 < 1 << 20:
            pytest.skip("the file system of the temporary folder sets nothing aside")
        assert found.st_size == 4
        disk.truncate(fd, 4)
        assert path.stat().st_blocks * 512 <= 1 << 16
    finally:
        os.close(fd)
    assert path.read_bytes() == b"some"


def test_where_no_space_can_be_set_aside_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    disk.reserve(-1, 0, 4096)  # the system refuses
    monkeypatch.setattr("broker.log.disk._fallocate", None)  # no such system
    fd = disk.open(tmp_path / "file")
    try:
        disk.reserve(fd, 0, 1 << 20)
    finally:
        os.close(fd)
    assert (tmp_path / "file").stat().st_blocks == 0


CONTENT = {"number": [1, 2, 3]}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_side_file(Disk(), path, CONTENT)
    assert path.read_bytes() == b'761c66bb {"number":[1,2,3]}\n'
    assert load_side_file(path, dict[str, list[int]]) == CONTENT


def test_a_missing_file_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_side_file(tmp_path / "file", dict[str, list[int]]) is None
    assert caplog.records == []


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    save_side_file(Disk(), path, CONTENT)
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            flip(path, position, bit)
            assert load_side_file(path, dict[str, list[int]]) is None
            flip(path, position, bit)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert load_side_file(path, dict[str, list[int]]) is None
    assert len(caplog.records) == 9 * len(content)
    assert all("is not used" in record.message for record in caplog.records)


def test_another_kind_or_an_unreadable_path_is_not_used(tmp_path: Path) -> None:
    save_side_file(Disk(), tmp_path / "file", CONTENT)
    assert load_side_file(tmp_path / "file", list[int]) is None
    assert load_side_file(tmp_path, list[int]) is None


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(LogLocked) as caught:
        DirectoryLock(tmp_path)
    assert f"process {os.getpid()} on {socket.gethostname()} since 20" in str(caught.value)
    lock.release()
    lock.release()
    DirectoryLock(tmp_path).release()


@pytest.mark.parametrize("text", ["", "what?", "[]", '{"pid": 1}'])
def test_a_holder_that_has_not_signed_is_refused_all_the_same(tmp_path: Path, text: str) -> None:
    lock = DirectoryLock(tmp_path)
    lock.path.write_text(text)
    with pytest.raises(LogLocked, match="unknown process"):
        DirectoryLock(tmp_path)
    lock.release()


def test_what_a_dead_holder_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text('{"pid": 123456789, "host": "elsewhere", "started": "long ago", "more": "…"}')
    lock = DirectoryLock(tmp_path)
    assert f'"pid": {os.getpid()},' in lock.path.read_text()
    assert "elsewhere" not in lock.path.read_text()
    lock.release()


def test_it_knows_that_its_file_was_taken_away(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    assert lock.is_ours()
    lock.path.unlink()
    assert not lock.is_ours()
    other = DirectoryLock(tmp_path)
    assert other.is_ours()
    assert not lock.is_ours()
    lock.release()
    other.release()


def test_a_write_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.room = 1000
    assert probe_write(tmp_path, disk, 1000) == ""
    assert disk.syncs == 1
    assert probe_write(tmp_path, disk, 1) == f"{tmp_path} cannot be written: No space left on device"
    for call in ("open", "sync"):
        disk.room, disk.failing = None, {call: errno.EROFS}
        assert "Read-only" in probe_write(tmp_path, disk, 1)
    assert list(tmp_path.iterdir()) == []


def test_little_or_unknown_space_is_told(tmp_path: Path) -> None:
    disk = FaultyDisk()
    assert probe_space(tmp_path, disk, 0) == ""
    assert probe_space(tmp_path, disk, 1 << 60).endswith(f"the reserve is {1 << 60}")
    disk.failing["free_bytes"] = errno.EIO
    assert "is unknown" in probe_space(tmp_path, disk, 0)


def test_a_lock_that_was_taken_away_is_told(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    assert probe_lock(lock) == ""
    lock.path.unlink()
    assert "gone or replaced" in probe_lock(lock)
    lock.release()
