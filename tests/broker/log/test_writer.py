from __future__ import annotations

import errno
from pathlib import Path

import pytest

from broker.errors import DiskFull, LogFailed, ReadOnly
from broker.log.writer import START_SYNC_BYTES, SegmentWriter, write_error
from broker.server.histogram import Histogram
from tests.broker.logs import FaultyDisk, StillClock


def test_it_appends_and_cuts_back_what_did_not_fit(tmp_path: Path) -> None:
    disk, fsyncs = FaultyDisk(), Histogram()
    writer = SegmentWriter(disk, StillClock(), fsyncs, tmp_path / "file", 0, 1 << 20)
    writer.append([b"one"])
    writer.sync()
    writer.sync()
    assert fsyncs.count == 1
    disk.room = 2
    with pytest.raises(DiskFull):
        writer.append([b"two"])
    disk.room = None
    writer.append([b"three"])
    assert (tmp_path / "file").read_bytes() == b"onethree"
    assert writer.position == 8
    writer.close()
    writer.close()


def test_a_failed_fsync_is_never_tried_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    writer = SegmentWriter(disk, StillClock(), Histogram(), tmp_path / "file", 0, 1 << 20)
    writer.append([b"one"])
    for number in (errno.EIO, errno.ENOSPC):
        disk.failing["sync"] = number
        with pytest.raises(LogFailed, match="fsync of"):
            writer.sync()
    writer.close()


def test_the_disk_begins_with_a_mib_or_more_and_with_each_byte_once(tmp_path: Path) -> None:
    disk = FaultyDisk()
    writer = SegmentWriter(disk, StillClock(), Histogram(), tmp_path / "file", 0, 64 << 20)
    for size in (1000, START_SYNC_BYTES - 1001, 1, 2 * START_SYNC_BYTES, 5):
        writer.append([b"x" * size])
        writer.start_sync()
    assert disk.started == [(0, START_SYNC_BYTES), (START_SYNC_BYTES, 2 * START_SYNC_BYTES)]
    writer.sync()  # it is still due
    assert disk.syncs == 1
    writer.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EROFS, ReadOnly),
        (errno.EPERM, ReadOnly),
        (errno.EIO, LogFailed),
        (errno.EBADF, LogFailed),
    ],
)
def test_an_errno_means_what_can_be_done_about_it(number: int, kind: type[Exception]) -> None:
    error = write_error(OSError(number, "why"), "writing")
    assert type(error) is kind
    assert str(error) == "writing: why"
