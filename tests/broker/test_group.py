from __future__ import annotations

from broker.group import Answer, Entry, build_group
from broker.producers import Producers
from broker.record import Record, decode_record, encode_record
from tests.broker.logs import OTHER, PRODUCER


def test_a_group_is_its_frames_one_after_the_other() -> None:
    entries = [Entry(b"1", PRODUCER, 7), Entry(b'"two"'), Entry(b"3", OTHER, 0)]
    group = build_group(entries, 40, 123, Producers())
    assert [decode_record(frame) for frame in group.frames] == [
        Record(40, 123, PRODUCER, 7, b"1"),
        Record(41, 123, "", 41, b'"two"'),
        Record(42, 123, OTHER, 0, b"3"),
    ]
    assert group.blob == b"".join(group.frames)
    assert group.frames[0] == encode_record(40, 123, PRODUCER, 7, b"1")
    assert [group.blob.index(frame) for frame in group.frames] == group.positions
    assert (group.first_offset, group.next_offset) == (40, 43)
    assert group.answers == [Answer(40, False), Answer(41, False), Answer(42, False)]


def test_a_repetition_takes_no_offset() -> None:
    known = Producers([(PRODUCER, 0, 1, [(5, 30, 3)])])
    entries = [Entry(b"x", PRODUCER, sequence) for sequence in (6, 8, 8, 10, 9, 10)]
    group = build_group(entries, 40, 123, known)
    assert group.answers == [
        Answer(31, True),
        Answer(40, False),
        Answer(40, True),
        Answer(41, False),
        Answer(42, False),
        Answer(41, True),
    ]
    assert (group.duplicates, group.producer_gaps, group.next_offset) == (3, 1, 43)


def test_an_empty_group_and_one_of_repetitions_hold_nothing() -> None:
    known = Producers([(PRODUCER, 0, 1, [(5, 30, 3)])])
    for entries in ([], [Entry(b"x", PRODUCER, 5)]):
        group = build_group(entries, 40, 123, known)
        assert (group.blob, group.frames, group.next_offset) == (b"", [], 40)
