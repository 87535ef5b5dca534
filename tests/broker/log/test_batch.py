from __future__ import annotations

import pytest

from broker.log.batch import BLOCK_BYTES, Entries, build_batch
from broker.log.dedup import ProducerStates
from broker.log.record import MAX_SEQUENCE, OVERHEAD, Record, decode_record, encode_record
from broker.log.scan import frame_starts
from tests.broker.logs import OTHER, PRODUCER, Answer, answers_of, frames_of, single


def test_a_group_is_its_frames_one_after_the_other() -> None:
    entries = [single(b"1", PRODUCER, 7), single(b'"two"'), single(b"3", OTHER, 0)]
    group = build_batch(entries, 40, 123, ProducerStates())
    frames = frames_of(group)
    assert [decode_record(frame) for frame in frames] == [
        Record(40, 123, PRODUCER, 7, b"1"),
        Record(41, 123, "", 41, b'"two"'),
        Record(42, 123, OTHER, 0, b"3"),
    ]
    (block,) = group.blocks
    assert block.data == b"".join(frames)
    assert len(block.data) == group.size
    assert frames[0] == encode_record(40, 123, PRODUCER, 7, b"1")
    assert [block.data.index(frame) for frame in frames] == block.positions
    assert (group.first_offset, group.next_offset) == (40, 43)
    assert answers_of(group) == [Answer(40, False), Answer(41, False), Answer(42, False)]


def test_a_repetition_takes_no_offset() -> None:
    known = ProducerStates([(PRODUCER, 0, 1, [(5, 30, 3)])])
    entries = [single(b"x", PRODUCER, sequence) for sequence in (6, 8, 8, 10, 9, 10)]
    group = build_batch(entries, 40, 123, known)
    assert answers_of(group) == [
        Answer(31, True),
        Answer(40, False),
        Answer(40, True),
        Answer(41, False),
        Answer(42, False),
        Answer(41, True),
    ]
    assert (group.duplicates, group.producer_gaps, group.next_offset) == (3, 1, 43)


def test_of_messages_in_a_row_only_the_new_ones_are_appended() -> None:
    known = ProducerStates([(PRODUCER, 0, 1, [(5, 30, 2), (8, 32, 1)])])
    payloads = [b"%d" % number for number in range(4, 12)]
    group = build_batch([Entries(payloads, PRODUCER, 4), Entries(payloads, PRODUCER, 4)], 40, 123, known)
    first = [(40, False), (30, True), (31, True), (41, False), (32, True), (42, False), (43, False), (44, False)]
    assert answers_of(group) == [Answer(*one) for one in first] + [Answer(offset, True) for offset, _ in first]
    appended = [(4, b"4"), (7, b"7"), (9, b"9"), (10, b"10"), (11, b"11")]
    assert [decode_record(frame) for frame in frames_of(group)] == [
        Record(40 + number, 123, PRODUCER, *one) for number, one in enumerate(appended)
    ]
    assert (group.duplicates, group.producer_gaps, group.next_offset) == (11, 0, 45)
    known.merge(group.producers, 123)
    again = build_batch([Entries(payloads, PRODUCER, 4)], 45, 124, known)
    assert (answers_of(again), again.blocks) == ([Answer(offset, True) for offset, _ in first], [])


def test_no_sequence_of_a_row_may_be_too_high() -> None:
    top = Entries([b"1", b"2"], PRODUCER, MAX_SEQUENCE - 1)
    assert decode_record(frames_of(build_batch([top], 0, 0, ProducerStates()))[1]).sequence == MAX_SEQUENCE
    with pytest.raises(ValueError, match="sequence"):
        build_batch([Entries([b"1", b"2"], PRODUCER, MAX_SEQUENCE)], 0, 0, ProducerStates())


def test_an_empty_group_and_one_of_repetitions_hold_nothing() -> None:
    known = ProducerStates([(PRODUCER, 0, 1, [(5, 30, 3)])])
    for entries in ([], [Entries([])], [Entries([], PRODUCER, 9)], [single(b"x", PRODUCER, 5)]):
        group = build_batch(entries, 40, 123, known)
        assert (group.blocks, group.size, group.next_offset) == ([], 0, 40)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        [100_000] * 7,
        [BLOCK_BYTES * 2],
        [BLOCK_BYTES * 2, 10, 10],
        [10, BLOCK_BYTES * 2, 10],
        [10, 10, BLOCK_BYTES * 2],
        [BLOCK_BYTES - OVERHEAD] * 3,
        [BLOCK_BYTES - OVERHEAD + 1] * 3,
        [BLOCK_BYTES // 3] * 10,
        [1] * 5000,
    ],
)
def test_a_large_group_is_made_of_pieces_of_whole_frames(sizes: list[int], together: bool) -> None:
    payloads = [b"7" * size for size in sizes]
    group = build_batch([Entries(payloads)] if together else list(map(single, payloads)), 100, 0, ProducerStates())
    assert [decode_record(frame).offset for frame in frames_of(group)] == [*range(100, 100 + len(sizes))]
    assert group.size == sum(len(block.data) for block in group.blocks)
    first = group.first_offset
    for block, following in zip(group.blocks, [*group.blocks[1:], None], strict=True):
        assert (block.first_offset, block.next_offset) == (first, first + len(block.positions))
        assert block.positions == frame_starts(block.data)
        assert len(block.data) <= BLOCK_BYTES or len(block.positions) == 1
        if following is not None:  # no smaller than it must be
            assert len(block.data) + sizes[block.next_offset - 100] + OVERHEAD > BLOCK_BYTES
        first = block.next_offset
    assert first == group.next_offset
