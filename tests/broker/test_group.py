from __future__ import annotations

import pytest

from broker.group import PIECE_BYTES, Entry, build_group
from broker.producers import Producers
from broker.record import OVERHEAD, Record, decode_record, encode_record
from broker.walk import frame_starts
from tests.broker.logs import OTHER, PRODUCER, Answer, answers_of, frames_of


def test_a_group_is_its_frames_one_after_the_other() -> None:
    entries = [Entry(b"1", PRODUCER, 7), Entry(b'"two"'), Entry(b"3", OTHER, 0)]
    group = build_group(entries, 40, 123, Producers())
    frames = frames_of(group)
    assert [decode_record(frame) for frame in frames] == [
        Record(40, 123, PRODUCER, 7, b"1"),
        Record(41, 123, "", 41, b'"two"'),
        Record(42, 123, OTHER, 0, b"3"),
    ]
    (piece,) = group.pieces
    assert piece.data == b"".join(frames)
    assert len(piece.data) == group.size
    assert frames[0] == encode_record(40, 123, PRODUCER, 7, b"1")
    assert [piece.data.index(frame) for frame in frames] == piece.positions
    assert (group.first_offset, group.next_offset) == (40, 43)
    assert answers_of(group) == [Answer(40, False), Answer(41, False), Answer(42, False)]


def test_a_repetition_takes_no_offset() -> None:
    known = Producers([(PRODUCER, 0, 1, [(5, 30, 3)])])
    entries = [Entry(b"x", PRODUCER, sequence) for sequence in (6, 8, 8, 10, 9, 10)]
    group = build_group(entries, 40, 123, known)
    assert answers_of(group) == [
        Answer(31, True),
        Answer(40, False),
        Answer(40, True),
        Answer(41, False),
        Answer(42, False),
        Answer(41, True),
    ]
    assert (group.duplicates, group.producer_gaps, group.next_offset) == ({0, 2, 5}, 1, 43)


def test_an_empty_group_and_one_of_repetitions_hold_nothing() -> None:
    known = Producers([(PRODUCER, 0, 1, [(5, 30, 3)])])
    for entries in ([], [Entry(b"x", PRODUCER, 5)]):
        group = build_group(entries, 40, 123, known)
        assert (group.pieces, group.size, group.next_offset) == ([], 0, 40)


@pytest.mark.parametrize(
    "sizes",
    [
        [100_000] * 7,
        [PIECE_BYTES * 2],
        [PIECE_BYTES * 2, 10, 10],
        [10, PIECE_BYTES * 2, 10],
        [10, 10, PIECE_BYTES * 2],
        [PIECE_BYTES - OVERHEAD] * 3,
        [PIECE_BYTES - OVERHEAD + 1] * 3,
        [PIECE_BYTES // 3] * 10,
        [1] * 5000,
    ],
)
def test_a_large_group_is_made_of_pieces_of_whole_frames(sizes: list[int]) -> None:
    group = build_group([Entry(b"7" * size) for size in sizes], 100, 0, Producers())
    assert [decode_record(frame).offset for frame in frames_of(group)] == [*range(100, 100 + len(sizes))]
    assert group.size == sum(len(piece.data) for piece in group.pieces)
    first = group.first_offset
    for piece, following in zip(group.pieces, [*group.pieces[1:], None], strict=True):
        assert (piece.first_offset, piece.next_offset) == (first, first + len(piece.positions))
        assert piece.positions == frame_starts(piece.data)
        assert len(piece.data) <= PIECE_BYTES or len(piece.positions) == 1
        if following is not None:  # no smaller than it must be
            assert len(piece.data) + sizes[piece.next_offset - 100] + OVERHEAD > PIECE_BYTES
        first = piece.next_offset
    assert first == group.next_offset
