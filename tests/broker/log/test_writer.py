from __future__ import annotations

import errno
from pathlib import Path

import pytest
from prometheus_client import Histogram

from broker.errors import DiskFull, LogFailed, Overloaded, ReadOnly
from broker.log.writer import SegmentWriter, write_error
from tests.broker.logs import FaultyDisk, StillClock, count_of


def test_it_appends_and_cuts_back_what_did_not_fit(tmp_path: Path) -> None:
    disk, fsyncs = FaultyDisk(), Histogram("fsyncs", "", registry=None)
    writer = SegmentWriter(disk, StillClock(), fsyncs, tmp_path / "file", 0, 1 << 20)
    writer.append([b"one"])
    writer.sync()
    writer.sync()
    assert count_of(fsyncs) == 1
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
    writer = SegmentWriter(disk, StillClock(), Histogram("fsyncs", "", registry=None), tmp_path / "file", 0, 1 << 20)
    writer.append([b"one"])
    for number in (errno.EIO, errno.ENOSPC):
        disk.failing["sync"] = number
        with pytest.raises(LogFailed, match="fsync of"):
            writer.sync()
    writer.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EROFS, ReadOnly),
        (errno.EPERM, ReadOnly),
        (errno.EMFILE, Overloaded),
        (errno.ENFILE, Overloaded),
        (errno.EIO, LogFailed),
        (errno.EBADF, LogFailed),
    ],
)
def test_an_errno_means_what_can_be_done_about_it(number: int, kind: type[Exception]) -> None:
    error = write_error(OSError(number, "why"), "writing")
    assert type(error) is kind
    assert str(error) == "writing: why"
