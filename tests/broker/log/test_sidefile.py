from __future__ import annotations

from pathlib import Path

import pytest

from broker.log import sidefile
from broker.log.disk import Disk
from tests.broker.logs import flip

CONTENT = {"number": [1, 2, 3]}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sidefile.save(Disk(), path, CONTENT)
    assert path.read_bytes() == b'761c66bb {"number":[1,2,3]}\n'
    assert sidefile.load(path, dict[str, list[int]]) == CONTENT


def test_a_missing_file_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert sidefile.load(tmp_path / "file", dict[str, list[int]]) is None
    assert caplog.records == []


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    sidefile.save(Disk(), path, CONTENT)
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            flip(path, position, bit)
            assert sidefile.load(path, dict[str, list[int]]) is None
            flip(path, position, bit)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert sidefile.load(path, dict[str, list[int]]) is None
    assert len(caplog.records) == 9 * len(content)
    assert all("is not used" in record.message for record in caplog.records)


def test_another_kind_or_an_unreadable_path_is_not_used(tmp_path: Path) -> None:
    sidefile.save(Disk(), tmp_path / "file", CONTENT)
    assert sidefile.load(tmp_path / "file", list[int]) is None
    assert sidefile.load(tmp_path, list[int]) is None
