from __future__ import annotations

import pytest

from broker.log.batch import RecordBatch, build_batch
from broker.log.cache import RecentMessages
from broker.log.dedup import ProducerStates
from tests.broker.logs import frames_of, single, split


def _groups(*counts: int) -> list[RecordBatch]:
    groups: list[RecordBatch] = []
    for count in counts:
        first = groups[-1].next_offset if groups else 100
        groups.append(build_batch([single(b"x" * (10 + n)) for n in range(count)], first, 1, ProducerStates()))
    return groups


@pytest.mark.parametrize("most", [1, 157, 158, 400, 1000, 10_000])
def test_it_gives_whole_frames_within_the_limit_from_any_offset(most: int) -> None:
    tail = RecentMessages(1000, 1 << 20)
    groups = _groups(1, 5, 1, 1, 3)
    for group in groups:
        tail.add(group.blocks)
    everything = [frame for group in groups for frame in frames_of(group)]
    for offset in range(100, 111):
        found = tail.read(offset, 111, most)
        assert found is not None
        data, next_offset = found
        count = next_offset - offset
        assert split(data) == everything[offset - 100 : next_offset - 100]
        assert count == 1 or len(data) <= most
        # It stops early for the limit only.
        assert next_offset == 111 or len(data) + len(everything[next_offset - 100]) > most


def test_what_it_does_not_hold_it_does_not_give() -> None:
    tail = RecentMessages(1000, 1 << 20)
    assert tail.read(0, 5, 100) is None
    for group in _groups(3, 3):
        tail.add(group.blocks)
    assert tail.read(99, 106, 100) is None
    assert tail.read(106, 106, 100) is None


def test_it_stops_at_the_offset_it_is_told() -> None:
    tail = RecentMessages(1000, 1 << 20)
    for group in _groups(3, 3):
        tail.add(group.blocks)
    found = tail.read(100, 103, 10_000)
    assert found is not None
    assert found[1] == 103


def test_it_forgets_the_oldest_pieces_over_either_limit() -> None:
    groups = _groups(4, 4, 4)
    by_count, by_bytes = RecentMessages(8, 1 << 20), RecentMessages(1000, groups[1].size + groups[2].size)
    for tail in (by_count, by_bytes):
        for group in groups:
            tail.add(group.blocks)
        assert tail.read(103, 112, 1000) is None
        assert tail.read(104, 112, 1000) is not None
    nothing = RecentMessages(0, 1 << 20)
    nothing.add(groups[0].blocks)
    assert nothing.read(100, 104, 1000) is None
