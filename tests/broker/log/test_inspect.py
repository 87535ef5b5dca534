from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import LogLocked, LogUnusable
from broker.log.inspect import dump, repair, verify
from tests.broker.logs import LazyDisk, append, crash, flip, opened, payloads, read_all, segment_files


def write(directory: Path, count: int = 100) -> None:
    with opened(directory, segment_bytes=4096, disk=LazyDisk()) as log:
        for number in range(count):
            append(log, b"%d" % number)


def test_a_whole_log(tmp_path: Path) -> None:
    write(tmp_path)
    reports = list(verify(tmp_path))
    assert len(reports) == len(segment_files(tmp_path)) > 2
    assert all(report.whole and not report.index for report in reports)
    assert sum(report.records for report in reports) == 100
    assert [report.first for report in reports[1:]] == [report.next_offset for report in reports[:-1]]


def test_verify_changes_nothing_and_finds_what_is_broken(tmp_path: Path) -> None:
    write(tmp_path)
    files = segment_files(tmp_path)
    flip(files[1], 400)
    files[0].with_suffix(".idx").unlink()
    flip(files[1].with_suffix(".idx"), 30)
    with files[-1].open("ab") as file:
        file.write(b"\0\0\1")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    reports = list(verify(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    lost = reports[1].first + 2
    assert reports[1].lost == [(lost, lost)]
    assert (reports[0].index, reports[1].index, reports[2].index) == ("missing", "damaged", "")
    assert reports[-1].torn == 3
    assert [report.whole for report in reports] == [True, False, *[True] * (len(reports) - 3), False]


def test_the_end_of_a_sealed_segment_is_missed(tmp_path: Path) -> None:
    write(tmp_path)
    first = segment_files(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:-200])
    report = next(verify(tmp_path))
    assert report.lost == [(report.next_offset - 2, report.next_offset - 1)]
    assert report.torn == 0


def test_a_range_is_dumped_and_what_is_lost_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    assert [record.payload for record in dump(tmp_path, 0, 10**9)] == [b"%d" % number for number in range(100)]
    assert [record.offset for record in dump(tmp_path, 20, 60)] == list(range(20, 61))
    assert [record.offset for record in dump(tmp_path, 99, 99)] == [99]
    assert list(dump(tmp_path, 100, 200)) == []
    flip(segment_files(tmp_path)[0], 400)
    assert [record.offset for record in dump(tmp_path, 0, 4)] == [0, 1, 3, 4]


def test_repair_sets_a_torn_tail_aside_and_makes_the_indexes_again(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096, disk=LazyDisk()) as log:
        for number in range(99):
            append(log, b"%d" % number)
        append(log, b"99")
        crash(log)
    files = segment_files(tmp_path)
    with files[-1].open("ab") as file:
        file.write(b"\0\0\1{torn")
    flip(files[0], 400)
    files[1].with_suffix(".idx").unlink()
    reports = repair(tmp_path)
    assert [report.torn for report in reports] == [0] * len(files)
    assert [report.index for report in reports] == [""] * len(files)
    assert reports[0].lost == [(2, 2)]
    assert [path.read_bytes() for path in tmp_path.glob("*.torn-*")] == [b"\0\0\1{torn"]
    with opened(tmp_path, segment_bytes=4096) as log:
        assert log.recovery.indexes_rebuilt == 0
        records, gaps = read_all(log)
        assert [record.payload for record in records] == [b"%d" % number for number in range(100) if number != 2]
        assert len(gaps) == 1


def test_a_log_that_a_broker_has_is_not_repaired(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, b"1")
        with pytest.raises(LogLocked):
            repair(tmp_path)
        assert next(verify(tmp_path)).records == 1
    assert repair(tmp_path)[0].whole
    with opened(tmp_path) as log:
        assert payloads(log) == [b"1"]


@pytest.mark.parametrize("name", ["", "none"])
def test_a_folder_without_a_log(tmp_path: Path, name: str) -> None:
    for action in (verify, lambda directory: dump(directory, 0, 1), repair):
        with pytest.raises(LogUnusable, match="holds no log"):
            list(action(tmp_path / name))
    assert list(tmp_path.iterdir()) == []
