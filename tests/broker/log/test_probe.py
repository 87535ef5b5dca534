from __future__ import annotations

import errno
from pathlib import Path

from broker.log.lock import DirectoryLock
from broker.log.probe import check_lock, check_space, try_write
from tests.broker.logs import FaultyDisk


def test_a_write_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.room = 1000
    assert try_write(tmp_path, disk, 1000) == ""
    assert disk.syncs == 1
    assert try_write(tmp_path, disk, 1) == f"{tmp_path} cannot be written: No space left on device"
    for call in ("open", "sync"):
        disk.room, disk.failing = None, {call: errno.EROFS}
        assert "Read-only" in try_write(tmp_path, disk, 1)
    assert list(tmp_path.iterdir()) == []


def test_little_or_unknown_space_is_told(tmp_path: Path) -> None:
    disk = FaultyDisk()
    assert check_space(tmp_path, disk, 0) == ""
    assert check_space(tmp_path, disk, 1 << 60).endswith(f"the reserve is {1 << 60}")
    disk.failing["free_bytes"] = errno.EIO
    assert "is unknown" in check_space(tmp_path, disk, 0)


def test_a_lock_that_was_taken_away_is_told(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    assert check_lock(lock) == ""
    lock.path.unlink()
    assert "gone or replaced" in check_lock(lock)
    lock.release()
