from __future__ import annotations

import errno
from pathlib import Path

import pytest

from broker.errors import LogUnusable
from broker.log.disk import Disk, load_side_file, save_side_file
from broker.log.log import FORMAT_NAME, LAYOUT, Log, LogConfig, check_layout
from tests.broker.logs import FaultyDisk


def test_a_fresh_directory_is_marked_and_a_known_one_taken(tmp_path: Path) -> None:
    for _ in range(2):
        check_layout(tmp_path, Disk())
        assert load_side_file(tmp_path / FORMAT_NAME, dict[str, int]) == {"format": LAYOUT}


@pytest.mark.parametrize("other", [1, LAYOUT + 1])
def test_another_layout_is_refused_and_the_directory_given_back(tmp_path: Path, other: int) -> None:
    save_side_file(Disk(), tmp_path / FORMAT_NAME, {"format": other, "more": 1})
    for _ in range(2):
        with pytest.raises(
            LogUnusable, match=f"has layout {other}, this broker reads layout {LAYOUT}: .* move it away"
        ):
            Log.open(tmp_path, LogConfig())


def test_a_damaged_mark_is_made_again(tmp_path: Path) -> None:
    (tmp_path / FORMAT_NAME).write_text("what?")
    check_layout(tmp_path, Disk())
    assert load_side_file(tmp_path / FORMAT_NAME, dict[str, int]) == {"format": LAYOUT}


def test_a_directory_that_cannot_be_marked_is_told(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.failing["replace"] = errno.EROFS
    with pytest.raises(OSError, match="Read-only"):
        check_layout(tmp_path, disk)
