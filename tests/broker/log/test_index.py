from __future__ import annotations

from broker.log.segment import SPACING, Mark, Marks


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
