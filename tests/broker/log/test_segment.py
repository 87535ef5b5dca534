from __future__ import annotations

from pathlib import Path

import pytest

from broker.log.disk import Disk
from broker.log.record import decode_record
from broker.log.segment import SPACING, Mark, Marks, Segment, find_segments
from tests.broker.logs import append, flip, opened, split

SIZE = 148


def _segment(directory: Path, count: int = 10) -> Segment:
    """A segment of equal records that nobody has open."""
    with opened(directory) as log:
        append(log, *[b"%d" % number for number in range(count)])
        return log._segments[0]


def _offsets(data: bytes | memoryview) -> list[int]:
    return [decode_record(frame).offset for frame in split(data)]


def test_it_reads_from_any_offset_up_to_where_it_is_told(tmp_path: Path) -> None:
    segment = _segment(tmp_path)
    assert _offsets(segment.read(0, 10, 10_000).data) == list(range(10))
    assert _offsets(segment.read(7, 9, 10_000).data) == [7, 8]
    assert _offsets(segment.read(3, 10, 2 * SIZE).data) == [3, 4]
    # The last one went on where the next begins.
    assert _offsets(segment.read(5, 10, 1).data) == [5]


def test_readers_do_not_see_past_the_size_they_are_given(tmp_path: Path) -> None:
    segment = _segment(tmp_path)
    segment.size = 4 * SIZE
    chunk = segment.read(0, 4, 10_000)
    assert _offsets(chunk.data) == [0, 1, 2, 3]
    with segment.open() as source:
        assert source.read(4 * SIZE, 100) == source.read(5 * SIZE, 100) == b""


def test_damage_is_a_gap_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment = _segment(tmp_path)
    for number in (3, 4, 9):
        flip(segment.path, number * SIZE + 60)
    assert _offsets(segment.read(0, 10, 10_000).data) == [0, 1, 2]
    for _ in range(3):
        assert segment.read(3, 10, 10_000) == (b"", 5, (3, 4, "corrupt"))
        assert segment.read(4, 10, 10_000) == (b"", 5, (4, 4, "corrupt"))
        assert _offsets(segment.read(5, 10, 10_000).data) == [5, 6, 7, 8]
        assert segment.read(9, 10, 10_000) == (b"", 10, (9, 9, "corrupt"))
    assert segment.gaps == [(3, 4), (9, 9)]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2


def test_many_readers_in_many_places_keep_its_memory_small(tmp_path: Path) -> None:
    segment = _segment(tmp_path, 600)
    for offset in range(600):
        assert _offsets(segment.read(offset, 600, 1).data) == [offset]
    assert len(segment._cursors) <= 256


def test_segments_are_found_by_their_names_oldest_first(tmp_path: Path) -> None:
    for name in ("00000000000000000200.log", "00000000000000000007.log", "7.log", "00000000000000000007.idx", "x"):
        (tmp_path / name).touch()
    assert [segment.base for segment in find_segments(tmp_path, Disk())] == [7, 200]
    segment = find_segments(tmp_path, Disk())[0]
    assert segment.first_timestamp is None
    segment.remove()
    segment.remove()
    assert [segment.base for segment in find_segments(tmp_path, Disk())] == [200]


def test_there_is_a_mark_about_every_spacing() -> None:
    marks = Marks()
    step = SPACING // 4
    for group in range(10):
        marks.add(group * 3, group * 3 * step, [0, step, 2 * step], 1000 + group)
    assert marks[0] == Mark(0, 0, 1000)
    assert [marks[n].offset for n in range(len(marks))] == list(range(0, 30, 4))
    assert all(marks[n].position == marks[n].offset * step for n in range(len(marks)))


def test_the_mark_at_or_before_an_offset_is_found() -> None:
    marks = Marks([(10, 0, 1), (20, 70_000, 2), (30, 140_000, 3)])
    assert marks.before(9) is None
    assert [marks.before(offset) for offset in (10, 19, 20, 99)] == [marks[0], marks[0], marks[1], marks[2]]
    assert Marks().before(5) is None


def test_marks_come_back_as_they_were_saved() -> None:
    rows = [(10, 0, 1), (20, 70_000, 2)]
    assert Marks(rows).rows() == rows
    assert len(Marks(rows)) == 2


def test_a_record_larger_than_the_spacing_is_marked_like_any_other() -> None:
    marks = Marks()
    marks.add(0, 0, [0, 10, 10 * SPACING, 11 * SPACING], 1)
    assert [mark[0] for mark in marks.rows()] == [0, 2, 3]
